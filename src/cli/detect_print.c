#include "cli/detect_print.h"

#include <math.h>

#include "cli/grid.h"
#include "cli/json.h"
#include "cli/report.h"

static double gb(int64_t bytes) {
    return (double)bytes * 1e-9;
}

/* "-" for what is not known. */
static saf_status number(saf__grid *g, double value, double scale, int digits) {
    if (!isfinite(value)) return saf__grid_cell(g, "-");
    return saf__grid_cell(g, "%.*f", digits, value * scale);
}

/* ---- hosts: what they have ---- */

static saf_status print_facts(FILE *out, const saf_profile_host *h, int64_t n) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    SAF_TRY(saf__grid_begin(&g,
                            "<host|ranks|sockets|cores|slow|threads|usable|<on|nodes|memory GB"
                            "|free|limit|<power|<processor"));
    for (int64_t i = 0; i < n; i++) {
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].host));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].ranks));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].sockets));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].cores));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].efficiency_cores));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].threads));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].usable_cores));
        SAF_TRY(saf__grid_cell(&g, "%.30s", h[i].usable_cpus));
        SAF_TRY(saf__grid_cell(&g, "%d", h[i].nodes));
        SAF_TRY(saf__grid_cell(&g, "%.1f", gb(h[i].memory_bytes)));
        SAF_TRY(number(&g, h[i].available_bytes > 0 ? (double)h[i].available_bytes : (double)NAN,
                       1e-9, 1));
        SAF_TRY(number(&g,
                       h[i].memory_limit_bytes > 0 ? (double)h[i].memory_limit_bytes : (double)NAN,
                       1e-9, 1));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].power));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].processor[0] ? h[i].processor : "not known"));
    }
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}

static saf_status print_more(FILE *out, const saf_hosts_profile *p, const saf_profile_host *h,
                             int64_t n) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    const saf_profile_cache *c = (const void *)p->tables[SAF_PROFILE_CACHES].data;
    int64_t m = saf_profile_rows(SAF_PROFILE_CACHES, &p->tables[SAF_PROFILE_CACHES]);
    SAF_TRY(saf__grid_begin(&g, "<host|<arithmetic|<instructions|<caches|<accelerators"));
    for (int64_t i = 0; i < n; i++) {
        char caches[256] = "";
        for (int64_t k = 0; k < m; k++) {
            size_t len = strlen(caches);
            if (strcmp(c[k].host, h[i].host) != 0) continue;
            snprintf(caches + len, sizeof caches - len, "%sL%d %d x %lld KiB", len ? ", " : "",
                     c[k].level, c[k].count, (long long)c[k].bytes >> 10);
        }
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].host));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].kernels));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].instructions));
        SAF_TRY(saf__grid_cell(&g, "%s", caches[0] ? caches : "not known"));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].accelerators[0] ? h[i].accelerators : "none"));
    }
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}

/* ---- hosts: what they can do ---- */

static saf_status print_rates(FILE *out, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    int64_t n;
    const saf_profile_rate *r = saf_profile_rates(p, &n);
    SAF_TRY(saf__grid_begin(
        &g, "<host|threads|read GB/s|copy GB/s|int8 Gop/s|f32 Gop/s|f64 Gop/s|samples"));
    for (int64_t i = 0; i < n; i++) {
        SAF_TRY(saf__grid_cell(&g, "%s", r[i].host));
        SAF_TRY(saf__grid_cell(&g, "%d", r[i].threads));
        SAF_TRY(number(&g, r[i].read_bytes_s, 1e-9, 2));
        SAF_TRY(number(&g, r[i].copy_bytes_s, 1e-9, 2));
        SAF_TRY(number(&g, r[i].int8_ops_s, 1e-9, 0));
        SAF_TRY(number(&g, r[i].f32_ops_s, 1e-9, 0));
        SAF_TRY(number(&g, r[i].f64_ops_s, 1e-9, 0));
        SAF_TRY(saf__grid_cell(&g, "%d", r[i].samples));
    }
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}

/* Of hosts that share a machine's memory. */
static void print_machines(FILE *out, const saf_profile_host *h, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (h[i].together_read_bytes_s < h[i].read_bytes_s)
            fprintf(out,
                    "%s shares machine %d: it reads %.2f GB/s while other hosts of it rest, %.2f "
                    "while they read as well\n",
                    h[i].host, h[i].machine, h[i].read_bytes_s * 1e-9,
                    h[i].together_read_bytes_s * 1e-9);
}

static saf_status print_disks(FILE *out, const saf_profile_host *h, int64_t n) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    SAF_TRY(saf__grid_begin(&g, "<host|disk GB/s|read MiB|<what was read|<in"));
    for (int64_t i = 0; i < n; i++) {
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].host));
        SAF_TRY(number(&g, h[i].disk_bytes_s, 1e-9, 2));
        SAF_TRY(saf__grid_cell(&g, "%lld", (long long)h[i].disk_bytes >> 20));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].disk_how));
        SAF_TRY(saf__grid_cell(&g, "%s", h[i].folder));
    }
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}

/* ---- links ---- */

