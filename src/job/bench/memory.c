/* Suite memory: bandwidth of reading, writing and copying. The ranks of a host measure one after
 * another, with 1, 2, 4 ... and all of their threads on each NUMA node (hosts do so side by side);
 * then all ranks at once. At last every rank takes fresh memory, writes it and adds it up. */
#include <math.h>
#include <stdio.h>

#include "job/bench/suites.h"

typedef struct {
    saf__suites *w;
    size_t bytes;
    int32_t nodes;
    saf_buf rows;
    double *samples; /* [SAF_MEMORY_KINDS, repeats] */
} memory;

static saf_status add_rows(memory *m, int32_t node, int32_t threads, int32_t together,
                           size_t bytes) {
    saf_status st = SAF_OK;
    const saf__suites *w = m->w;
    for (int k = 0; k < SAF_MEMORY_KINDS; k++) {
        saf__figures f;
        saf_memory_kind kind = (saf_memory_kind)k;
        if (!saf_memory_kind_there(kind)) continue;
        SAF_TRY(saf__suite_figures(m->samples + k * w->repeats, w->repeats, (double)bytes, &f));
        saf_suite_bandwidth row = {.rank = w->s->rank,
                                   .node = node,
                                   .threads = threads,
                                   .together = together,
                                   .bytes = (int64_t)bytes,
                                   .bus_bytes = (int64_t)bytes * saf_memory_kind_traffic(kind),
                                   .repeats = w->repeats,
                                   .seconds = f.seconds,
                                   .seconds_min = f.seconds_min,
                                   .seconds_max = f.seconds_max,
                                   .bytes_per_s = f.rate,
                                   .bytes_per_s_min = f.rate_min,
                                   .bytes_per_s_max = f.rate_max};
        row.bus_bytes_per_s = (double)row.bus_bytes / f.seconds;
        memcpy(row.host, w->hosts[row.rank], sizeof row.host);
        snprintf(row.operation, sizeof row.operation, "%s", saf_memory_kind_name(kind));
        SAF_TRY(saf_buf_append(&m->rows, &row, sizeof row));
    }
out:
    return st;
}

/* One rank by itself. */
static saf_status measure_alone(memory *m, int32_t node, int32_t threads) {
    saf_status st = SAF_OK;
    saf_hw_memory *block = NULL;
    SAF_TRY(saf_hw_memory_new(m->bytes, threads, node, &block));
    for (int32_t r = 0; r < m->w->repeats; r++)
        for (int k = 0; k < SAF_MEMORY_KINDS; k++)
            m->samples[k * m->w->repeats + r] = saf_hw_memory_sample(block, (saf_memory_kind)k);
    SAF_TRY(add_rows(m, node, threads, 1, saf_hw_memory_bytes(block)));
out:
    saf_hw_memory_free(&block);
    return st;
}

static saf_status measure_own(memory *m) {
    saf_status st = SAF_OK;
    int32_t all = m->w->s->settings.threads;
    for (int32_t node = 0; node < m->nodes; node++)
        for (int32_t n = 1;; n = 2 * n < all ? 2 * n : all) {
            SAF_TRY(measure_alone(m, node, n));
            saf_comm_progress();
            if (n == all) break;
        }
out:
    return st;
}

/* All ranks, each beginning when the last has come. */
static saf_status measure_together(memory *m) {
    saf_status st = SAF_OK;
    const saf__suites *w = m->w;
    saf_comm *world = w->s->world;
    saf_hw_memory *block = NULL;
    int32_t threads = w->s->settings.threads;
    if (w->turns == 1) return SAF_OK;
    SAF_TRY(saf_comm_agree(
        world, saf_hw_memory_new(m->bytes / (size_t)w->neighbours, threads, 0, &block)));
    for (int32_t r = 0; r < w->repeats; r++)
        for (int k = 0; k < SAF_MEMORY_KINDS; k++) {
            SAF_TRY(saf_comm_barrier(world));
            m->samples[k * w->repeats + r] = saf_hw_memory_sample(block, (saf_memory_kind)k);
        }
    SAF_TRY(
        saf_comm_agree(world, add_rows(m, 0, threads, w->neighbours, saf_hw_memory_bytes(block))));
out:
    saf_hw_memory_free(&block);
    return st;
}

