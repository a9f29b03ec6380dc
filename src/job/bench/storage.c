/* Suite storage: results files and checkpoints, as jobs write and read them, by rank 0. A file
 * counts as written when it is checked and durable. */
#include <stdio.h>
#include <unistd.h>

#include "job/bench/suites.h"

enum { ROW_VALUES = 1 << 15, CHUNK_ROWS = 64, KEY = 11 };

typedef enum { RESULTS_WRITE, RESULTS_READ, CHECKPOINT_WRITE, CHECKPOINT_READ, KINDS } file_kind;
static const char *const names[] = {"results write", "results read", "checkpoint write",
                                    "checkpoint read"};

typedef struct {
    saf__suites *w;
    saf_buf path;
    int64_t rows;
    float *values, *back; /* [CHUNK_ROWS, ROW_VALUES] */
    double *samples;      /* [KINDS, repeats] */
} storage;

static saf_status check_back(const storage *g, const float *back, int64_t rows) {
    if (memcmp(back, g->values, (size_t)rows * ROW_VALUES * sizeof *back) == 0) return SAF_OK;
    return saf_fail(SAF_FAILED, "suite storage: %s reads back other than it was written",
                    g->path.data);
}

/* What a results file must have. */
static saf_status fill_header(const storage *g, saf_results *r) {
    saf_status st = SAF_OK;
    char now[32];
    saf_clock_iso8601(now);
    SAF_TRY(saf_strdup(SAF_VERSION, &r->version));
    SAF_TRY(saf_strdup("bench", &r->kind));
    SAF_TRY(saf_strdup(g->w->s->job->text, &r->job_text));
    SAF_TRY(saf_strdup(now, &r->start_time));
    SAF_TRY(saf_strdup(now, &r->end_time));
    SAF_TRY(saf_strdup("done", &r->exit_state));
out:
    return st;
}

static saf_status results(const storage *g, double *write_s, double *read_s) {
    saf_status st = SAF_OK;
    saf_results r = {0};
    saf_results_writer *w = NULL;
    SAF_TRY(fill_header(g, &r));
    double start = saf_clock_s();
    SAF_TRY(saf_results_create(g->path.data, &w));
    for (int64_t at = 0; at < g->rows; at += CHUNK_ROWS) {
        int64_t n = saf_i64_min(CHUNK_ROWS, g->rows - at);
        SAF_TRY(saf_results_logits(w, ROW_VALUES, at, n, g->values));
        saf_comm_progress();
    }
    double written = saf_clock_s();
    for (int64_t at = 0; at < g->rows; at += CHUNK_ROWS) {
        int64_t n = saf_i64_min(CHUNK_ROWS, g->rows - at);
        SAF_TRY(saf_results_logits_back(w, at, n, g->back));
        SAF_TRY(check_back(g, g->back, n));
        saf_comm_progress();
    }
    double read = saf_clock_s();
    SAF_TRY(saf_results_finish(w, &r));
    *write_s = written - start + saf_clock_s() - read;
    *read_s = read - written;
out:
    saf_results_writer_free(&w);
    saf_results_free(&r);
    (void)unlink(g->path.data);
    return st;
}

