/* One host: what it has, and what 1, 2, 4, ... and all of its cores can do. */
#include <math.h>
#include <omp.h>
#include <stdio.h>

#include "job/plan/detect.h"
#include "saf/hw.h"
#include "saf/hw_host.h"

enum { SAMPLES_LEAST = 2, SAMPLES_MOST = 5, DISK_BYTES = 256 << 20 };
#define SAMPLES_S 1.0 /* after which there are no more of them */
#define DISK_S 2.0

typedef struct {
    saf_profile_host row;
    saf_hw_host facts;
    int32_t cores, sharers;
    size_t block_bytes; /* of a copy */
    saf_buf *tables;
} measuring;

/* ---- facts ---- */

static saf_status add_facts(measuring *m) {
    saf_status st = SAF_OK;
    const saf_hw_host *f = &m->facts;
    for (int32_t i = 0; i < f->n_caches; i++) {
        const saf_hw_cache *c = &f->caches[i];
        saf_profile_cache row = {
            .level = c->level, .count = c->count, .threads = c->threads, .bytes = c->bytes};
        memcpy(row.host, m->row.host, sizeof row.host);
        snprintf(row.kind, sizeof row.kind, "%s", c->kind);
        SAF_TRY(saf_buf_append(&m->tables[SAF_PROFILE_CACHES], &row, sizeof row));
    }
    for (int32_t i = 0; i < f->n_nodes; i++) {
        saf_profile_node row = {.node = f->nodes[i].node, .memory_bytes = f->nodes[i].memory_bytes};
        memcpy(row.host, m->row.host, sizeof row.host);
        memcpy(row.cpus, f->nodes[i].cpus, sizeof row.cpus);
        SAF_TRY(saf_buf_append(&m->tables[SAF_PROFILE_NODES], &row, sizeof row));
    }
    for (int32_t i = 0; i < f->n_devices; i++) {
        saf_profile_device row = {0};
        size_t len = strlen(m->row.accelerators);
        memcpy(row.host, m->row.host, sizeof row.host);
        memcpy(row.kind, f->devices[i].kind, sizeof row.kind);
        memcpy(row.name, f->devices[i].name, sizeof row.name);
        memcpy(row.bus, f->devices[i].bus, sizeof row.bus);
        SAF_TRY(saf_buf_append(&m->tables[SAF_PROFILE_DEVICES], &row, sizeof row));
        snprintf(m->row.accelerators + len, sizeof m->row.accelerators - len, "%s%s",
                 len ? ", " : "", row.name);
    }
out:
    return st;
}

static saf_status read_facts(const saf__detect_host *h, measuring *m) {
    saf_status st = SAF_OK;
    saf_hw_limits limits;
    saf_profile_host *r = &m->row;
    SAF_TRY(saf_hw_host_read(&m->facts));
    SAF_TRY(saf_hw_limits_read("", &limits));
    const saf_hw_host *f = &m->facts;
    snprintf(r->host, sizeof r->host, "%s", h->host);
    snprintf(r->processor, sizeof r->processor, "%s", f->processor);
    snprintf(r->instructions, sizeof r->instructions, "%s", f->instructions);
    snprintf(r->kernels, sizeof r->kernels, "%s", f->kernels);
    snprintf(r->power, sizeof r->power, "%s", saf_hw_power(""));
    r->ranks = h->ranks;
    r->machine = h->machine;
    r->sockets = f->sockets;
    r->cores = f->cores;
    r->efficiency_cores = f->efficiency_cores;
    r->threads = f->threads;
    r->nodes = (int32_t)saf_i64_max(1, f->n_nodes);
    r->memory_bytes = f->memory_bytes;
    r->available_bytes = saf_hw_memory_available();
    r->memory_limit_bytes = limits.memory_bytes > 0 ? limits.memory_bytes : -1;
    r->cpu_limit = limits.cpus > 0 ? limits.cpus : (double)NAN;
    SAF_TRY(saf_hw_cpus_bind(h->cpus, &m->cores, r->usable_cpus));
    if (limits.cpus > 0) m->cores = (int32_t)fmin(m->cores, fmax(1, ceil(limits.cpus)));
    r->usable_cores = m->cores;
    SAF_TRY(add_facts(m));
out:
    return st;
}