/* ---- fresh memory ---- */

/* Whether every host has twice as much available as its ranks will take. */
static saf_status is_there(const saf__suites *w, size_t bytes, bool *out) {
    int64_t there = saf_hw_memory_available();
    int32_t good = there == 0 || (int64_t)bytes <= there / 2 / w->neighbours;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &good, 1);
    saf_status st = saf_comm_allreduce(w->s->world, SAF_OP_MIN, &t);
    *out = good != 0;
    return st;
}

static saf_status touch(memory *m, size_t bytes) {
    saf_status st = SAF_OK;
    const saf__suites *w = m->w;
    bool there = false, right = false;
    saf_suite_touch row = {.rank = w->s->rank,
                           .state = "skipped",
                           .bytes = (int64_t)bytes,
                           .touch_s = (double)NAN,
                           .touch_bytes_per_s = (double)NAN,
                           .sum_s = (double)NAN,
                           .sum_bytes_per_s = (double)NAN,
                           .right = -1};
    memcpy(row.host, w->hosts[row.rank], sizeof row.host);
    SAF_TRY(is_there(w, bytes, &there));
    if (!there && w->s->rank == 0)
        saf_log(SAF_LOG_WARNING,
                "suite memory: %zu MiB for each rank are left out: too little "
                "memory is available",
                bytes >> 20);
    if (there) {
        st = saf_hw_memory_touch(bytes, w->s->settings.threads, &row.touch_s, &row.sum_s, &right);
        if (st == SAF_OK && !right)
            st = saf_fail(SAF_FAILED, "suite memory: %zu MiB do not hold what was written",
                          bytes >> 20);
        SAF_TRY(saf_comm_agree(w->s->world, st));
        snprintf(row.state, sizeof row.state, "done");
        row.touch_bytes_per_s = (double)bytes / row.touch_s;
        row.sum_bytes_per_s = (double)bytes / row.sum_s;
        row.right = right;
    }
    SAF_TRY(saf_comm_agree(w->s->world, saf_buf_append(&m->rows, &row, sizeof row)));
out:
    return st;
}

/* Half of what a yardstick reads by itself, for there are two blocks. */
static saf_status choose_bytes(memory *m) {
    enum { LEAST = 128 << 20, CACHES = 2, MEMORY_PART = 16 };
    const saf_hw_binding *b = &m->w->s->binding;
    int64_t asked = (int64_t)m->w->s->job->bench.read_mib << 20;
    int64_t own = saf_i64_min(saf_i64_max(LEAST, CACHES * b->cache_bytes),
                              saf_i64_max(SAF_HUGE_PAGE, b->memory_bytes / MEMORY_PART));
    m->bytes = (size_t)(asked > 0 ? asked : own);
    return saf_hw_memory_nodes(&m->nodes);
}

saf_status saf__suite_memory(saf__suites *w) {
    saf_status st = SAF_OK;
    memory m = {.w = w};
    const saf_job *job = w->s->job;
    st = choose_bytes(&m);
    if (st == SAF_OK)
        st =
            saf_alloc((size_t)SAF_MEMORY_KINDS * (size_t)w->repeats, sizeof *m.samples, &m.samples);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    for (int32_t turn = 0; turn < w->turns; turn++)
        SAF_TRY(saf_comm_agree(w->s->world, turn == w->turn ? measure_own(&m) : SAF_OK));
    SAF_TRY(measure_together(&m));
    SAF_TRY(saf__suite_gather(w, SAF_SUITE_BANDWIDTH, &m.rows));
    saf_buf_clear(&m.rows);
    for (int32_t i = 0; i < job->bench.n_touch; i++)
        SAF_TRY(touch(&m, (size_t)job->bench.touch_mib[i] << 20));
    SAF_TRY(saf__suite_gather(w, SAF_SUITE_TOUCH, &m.rows));
out:
    saf_buf_free(&m.rows);
    saf_free(&m.samples);
    return st;
}
