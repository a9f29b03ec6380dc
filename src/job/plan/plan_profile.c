/* Plans from a profile: its hosts as classes of hosts that are alike. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "job/plan/plan_hosts.h"
#include "saf/job_detect.h"
#include "saf/job_hosts.h"

/* ---- links ---- */

typedef struct {
    const char *name;
    int64_t at;
} host_name;

static int by_name(const void *a, const void *b) {
    return strcmp(((const host_name *)a)->name, ((const host_name *)b)->name);
}

/* A profile that was read has no link of other hosts than its own. */
static int64_t find_named(const host_name *sorted, int64_t n, const char *name) {
    const host_name *found =
        bsearch(&(host_name){name, 0}, sorted, (size_t)n, sizeof *sorted, by_name);
    return found ? found->at : -1;
}

/* 0 where one of them is. */
static double median_of_known(double *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (values[i] <= 0) return 0;
    return saf_median(values, n);
}

_Static_assert((int)SAF_PROFILE_SHORT_BYTES == (int)SAF_PLAN_SHORT_BYTES, "of one length");

/* Of the links that a host is an end of, the slower way of each: the median, so that one slow host
 * does not make all others slow. Hosts without links keep what they have. */
static saf_status find_links(const saf_hosts_profile *p, saf_plan_host *hosts, int64_t n) {
    saf_status st = SAF_OK;
    int64_t links, *end = NULL, *stop = NULL; /* end[2 links]: hosts; stop[n]: of their values */
    double *rate = NULL, *delay = NULL, *brief = NULL; /* [2 links] host after host */
    host_name *sorted = NULL;
    const saf_profile_link *l = saf_profile_links(p, &links);
    SAF_TRY(saf_alloc((size_t)n, sizeof *sorted, &sorted));
    SAF_TRY(saf_alloc((size_t)n + 1, sizeof *stop, &stop));
    SAF_TRY(saf_alloc((size_t)links * 2, sizeof *end, &end));
    SAF_TRY(saf_alloc((size_t)links * 2, sizeof *rate, &rate));
    SAF_TRY(saf_alloc((size_t)links * 2, sizeof *delay, &delay));
    SAF_TRY(saf_alloc((size_t)links * 2, sizeof *brief, &brief));
    for (int64_t i = 0; i < n; i++) sorted[i] = (host_name){hosts[i].name, i};
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    for (int64_t i = 0; i < 2 * links; i++) {
        end[i] = find_named(sorted, n, i % 2 ? l[i / 2].host_b : l[i / 2].host_a);
        if (end[i] >= 0) stop[end[i] + 1]++;
    }
    for (int64_t i = 0; i < n; i++) stop[i + 1] += stop[i];
    for (int64_t i = 0; i < 2 * links; i++) { /* stop[h]: so far, and in the end, where h's stop */
        if (end[i] < 0) continue;
        int64_t to = stop[end[i]]++;
        rate[to] = fmin(l[i / 2].bytes_s_to_a, l[i / 2].bytes_s_to_b);
        delay[to] = l[i / 2].latency_s;
        brief[to] = l[i / 2].short_s;
    }
    for (int64_t i = 0, from = 0; i < n; from = stop[i++]) {
        if (stop[i] == from) continue;
        hosts[i].link = (saf_plan_link){saf_median(rate + from, stop[i] - from),
                                        saf_median(delay + from, stop[i] - from),
                                        median_of_known(brief + from, stop[i] - from)};
    }
out:
    saf_free(&sorted);
    saf_free(&stop);
    saf_free(&end);
    saf_free(&rate);
    saf_free(&delay);
    saf_free(&brief);
    return st;
}

/* ---- a host ---- */

/* What one core of a host reads by itself; 0: not known. */
static double core_read_bytes_s(const saf_hosts_profile *p, const char *host) {
    int64_t n;
    const saf_profile_rate *r = saf_profile_rates(p, &n);
    for (int64_t i = 0; i < n; i++)
        if (r[i].threads == 1 && strcmp(r[i].host, host) == 0) return fmax(0, r[i].read_bytes_s);
    return 0;
}

