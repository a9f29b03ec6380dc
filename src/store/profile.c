/* Profiles of hosts, to a file and back. */
#include "store/profile.h"

#include <math.h>
#include <stdlib.h>

#include "store/part.h"

/* Far beyond any cluster's: what a file may claim. */
enum { MOST_ROWS = 1 << 26 };

/* ---- in memory ---- */

void saf_profile_free(saf_hosts_profile *p) {
    saf_free(&p->version);
    saf_free(&p->time);
    saf_free(&p->command_line);
    saf_free(&p->key);
    for (int i = 0; i < SAF_PROFILE_TABLES; i++) saf_buf_free(&p->tables[i]);
    *p = (saf_hosts_profile){0};
}

int64_t saf_profile_rows(saf_profile_table table, const saf_buf *rows) {
    return (int64_t)(rows->len / saf__profile_tables[table]->row_bytes);
}

static const void *rows_of(const saf_hosts_profile *p, saf_profile_table table, int64_t *n) {
    *n = saf_profile_rows(table, &p->tables[table]);
    return p->tables[table].data;
}

const saf_profile_host *saf_profile_hosts(const saf_hosts_profile *p, int64_t *n) {
    return rows_of(p, SAF_PROFILE_HOSTS, n);
}

const saf_profile_rate *saf_profile_rates(const saf_hosts_profile *p, int64_t *n) {
    return rows_of(p, SAF_PROFILE_RATES, n);
}

const saf_profile_link *saf_profile_links(const saf_hosts_profile *p, int64_t *n) {
    return rows_of(p, SAF_PROFILE_LINKS, n);
}

saf_suite_table_about saf_profile_table_info(saf_profile_table table) {
    return saf__table_about(saf__profile_tables[table]);
}

saf_suite_column saf_profile_column_info(saf_profile_table table, int column) {
    return saf__table_column(saf__profile_tables[table], column);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

saf_status saf_profile_key(const char *const *hosts, int64_t n, char out[SAF_PROFILE_KEY_CHARS]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    const char **sorted = NULL;
    uint8_t digest[32];
    SAF_TRY(saf_alloc((size_t)n, sizeof *sorted, (void *)&sorted));
    for (int64_t i = 0; i < n; i++) sorted[i] = hosts[i];
    qsort((void *)sorted, (size_t)n, sizeof *sorted, by_name);
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(sorted[i], sorted[i - 1]) != 0)
            SAF_TRY(saf_sha256_add(sha, sorted[i], strlen(sorted[i]) + 1));
    SAF_TRY(saf_sha256_final(sha, digest));
    saf_hex(digest, sizeof digest, out);
out:
    saf_sha256_free(&sha);
    saf_free((void *)&sorted);
    return st;
}

/* ---- writing ---- */

static saf_status write_attributes(const saf__h5 *f, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_put_i64(f, f->id, "profile_schema", SAF_PROFILE_SCHEMA));
    SAF_TRY(saf__h5_put_text(f, f->id, "saf_version", p->version ? p->version : ""));
    SAF_TRY(saf__h5_put_text(f, f->id, "time", p->time ? p->time : ""));
    SAF_TRY(saf__h5_put_text(f, f->id, "command_line", p->command_line ? p->command_line : ""));
    SAF_TRY(saf__h5_put_text(f, f->id, "hosts_key", p->key ? p->key : ""));
    SAF_TRY(saf__h5_put_f64(f, f->id, "seconds", p->seconds));
out:
    return st;
}

static saf_status write_all(saf__h5 *f, const char *path, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_create_file(path, 0, f));
    SAF_TRY(write_attributes(f, p));
    for (int i = 0; i < SAF_PROFILE_TABLES; i++) {
        int64_t n = saf_profile_rows((saf_profile_table)i, &p->tables[i]);
        f->needed_bytes += (int64_t)p->tables[i].len;
        SAF_TRY(saf__table_write(f, saf__profile_tables[i], p->tables[i].data, n));
    }
    SAF_TRY(saf__h5_check(f, saf__h5_close(&f->id), "closing it"));
out:
    saf__h5_leave();
    return st;
}

/* What reads back other than it was written is not kept. */
static saf_status verify(const char *path, const saf_hosts_profile *p) {
    saf_hosts_profile back;
    saf_status st = saf_profile_read(path, &back);
    if (st != SAF_OK) return st == SAF_NO_MEMORY ? st : SAF_IO;
    for (int i = 0; i < SAF_PROFILE_TABLES; i++)
        if (back.tables[i].len != p->tables[i].len)
            st = saf_fail(SAF_IO, "%s reads back other than it was written", path);
    saf_profile_free(&back);
    return st;
}

saf_status saf_profile_write(const char *path, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    saf__part part = SAF__PART_EMPTY;
    saf__h5 f = SAF__H5_EMPTY;
    SAF_TRY(saf__part_open(path, 0666, &part));
    SAF_TRY(write_all(&f, part.part, p));
    SAF_TRY(saf__part_sync(&part));
    SAF_TRY(verify(part.part, p));
    SAF_TRY(saf__part_commit(&part));
out:
    /* A file that HDF5 could not write stays open in it: closing it may crash (1.10.8). */
    saf__part_abandon(&part);
    return st;
}

/* ---- reading ---- */