static saf_status checkpoint(const storage *g, double *write_s, double *read_s) {
    saf_status st = SAF_OK;
    saf_checkpoint_writer *w = NULL;
    saf_checkpoint *c = NULL;
    saf_checkpoint_head head = {.kind = "bench", .version = SAF_VERSION, .total = 1};
    int64_t all = g->rows * ROW_VALUES;
    char now[32];
    saf_clock_iso8601(now);
    head.start_time = head.written = now;
    double start = saf_clock_s();
    SAF_TRY(saf_checkpoint_create(g->path.data, &head, &w));
    for (int64_t at = 0; at < g->rows; at += CHUNK_ROWS) {
        int64_t n = saf_i64_min(CHUNK_ROWS, g->rows - at);
        SAF_TRY(saf_checkpoint_put_some(w, "values", SAF_DTYPE_F32, all, at * ROW_VALUES,
                                        n * ROW_VALUES, g->values));
        saf_comm_progress();
    }
    SAF_TRY(saf_checkpoint_commit(w, NULL));
    double written = saf_clock_s();
    *write_s = written - start;
    SAF_TRY(saf_checkpoint_open_newest(g->path.data, &c));
    if (!c) st = saf_fail(SAF_IO, "suite storage: the checkpoint of %s is gone", g->path.data);
    for (int64_t at = 0; st == SAF_OK && at < g->rows; at += CHUNK_ROWS) {
        int64_t n = saf_i64_min(CHUNK_ROWS, g->rows - at);
        SAF_TRY(saf_checkpoint_get_some(c, "values", SAF_DTYPE_F32, at * ROW_VALUES, n * ROW_VALUES,
                                        g->back));
        SAF_TRY(check_back(g, g->back, n));
        saf_comm_progress();
    }
    *read_s = saf_clock_s() - written;
out:
    saf_checkpoint_free(&c);
    saf_checkpoint_writer_free(&w);
    return st;
}

static saf_status add_rows(const storage *g) {
    saf_status st = SAF_OK;
    int32_t repeats = g->w->repeats;
    int64_t bytes = g->rows * ROW_VALUES * (int64_t)sizeof(float);
    for (int k = 0; k < KINDS; k++) {
        saf__figures f;
        SAF_TRY(saf__suite_figures(g->samples + k * repeats, repeats, (double)bytes, &f));
        saf_suite_file row = {.bytes = bytes,
                              .repeats = repeats,
                              .seconds = f.seconds,
                              .seconds_min = f.seconds_min,
                              .seconds_max = f.seconds_max,
                              .bytes_per_s = f.rate,
                              .bytes_per_s_min = f.rate_min,
                              .bytes_per_s_max = f.rate_max};
        snprintf(row.operation, sizeof row.operation, "%s", names[k]);
        SAF_TRY(saf__suite_row(g->w, SAF_SUITE_FILES, &row));
    }
out:
    return st;
}

static saf_status measure(storage *g) {
    saf_status st = SAF_OK;
    int32_t repeats = g->w->repeats;
    size_t chunk = (size_t)CHUNK_ROWS * ROW_VALUES;
    SAF_TRY(saf_buf_printf(&g->path, "%s.bench-%ld", g->w->s->job->output.file, (long)getpid()));
    SAF_TRY(saf_alloc(chunk, sizeof *g->values, &g->values));
    SAF_TRY(saf_alloc(chunk, sizeof *g->back, &g->back));
    SAF_TRY(saf_alloc((size_t)KINDS * (size_t)repeats, sizeof *g->samples, &g->samples));
    /* Nothing that a file system could make smaller. */
    for (size_t i = 0; i < chunk; i++)
        g->values[i] = (float)saf_philox_uniform(KEY, 0, (uint64_t)i);
    for (int32_t i = 0; i < repeats; i++) {
        double *s = g->samples + i;
        SAF_TRY(results(g, &s[RESULTS_WRITE * repeats], &s[RESULTS_READ * repeats]));
        SAF_TRY(checkpoint(g, &s[CHECKPOINT_WRITE * repeats], &s[CHECKPOINT_READ * repeats]));
        SAF_TRY(saf_checkpoints_remove(g->path.data));
    }
    SAF_TRY(add_rows(g));
out:
    if (st != SAF_OK && g->path.data) {
        char why[1024];
        snprintf(why, sizeof why, "%s", saf_error_text());
        (void)saf_checkpoints_remove(g->path.data);
        (void)saf_fail(st, "%s", why);
    }
    return st;
}

saf_status saf__suite_storage(saf__suites *w) {
    storage g = {.w = w};
    int64_t row_bytes = (int64_t)ROW_VALUES * (int64_t)sizeof(float);
    g.rows = saf_ceil_div((int64_t)w->s->job->bench.file_mib << 20, row_bytes);
    saf_status st = w->s->rank == 0 ? measure(&g) : SAF_OK;
    saf_buf_free(&g.path);
    saf_free(&g.values);
    saf_free(&g.back);
    saf_free(&g.samples);
    return saf_comm_agree(w->s->world, st);
}