/* What the hosts of a machine read together, and how many of out[n] they are: rows at[n] of the
 * profile, or NULL, all of them. */
static saf_status find_machines(const saf_hosts_profile *p, const int32_t *at, int32_t n,
                                saf_plan_host *out) {
    saf_status st = SAF_OK;
    int64_t rows;
    const saf_profile_host *h = saf_profile_hosts(p, &rows);
    double *together = NULL; /* [rows] by number of the machine */
    int32_t *measured = NULL, *here = NULL;
    SAF_TRY(saf_alloc((size_t)rows, sizeof *together, &together));
    SAF_TRY(saf_alloc((size_t)rows, sizeof *measured, &measured));
    SAF_TRY(saf_alloc((size_t)rows, sizeof *here, &here));
    for (int64_t i = 0; i < rows; i++) {
        if (h[i].machine < 0 || h[i].machine >= rows) continue; /* of no other */
        together[h[i].machine] += fmax(0, h[i].together_read_bytes_s);
        measured[h[i].machine]++;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t machine = h[at ? at[i] : i].machine;
        if (machine >= 0 && machine < rows) here[machine]++;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t machine = h[at ? at[i] : i].machine;
        bool shared = machine >= 0 && machine < rows && measured[machine] > 1;
        out[i].machine_hosts = shared ? here[machine] : 0;
        out[i].machine_read_bytes_s = shared ? together[machine] : 0;
    }
out:
    saf_free(&together);
    saf_free(&measured);
    saf_free(&here);
    return st;
}

saf_status saf__profile_hosts(const saf_hosts_profile *p, saf_plan_host *out) {
    int64_t n;
    const saf_profile_host *from = saf_profile_hosts(p, &n);
    for (int64_t i = 0; i < n; i++) {
        const saf_profile_host *f = &from[i];
        double memory = (double)f->memory_bytes;
        if (f->memory_limit_bytes > 0) memory = fmin(memory, (double)f->memory_limit_bytes);
        out[i] =
            (saf_plan_host){.count = 1,
                            .cores = f->usable_cores,
                            .ranks = f->ranks < SAF_PLAN_RANKS_MAX ? f->ranks : SAF_PLAN_RANKS_MAX,
                            .memory_bytes = memory,
                            .reserve_bytes = SAF__RESERVE_PART * memory,
                            .read_bytes_s = f->read_bytes_s,
                            .core_read_bytes_s = core_read_bytes_s(p, f->host),
                            .int8_ops_s = f->int8_ops_s,
                            .f32_ops_s = f->f32_ops_s,
                            .product_share = f->product_share > 0 ? fmin(1, f->product_share) : 0,
                            .hidden_share = f->hidden_share > 0 ? fmin(1, f->hidden_share) : 0,
                            .tiles = isfinite(f->tile_ops_s) && f->tile_ops_s > 0,
                            .link = {SAF__LINK_BYTES_S, SAF__LATENCY_S, 0}};
        memcpy(out[i].name, f->host, sizeof out[i].name);
    }
    saf_status st = find_machines(p, NULL, (int32_t)n, out);
    return st == SAF_OK ? find_links(p, out, n) : st;
}

int64_t saf__profile_find(const saf_hosts_profile *p, const char *name) {
    int64_t n, dotless = -1;
    const saf_profile_host *h = saf_profile_hosts(p, &n);
    const char *at = strrchr(name, '@');
    if (at) name = at + 1;
    size_t len = strcspn(name, ".");
    bool number = strspn(name, "0123456789.:") == strlen(name); /* an address: its dots say more */
    for (int64_t i = 0; i < n; i++) {
        if (strcasecmp(h[i].host, name) == 0) return i;
        if (!number && strcspn(h[i].host, ".") == len && strncasecmp(h[i].host, name, len) == 0)
            dotless = i;
    }
    return dotless;
}

/* ---- hosts that are alike ---- */

static bool near(double a, double b, double bound) {
    return fabs(a - b) <= bound * fmax(a, b);
}