static saf_status read_attributes(const saf__h5 *f, saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    int64_t schema = 0;
    if (H5Aexists(f->id, "profile_schema") <= 0)
        return saf_fail(SAF_BAD_INPUT, "%s is no profile of `saf detect`", f->path);
    SAF_TRY(saf__h5_get_i64(f, f->id, "profile_schema", &schema));
    if (schema < 1 || schema > SAF_PROFILE_SCHEMA)
        return saf_fail(SAF_BAD_INPUT, "%s: a profile of version %lld, this saf reads 1 to %d",
                        f->path, (long long)schema, SAF_PROFILE_SCHEMA);
    SAF_TRY(saf__h5_get_text(f, f->id, "saf_version", &p->version));
    SAF_TRY(saf__h5_get_text(f, f->id, "time", &p->time));
    SAF_TRY(saf__h5_get_text(f, f->id, "command_line", &p->command_line));
    SAF_TRY(saf__h5_get_text(f, f->id, "hosts_key", &p->key));
    SAF_TRY(saf__h5_get_f64(f, f->id, "seconds", &p->seconds));
    if (!p->version || !p->time || !p->key)
        st = saf_fail(SAF_BAD_INPUT, "%s: saf_version, time or hosts_key is missing", f->path);
out:
    return st;
}

static saf_status read_table(const saf__h5 *f, saf_profile_table table, saf_buf *out) {
    saf_status st = SAF_OK;
    char *rows = NULL;
    int64_t n = 0;
    const saf__table *t = saf__profile_tables[table];
    SAF_TRY(saf__table_read(f, t, &rows, &n));
    if (n > MOST_ROWS) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld rows in %s", f->path, (long long)n, t->path);
        goto out;
    }
    SAF_TRY(saf_buf_append(out, n > 0 ? rows : "", (size_t)n * t->row_bytes));
out:
    saf_free(&rows);
    return st;
}

static int host_by_name(const void *a, const void *b) {
    return strcmp(((const saf_profile_host *)a)->host, ((const saf_profile_host *)b)->host);
}

static bool has_host(const saf_profile_host *sorted, int64_t n, const char *name) {
    saf_profile_host key;
    memcpy(key.host, name, sizeof key.host);
    return bsearch(&key, sorted, (size_t)n, sizeof *sorted, host_by_name) != NULL;
}

static saf_status check_hosts(const char *path, const saf_profile_host *h, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double rates[] = {h[i].read_bytes_s, h[i].int8_ops_s, h[i].f32_ops_s};
        bool good = h[i].host[0] && h[i].ranks > 0 && h[i].cores > 0 && h[i].usable_cores > 0 &&
                    h[i].memory_bytes > 0;
        for (int k = 0; k < 3; k++) good = good && rates[k] > 0 && rates[k] < 1e30;
        if (i > 0) good = good && strcmp(h[i].host, h[i - 1].host) != 0;
        if (!good)
            return saf_fail(SAF_BAD_INPUT,
                            "%s: host %lld has no name or one that is there twice, "
                            "or figures that no host has",
                            path, (long long)i + 1);
    }
    return n > 0 ? SAF_OK : saf_fail(SAF_BAD_INPUT, "%s: a profile of no host", path);
}

/* What others rely on: hosts once each and with figures; whatever is said is said of one of them.
 */
static saf_status check(const char *path, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    saf_profile_host *sorted = NULL;
    int64_t n, m;
    const saf_profile_host *hosts = saf_profile_hosts(p, &n);
    SAF_TRY(saf_alloc((size_t)n, sizeof *sorted, &sorted));
    if (n > 0) memcpy(sorted, hosts, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, host_by_name);
    SAF_TRY(check_hosts(path, sorted, n));
    const saf_profile_link *links = saf_profile_links(p, &m);
    for (int64_t i = 0; i < m; i++) {
        const saf_profile_link *l = &links[i];
        if (has_host(sorted, n, l->host_a) && has_host(sorted, n, l->host_b) && l->latency_s >= 0 &&
            l->latency_s < 1e6 && l->short_s >= 0 && l->short_s < 1e6 && l->bytes_s_to_a > 0 &&
            l->bytes_s_to_a < 1e30 && l->bytes_s_to_b > 0 && l->bytes_s_to_b < 1e30)
            continue;
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: link %lld is of no two hosts, or has figures that no "
                      "link has",
                      path, (long long)i + 1);
        goto out;
    }
    const saf_profile_rate *rates = saf_profile_rates(p, &m);
    for (int64_t i = 0; i < m; i++)
        if (!has_host(sorted, n, rates[i].host)) {
            st = saf_fail(SAF_BAD_INPUT, "%s: rates of a host that is not there", path);
            goto out;
        }
out:
    saf_free(&sorted);
    return st;
}

saf_status saf_profile_read(const char *path, saf_hosts_profile *out) {
    saf_hosts_profile p = {0};
    saf__h5 f = SAF__H5_EMPTY;
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_open_file(path, &f));
    SAF_TRY(read_attributes(&f, &p));
    for (int i = 0; i < SAF_PROFILE_TABLES; i++)
        SAF_TRY(read_table(&f, (saf_profile_table)i, &p.tables[i]));
    SAF_TRY(check(path, &p));
    *out = p;
    p = (saf_hosts_profile){0};
out:
    saf_profile_free(&p);
    saf__h5_close(&f.id);
    saf__h5_leave();
    return st;
}

bool saf_profile_is(const char *path) {
    saf__h5 f = SAF__H5_EMPTY;
    saf__h5_enter();
    bool is = saf__h5_open_file(path, &f) == SAF_OK && H5Aexists(f.id, "profile_schema") > 0;
    saf__h5_close(&f.id);
    saf__h5_leave();
    return is;
}
