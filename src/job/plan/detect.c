/* Measuring the hosts of a run: a rank of each for all of it, then the links between these. */
#include "job/plan/detect.h"

#include <assert.h>
#include <stdio.h>

#include "job/hosts.h"
#include "saf/hw_host.h"

typedef struct {
    saf_comm *world, *here, *firsts; /* of this host; of the first ranks, where this is one */
    saf_comm *machine;               /* of these, those of hosts that are one machine with this */
    int32_t *host;                   /* [ranks] */
    char *folder;
    uint8_t *cpus;                       /* [SAF_HW_CPUS_MAX] */
    char (*names)[SAF_SUITE_HOST_BYTES]; /* [hosts], first ranks */
    int32_t sharers, number;             /* hosts that are one machine with this; its number */
    saf_buf tables[SAF_PROFILE_TABLES];  /* this rank's rows */
} detecting;

/* Rank 0's folder. */
static saf_status share_folder(detecting *d, const saf_detect_options *o) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    bool root = saf_comm_rank(d->world) == 0;
    if (root) st = saf_buf_append(&path, o->folder, strlen(o->folder));
    SAF_TRY(saf_comm_agree(d->world, st));
    SAF_TRY(saf_comm_bcast_buf(d->world, 0, &path));
    st = saf_comm_agree(d->world, saf_strdup(path.len > 0 ? path.data : ".", &d->folder));
out:
    saf_buf_free(&path);
    return st;
}

/* Who is where, and what the ranks of a host may use together. */
static saf_status find_hosts(detecting *d) {
    saf_status st = SAF_OK;
    saf__host_share share;
    int rank = saf_comm_rank(d->world);
    SAF_TRY(saf__hosts_share(d->world, 0, &share, &d->host));
    SAF_TRY(saf_comm_split(d->world, d->host[rank], rank, &d->here));
    bool first = saf_comm_rank(d->here) == 0;
    SAF_TRY(saf_comm_split(d->world, first ? 0 : -1, rank, &d->firsts));
    st = saf_alloc(SAF_HW_CPUS_MAX, 1, &d->cpus);
    if (st == SAF_OK) st = saf_hw_cpus_read(d->cpus);
    SAF_TRY(saf_comm_agree(d->world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, d->cpus, SAF_HW_CPUS_MAX);
    SAF_TRY(saf_comm_allreduce(d->here, SAF_OP_MAX, &t));
out:
    return st;
}

/* A text of every first rank, for all of them. Collective over these. */
static saf_status share_texts(const detecting *d, const char *text,
                              char (**out)[SAF_SUITE_HOST_BYTES]) {
    saf_status st = SAF_OK;
    char mine[SAF_SUITE_HOST_BYTES] = "";
    saf_tensor *all = NULL;
    size_t n = (size_t)saf_comm_size(d->firsts);
    st = saf_alloc(n, sizeof **out, out);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *all, &all);
    SAF_TRY(saf_comm_agree(d->firsts, st));
    assert(all && *out); /* or all would have failed */
    snprintf(mine, sizeof mine, "%s", text);
    for (size_t i = 0; i < n; i++) all[i] = saf_tensor_1d(SAF_DTYPE_U8, (*out)[i], sizeof mine);
    saf_tensor own = saf_tensor_1d(SAF_DTYPE_U8, mine, sizeof mine);
    SAF_TRY(saf_comm_allgather(d->firsts, &own, all));
out:
    saf_free(&all);
    return st;
}

/* First ranks learn each other's names, and with whom they share a machine. */
static saf_status meet_hosts(detecting *d) {
    saf_status st = SAF_OK;
    char boot[SAF_HW_BOOT_BYTES];
    char(*boots)[SAF_SUITE_HOST_BYTES] = NULL;
    saf_hw_boot_read("", boot);
    SAF_TRY(share_texts(d, saf_comm_host(d->world), &d->names));
    SAF_TRY(share_texts(d, boot, &boots));
    int rank = saf_comm_rank(d->firsts), lowest = rank;
    for (int i = saf_comm_size(d->firsts) - 1; i >= 0 && boot[0]; i--)
        if (strcmp(boots[i], boot) == 0) lowest = i;
    SAF_TRY(saf_comm_split(d->firsts, lowest, rank, &d->machine));
    d->sharers = saf_comm_size(d->machine);
    d->number = lowest;
out:
    saf_free(&boots);
    return st;
}