/* ---- rates ---- */

size_t saf__detect_block_bytes(int64_t cache_bytes, int64_t memory_bytes, int32_t sharers) {
    enum { LEAST = 128 << 20, CACHES = 2, MEMORY_PART = 16 };
    int64_t own = saf_i64_max(LEAST, CACHES * cache_bytes / sharers);
    return (size_t)saf_i64_min(own, saf_i64_max(SAF_HUGE_PAGE, memory_bytes / MEMORY_PART));
}

saf_status saf__detect_choose_bytes(const saf_profile_host *row, int32_t sharers, size_t *out) {
    saf_hw_binding b;
    saf_status st = saf_hw_binding_read(&b);
    if (st != SAF_OK) return st;
    int64_t there = row->memory_bytes, limit = row->memory_limit_bytes;
    if (row->available_bytes > 0) there = saf_i64_min(there, row->available_bytes);
    there /= sharers;
    if (limit > 0) there = saf_i64_min(there, limit);
    *out = saf__detect_block_bytes(b.cache_bytes, there, sharers);
    return SAF_OK;
}

static saf_status measure_memory(const measuring *m, saf_profile_rate *out) {
    saf_status st = SAF_OK;
    double read[SAMPLES_MOST], copy[SAMPLES_MOST];
    saf_hw_memory *block = NULL;
    saf_memory_kind kind =
        saf_memory_kind_there(SAF_MEMORY_COPY_STREAM) ? SAF_MEMORY_COPY_STREAM : SAF_MEMORY_COPY;
    SAF_TRY(saf_hw_memory_new(m->block_bytes, out->threads, SAF_HW_ANY_NODE, &block));
    double bytes = (double)saf_hw_memory_bytes(block);
    int n = 0;
    double start = saf_clock_s();
    while (n < SAMPLES_LEAST || (n < SAMPLES_MOST && saf_clock_s() - start < SAMPLES_S)) {
        read[n] = bytes / saf_hw_memory_sample(block, SAF_MEMORY_READ);
        copy[n++] = bytes / saf_hw_memory_sample(block, kind);
        saf_alive();
    }
    out->samples = n;
    out->read_bytes_s = saf_median(read, n);
    out->copy_bytes_s = saf_median(copy, n);
out:
    saf_hw_memory_free(&block);
    return st;
}

/* Peaks, and of all cores the bandwidth that plans go by. */
static saf_status measure_peaks(measuring *m, saf_profile_rate *out) {
    saf_status st = SAF_OK;
    saf_hw_yardstick *y = NULL;
    saf_hw_rates rates;
    double read[SAMPLES_MOST], int8[SAMPLES_MOST], tiles[SAMPLES_MOST], products[SAMPLES_MOST];
    double f32[SAMPLES_MOST], f64[SAMPLES_MOST], hidden[SAMPLES_MOST];
    bool all = out->threads == m->cores;
    SAF_TRY(saf_hw_yardstick_new(all ? 2 * m->block_bytes : 1, &y));
    for (int i = 0; i < SAMPLES_MOST; i++) {
        saf_hw_yardstick_sample(y, &rates);
        read[i] = rates.read_bytes_s;
        int8[i] = rates.int8_ops_s;
        products[i] = rates.product_share;
        hidden[i] = rates.hidden_share;
        tiles[i] = rates.tile_ops_s;
        f32[i] = rates.f32_ops_s;
        f64[i] = saf_hw_yardstick_f64(y);
        saf_alive();
    }
    out->int8_ops_s = saf_median(int8, SAMPLES_MOST);
    out->f32_ops_s = saf_median(f32, SAMPLES_MOST);
    out->f64_ops_s = saf_median(f64, SAMPLES_MOST);
    if (!all) goto out;
    saf_profile_host *r = &m->row;
    snprintf(r->loops, sizeof r->loops, "%s", saf_hw_yardstick_name(y));
    r->read_bytes_s = r->together_read_bytes_s = saf_median(read, SAMPLES_MOST);
    r->copy_bytes_s = out->copy_bytes_s;
    r->int8_ops_s = out->int8_ops_s;
    r->product_share = saf_median(products, SAMPLES_MOST);
    r->hidden_share = saf_median(hidden, SAMPLES_MOST);
    r->f32_ops_s = out->f32_ops_s;
    r->f64_ops_s = out->f64_ops_s;
    double tile = saf_median(tiles, SAMPLES_MOST);
    r->tile_ops_s = tile > 0 ? tile : (double)NAN;
out:
    saf_hw_yardstick_free(&y);
    return st;
}