static bool alike(const saf_plan_host *a, const saf_plan_host *b, double wider) {
    return a->cores == b->cores && a->ranks == b->ranks && a->tiles == b->tiles &&
           near(a->memory_bytes, b->memory_bytes, 0.05 * wider) &&
           near(a->read_bytes_s, b->read_bytes_s, 0.1 * wider) &&
           near(a->core_read_bytes_s, b->core_read_bytes_s, 0.25 * wider) &&
           a->machine_hosts == b->machine_hosts &&
           near(a->machine_read_bytes_s, b->machine_read_bytes_s, 0.1 * wider) &&
           near(a->int8_ops_s, b->int8_ops_s, 0.1 * wider) &&
           near(a->f32_ops_s, b->f32_ops_s, 0.1 * wider) &&
           near(a->product_share, b->product_share, 0.1 * wider) &&
           fabs(a->hidden_share - b->hidden_share) < 0.25 * wider &&
           near(a->link.bytes_s, b->link.bytes_s, 0.25 * wider);
}

/* Like the first of each class; the last class takes what is left when there may be no more. */
static int32_t find_classes(const saf_plan_host *hosts, int32_t n, double wider, bool last_try,
                            int32_t *class_of) {
    int32_t first[SAF_PLAN_CLASSES_MAX], classes = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t c = 0;
        while (c < classes && !alike(&hosts[first[c]], &hosts[i], wider)) c++;
        if (c == SAF_PLAN_CLASSES_MAX && !last_try) return c + 1;
        if (c == SAF_PLAN_CLASSES_MAX) c--;
        if (c == classes) first[classes++] = i;
        class_of[i] = c;
    }
    return classes;
}

/* Rates are those of the average, memory and links of the worst. */
static void level(saf_plan_host *hosts, int32_t n, const int32_t *class_of, int32_t class) {
    saf_plan_host all = {0};
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        const saf_plan_host *h = &hosts[i];
        if (class_of[i] != class) continue;
        if (count++ == 0) {
            all = *h;
            continue;
        }
        all.read_bytes_s += h->read_bytes_s;
        all.core_read_bytes_s += h->core_read_bytes_s;
        all.machine_read_bytes_s += h->machine_read_bytes_s;
        all.int8_ops_s += h->int8_ops_s;
        all.f32_ops_s += h->f32_ops_s;
        all.product_share += h->product_share;
        all.hidden_share += h->hidden_share;
        all.cores = h->cores < all.cores ? h->cores : all.cores;
        all.ranks = h->ranks < all.ranks ? h->ranks : all.ranks;
        all.tiles = all.tiles && h->tiles;
        all.memory_bytes = fmin(all.memory_bytes, h->memory_bytes);
        all.reserve_bytes = fmax(all.reserve_bytes, h->reserve_bytes);
        all.link = saf_plan_slower_link(&all.link, &h->link);
    }
    if (count < 2) return;
    all.read_bytes_s /= count;
    all.core_read_bytes_s /= count;
    all.machine_read_bytes_s /= count;
    all.int8_ops_s /= count;
    all.f32_ops_s /= count;
    all.product_share /= count;
    all.hidden_share /= count;
    for (int32_t i = 0; i < n; i++)
        if (class_of[i] == class) hosts[i] = all; /* the first one's name */
}

int32_t saf__hosts_alike(saf_plan_host *hosts, int32_t n, int32_t *class_of) {
    enum { TRIES = 8 };
    int32_t classes = SAF_PLAN_CLASSES_MAX + 1;
    double wider = 1;
    for (int i = 0; i < TRIES && classes > SAF_PLAN_CLASSES_MAX; i++, wider *= 2)
        classes = find_classes(hosts, n, wider, i == TRIES - 1, class_of);
    for (int32_t c = 0; c < classes; c++) level(hosts, n, class_of, c);
    return classes;
}

/* ---- a plan's classes ---- */