/* Rows of all hosts, host by host. */
static saf_status gather(detecting *d, saf_hosts_profile *out) {
    saf_status st = SAF_OK;
    saf_buf *all = NULL;
    size_t n = (size_t)saf_comm_size(d->firsts);
    SAF_TRY(saf_comm_agree(d->firsts, saf_alloc(n, sizeof *all, &all)));
    assert(all); /* or all would have failed */
    for (int i = 0; i < SAF_PROFILE_TABLES; i++) {
        SAF_TRY(saf_comm_gather_buf(d->firsts, 0, &d->tables[i], all));
        for (size_t r = 0; saf_comm_rank(d->firsts) == 0 && r < n; r++) {
            if (st == SAF_OK)
                st = saf_buf_append(&out->tables[i], all[r].len ? all[r].data : "", all[r].len);
            saf_buf_clear(&all[r]);
        }
        SAF_TRY(saf_comm_agree(d->firsts, st));
    }
out:
    for (size_t r = 0; all && r < n; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    return st;
}

static saf_status make_key(const saf_hosts_profile *p, char key[SAF_PROFILE_KEY_CHARS]) {
    saf_status st = SAF_OK;
    const char **names = NULL;
    int64_t n;
    const saf_profile_host *hosts = saf_profile_hosts(p, &n);
    SAF_TRY(saf_alloc((size_t)n, sizeof *names, (void *)&names));
    for (int64_t i = 0; i < n; i++) names[i] = hosts[i].host;
    st = saf_profile_key(names, n, key);
out:
    saf_free((void *)&names);
    return st;
}

saf_status saf_detect_key(saf_comm *world, char *out) {
    saf_status st = SAF_OK;
    int n = saf_comm_size(world);
    saf_buf mine = {0}, *all = NULL;
    const char **names = NULL;
    st = saf_buf_printf(&mine, "%s", saf_comm_host(world));
    if (st == SAF_OK) st = saf_alloc((size_t)n, sizeof *all, &all);
    if (st == SAF_OK) st = saf_alloc((size_t)n, sizeof *names, (void *)&names);
    SAF_TRY(saf_comm_agree(world, st));
    assert(all && names); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(world, 0, &mine, all));
    memset(out, 0, SAF_PROFILE_KEY_CHARS);
    if (saf_comm_rank(world) == 0) {
        for (int i = 0; i < n; i++) names[i] = all[i].data;
        st = saf_profile_key(names, n, out);
    }
    SAF_TRY(saf_comm_agree(world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, out, SAF_PROFILE_KEY_CHARS);
    st = saf_comm_bcast(world, 0, &t);
out:
    for (int i = 0; all && i < n; i++) saf_buf_free(&all[i]);
    saf_free(&all);
    saf_free((void *)&names);
    saf_buf_free(&mine);
    return st;
}

static saf_status fill_header(const saf_detect_options *o, double seconds, saf_hosts_profile *out) {
    saf_status st = SAF_OK;
    char now[32], key[SAF_PROFILE_KEY_CHARS];
    saf_clock_iso8601(now);
    SAF_TRY(make_key(out, key));
    SAF_TRY(saf_strdup(SAF_VERSION, &out->version));
    SAF_TRY(saf_strdup(now, &out->time));
    SAF_TRY(saf_strdup(o->command_line, &out->command_line));
    SAF_TRY(saf_strdup(key, &out->key));
    out->seconds = seconds;
out:
    return st;
}

static void say(const detecting *d, const saf_detect_options *o, const char *what) {
    if (saf_comm_rank(d->world) == 0 && !o->quiet) saf_log(SAF_LOG_INFO, "%s", what);
}

static saf_status measure(detecting *d, const saf_detect_options *o) {
    saf_status st = SAF_OK;
    bool first = d->firsts != NULL, root = saf_comm_rank(d->world) == 0;
    saf__detect_host h = {0};
    saf__together together = {0};
    SAF_TRY(saf_comm_agree(d->world, first ? meet_hosts(d) : SAF_OK));
    say(d, o, "measuring hosts");
    saf_comm_watch_phase("measuring hosts");
    if (first) {
        h = (saf__detect_host){.host = saf_comm_host(d->world),
                               .folder = d->folder,
                               .ranks = saf_comm_size(d->here),
                               .sharers = d->sharers,
                               .cpus = d->cpus,
                               .machine = d->number};
        st = saf__detect_host_measure(&h, root, d->tables);
    }
    SAF_TRY(saf_comm_agree(d->world, st));
    if (first && d->sharers > 1)
        st = saf__detect_machine_measure(d->machine, &h, &together, d->tables);
    SAF_TRY(saf_comm_agree(d->world, st));
    if (first && saf_comm_size(d->firsts) > 1) say(d, o, "measuring links");
    saf_comm_watch_phase("measuring links");
    if (first)
        st =
            saf__detect_links_measure(d->world, d->firsts, d->names, &d->tables[SAF_PROFILE_LINKS]);
    SAF_TRY(saf_comm_agree(d->world, st));
    if (first && d->sharers > 1)
        st = saf__detect_machine_together(d->machine, &h, &together, d->tables);
    st = saf_comm_agree(d->world, st);
out:
    return st;
}

saf_status saf_detect_run(saf_comm *world, const saf_detect_options *o, saf_hosts_profile *out) {
    saf_status st = SAF_OK;
    detecting d = {.world = world};
    double start = saf_clock_s();
    *out = (saf_hosts_profile){0};
    SAF_TRY(share_folder(&d, o));
    SAF_TRY(find_hosts(&d));
    SAF_TRY(measure(&d, o));
    if (d.firsts) st = gather(&d, out);
    if (st == SAF_OK && saf_comm_rank(world) == 0) st = fill_header(o, saf_clock_s() - start, out);
    st = saf_comm_agree(world, st);
out:
    if (st != SAF_OK) saf_profile_free(out);
    for (int i = 0; i < SAF_PROFILE_TABLES; i++) saf_buf_free(&d.tables[i]);
    saf_comm_free(&d.machine);
    saf_comm_free(&d.firsts);
    saf_comm_free(&d.here);
    saf_free(&d.names);
    saf_free(&d.cpus);
    saf_free(&d.folder);
    saf_free(&d.host);
    return st;
}