/* Where there are many pairs, the slowest of them. */
static saf_status print_links(FILE *out, const saf_hosts_profile *p) {
    enum { SHOWN = 64 };
    saf_status st = SAF_OK;
    saf__grid g = {0};
    int64_t n, left_out = 0;
    const saf_profile_link *l = saf_profile_links(p, &n);
    double limit = (double)INFINITY, least = (double)INFINITY, most = 0;
    if (n == 0) return SAF_OK;
    for (int64_t i = 0; i < n; i++) {
        double slower = fmin(l[i].bytes_s_to_a, l[i].bytes_s_to_b);
        least = fmin(least, slower);
        most = fmax(most, slower);
    }
    if (n > SHOWN) limit = 1.05 * least;
    fputc('\n', out);
    SAF_TRY(saf__grid_begin(
        &g, "<from|<to|latency us|2 KiB us|there Gbit/s|back Gbit/s|message KiB|round"));
    for (int64_t i = 0, shown = 0; i < n; i++) {
        if (fmin(l[i].bytes_s_to_a, l[i].bytes_s_to_b) > limit || shown == SHOWN) {
            left_out++;
            continue;
        }
        shown++;
        SAF_TRY(saf__grid_cell(&g, "%s", l[i].host_a));
        SAF_TRY(saf__grid_cell(&g, "%s", l[i].host_b));
        SAF_TRY(number(&g, l[i].latency_s, 1e6, 1));
        SAF_TRY(number(&g, l[i].short_s, 1e6, 1));
        SAF_TRY(number(&g, l[i].bytes_s_to_b, 8e-9, 2));
        SAF_TRY(number(&g, l[i].bytes_s_to_a, 8e-9, 2));
        SAF_TRY(saf__grid_cell(&g, "%lld", (long long)l[i].bytes >> 10));
        SAF_TRY(saf__grid_cell(&g, "%d", l[i].round));
    }
    SAF_TRY(saf__grid_print(&g, out));
    if (left_out > 0)
        fprintf(
            out,
            "(the slowest of %lld pairs, whose slower ways have %.2f to %.2f Gbit/s; --json has "
            "all)\n",
            (long long)n, least * 8e-9, most * 8e-9);
out:
    saf__grid_free(&g);
    return st;
}

saf_status saf__profile_print(FILE *out, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    saf_buf when = {0};
    int64_t n;
    const saf_profile_host *h = saf_profile_hosts(p, &n);
    SAF_TRY(saf__show_text(&when, p->time, 40));
    fprintf(out, "%lld host%s, measured %s in %.1f s; key %.16s\n\n", (long long)n,
            n == 1 ? "" : "s", when.data, p->seconds, p->key);
    SAF_TRY(print_facts(out, h, n));
    fputc('\n', out);
    SAF_TRY(print_more(out, p, h, n));
    fputc('\n', out);
    SAF_TRY(print_rates(out, p));
    print_machines(out, h, n);
    fputc('\n', out);
    SAF_TRY(print_disks(out, h, n));
    SAF_TRY(print_links(out, p));
    st = saf__report_flush(out);
out:
    saf_buf_free(&when);
    return st;
}

/* ---- JSON: every table, column by column ---- */

static void add_cell(saf__json *b, cJSON *o, const saf_suite_column *c, const char *row) {
    int32_t narrow;
    int64_t wide;
    double real;
    switch (c->kind) {
        case SAF_CELL_I32:
            memcpy(&narrow, row + c->offset, sizeof narrow);
            saf__json_whole(b, o, c->name, narrow);
            return;
        case SAF_CELL_I64:
            memcpy(&wide, row + c->offset, sizeof wide);
            saf__json_whole(b, o, c->name, wide);
            return;
        case SAF_CELL_F64:
            memcpy(&real, row + c->offset, sizeof real);
            saf__json_number(b, o, c->name, real);
            return;
        case SAF_CELL_TEXT:
            saf__json_text(b, o, c->name, row + c->offset);
    }
}

saf_status saf__profile_json(FILE *out, const saf_hosts_profile *p) {
    saf__json b = {0};
    cJSON *root = cJSON_CreateObject();
    saf__json_text(&b, root, "saf_version", p->version);
    saf__json_text(&b, root, "time", p->time);
    saf__json_text(&b, root, "command_line", p->command_line);
    saf__json_text(&b, root, "hosts_key", p->key);
    saf__json_number(&b, root, "seconds", p->seconds);
    for (int t = 0; t < SAF_PROFILE_TABLES; t++) {
        saf_suite_table_about about = saf_profile_table_info((saf_profile_table)t);
        const saf_buf *rows = &p->tables[t];
        cJSON *array = cJSON_CreateArray();
        for (int64_t i = 0; i < saf_profile_rows((saf_profile_table)t, rows); i++) {
            cJSON *o = cJSON_CreateObject();
            for (int c = 0; c < about.n_columns; c++) {
                saf_suite_column column = saf_profile_column_info((saf_profile_table)t, c);
                add_cell(&b, o, &column, rows->data + (size_t)i * about.row_bytes);
            }
            saf__json_item(&b, array, o);
        }
        saf__json_add(&b, root, about.path + 1, array);
    }
    saf_status st = saf__json_print(&b, out, root);
    cJSON_Delete(root);
    return st;
}