static saf_status measure_rates(measuring *m) {
    saf_status st = SAF_OK;
    int before = omp_get_max_threads();
    SAF_TRY(saf__detect_choose_bytes(&m->row, m->sharers, &m->block_bytes));
    for (int32_t n = 1;; n = 2 * n < m->cores ? 2 * n : m->cores) {
        saf_profile_rate row = {.threads = n};
        memcpy(row.host, m->row.host, sizeof row.host);
        omp_set_num_threads(n);
        SAF_TRY(measure_memory(m, &row));
        SAF_TRY(measure_peaks(m, &row));
        SAF_TRY(saf_buf_append(&m->tables[SAF_PROFILE_RATES], &row, sizeof row));
        if (n == m->cores) break;
    }
out:
    omp_set_num_threads(before);
    return st;
}

/* ---- disk ---- */

/* Of a small control group not all is filled by a file that may be in memory. */
static saf_status measure_disk(const saf__detect_host *h, bool strict, measuring *m) {
    enum { LIMIT_PART = 8, LEAST = 4 << 20 };
    int64_t bytes = DISK_BYTES, limit = m->row.memory_limit_bytes;
    saf_hw_disk disk = {0};
    saf_profile_host *r = &m->row;
    int before = omp_get_max_threads();
    if (limit > 0) bytes = saf_i64_min(bytes, saf_i64_max(LEAST, limit / LIMIT_PART));
    omp_set_num_threads(m->cores);
    saf_status st = saf_hw_disk_measure(h->folder, (size_t)bytes, DISK_S, &disk);
    omp_set_num_threads(before);
    bool there = st == SAF_OK && disk.bytes > 0;
    snprintf(r->folder, sizeof r->folder, "%s", h->folder);
    snprintf(r->disk_how, sizeof r->disk_how, "%s", st == SAF_OK ? disk.how : saf_error_text());
    r->disk_bytes = there ? disk.bytes : 0;
    r->disk_bytes_s = there ? disk.bytes_s : (double)NAN;
    return strict || st == SAF_NO_MEMORY ? st : SAF_OK;
}

saf_status saf__detect_host_measure(saf__detect_host *h, bool strict,
                                    saf_buf tables[SAF_PROFILE_TABLES]) {
    saf_status st = SAF_OK;
    measuring *m = NULL;
    SAF_TRY(saf_alloc(1, sizeof *m, &m));
    m->tables = tables;
    m->sharers = h->sharers;
    SAF_TRY(read_facts(h, m));
    SAF_TRY(measure_disk(h, strict, m)); /* first: what is wrong with the folder shows at once */
    SAF_TRY(measure_rates(m));
    h->block_bytes = m->block_bytes;
    SAF_TRY(saf_buf_append(&tables[SAF_PROFILE_HOSTS], &m->row, sizeof m->row));
out:
    saf_free(&m);
    return st;
}