/* Keeps the hosts that a hostfile names, in its order and with its slots as ranks; *n of them. */
static saf_status keep_named(const saf_hosts_profile *p, const saf_job_plan_options *o,
                             saf_plan_host *hosts, int32_t *n) {
    saf_status st = SAF_OK;
    saf_hostfile file = {0};
    saf_plan_host *named = NULL;
    int32_t *place = NULL, kept = 0; /* place: in `named`, from 1 on; 0: not named */
    int32_t *row = NULL;             /* of those in `named` */
    SAF_TRY(saf_hostfile_read(o->hosts, &file));
    SAF_TRY(saf_alloc((size_t)*n, sizeof *place, &place));
    SAF_TRY(saf_alloc((size_t)*n, sizeof *named, &named));
    SAF_TRY(saf_alloc((size_t)*n, sizeof *row, &row));
    for (int32_t i = 0; i < file.n; i++) {
        const saf_host_line *line = &file.lines[i];
        int64_t at = saf__profile_find(p, line->name);
        if (at < 0) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s:%d: %s is not in the profile %s; measure these hosts: mpirun "
                          "--hostfile %s --map-by node saf detect --output FILE.h5",
                          o->hosts, line->line, line->name, o->profile, o->hosts);
            goto out;
        }
        if (place[at] == 0) {
            named[kept] = hosts[at];
            named[kept].ranks = 0;
            row[kept] = (int32_t)at;
            place[at] = ++kept;
        }
        int32_t *ranks = &named[place[at] - 1].ranks;
        int64_t slots = (int64_t)*ranks + (line->slots > 0 ? line->slots : 1);
        *ranks = (int32_t)(slots < SAF_PLAN_RANKS_MAX ? slots : SAF_PLAN_RANKS_MAX);
    }
    SAF_TRY(find_machines(p, row, kept, named));
    memcpy(hosts, named, (size_t)kept * sizeof *hosts);
    *n = kept;
out:
    saf_free(&place);
    saf_free(&row);
    saf_free(&named);
    saf_hostfile_free(&file);
    return st;
}

saf_status saf__plan_profile(const saf_job_plan_options *o, saf_job_plan *plan) {
    saf_status st = SAF_OK;
    saf_hosts_profile p = {0};
    saf_plan_host *hosts = NULL;
    int32_t *class_of = NULL, count;
    int64_t all;
    char why[256];
    SAF_TRY(saf_profile_read(o->profile, &p));
    saf_profile_stale(&p, why, sizeof why);
    if (why[0])
        saf_log(SAF_LOG_WARNING,
                "the profile %s is stale: %s; `saf detect --output %s` on its hosts measures anew",
                o->profile, why, o->profile);
    (void)saf_profile_hosts(&p, &all);
    if (all > SAF_PLAN_HOSTS_MAX) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld hosts, expected at most %d", o->profile,
                      (long long)all, SAF_PLAN_HOSTS_MAX);
        goto out;
    }
    count = (int32_t)all;
    SAF_TRY(saf_alloc((size_t)count, sizeof *hosts, &hosts));
    SAF_TRY(saf_alloc((size_t)count, sizeof *class_of, &class_of));
    SAF_TRY(saf__profile_hosts(&p, hosts));
    if (o->hosts) SAF_TRY(keep_named(&p, o, hosts, &count));
    if (count == 1 && !o->hosts && o->ranks > 0)
        hosts[0].ranks = o->ranks < SAF_PLAN_RANKS_MAX ? o->ranks : SAF_PLAN_RANKS_MAX;
    plan->cluster.n = saf__hosts_alike(hosts, count, class_of);
    for (int32_t i = count - 1; i >= 0; i--) plan->classes[class_of[i]] = hosts[i];
    for (int32_t i = 0; i < plan->cluster.n; i++) plan->classes[i].count = 0;
    for (int32_t i = 0; i < count; i++) plan->classes[class_of[i]].count++;
    plan->n_hosts = count;
    plan->class_of = class_of;
    class_of = NULL;
out:
    saf_free(&hosts);
    saf_free(&class_of);
    saf_profile_free(&p);
    return st;
}
