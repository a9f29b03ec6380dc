/* The forward pass of ranks that hold a part of a stage each: bit for bit what one rank computes,
 * however the rows of the model are cut. The ranks are threads of the test; they share one memory,
 * or each has its own and is sent what the lists of written parts say, and nothing else. */
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

enum { MOST_RANKS = 8, SLOTS = 3, CAPACITY = 512, MAX_TOKENS = 300, MAX_RUNS = 3, MAX_LOGITS = 31 };
enum { LOGIT_ROWS = 3 }; /* of a call */
enum { VOCAB = 4 * SAF_LOGIT_SEGMENT + 20, CANDIDATES = SAF_NUCLEUS + 7 };

static char folder[] = "/tmp/saf-parts-XXXXXX";
static char path[64];

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    return saf_kernels_init(NULL) != SAF_OK;
}

static int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* ---- models, batches, cuts ------------------------------------------------------------------- */

#define SHAPE(l, d, h, hkv, c, f) \
    .layers = l, .width = d, .heads = h, .kv_heads = hkv, .head_width = c, .ff_width = f

static const struct {
    saf_model_make_options options;
    saf_kv_type kv;
} models[] = {
    /* norms of heads, tied */
    {{.arch = "qwen3", SHAPE(3, 128, 8, 2, 32, 224), .dtype = SAF_DTYPE_Q8_0, .tied = true},
     SAF_KV_F16},
    {{.arch = "llama", SHAPE(2, 256, 16, 8, 16, 512), .dtype = SAF_DTYPE_Q4_K}, SAF_KV_Q8_0},
    /* biases; columns that are no multiple of a block */
    {{.arch = "qwen2", SHAPE(3, 72, 10, 5, 16, 100), .dtype = SAF_DTYPE_F32}, SAF_KV_F32},
    /* heads that eight make up blocks of: after attention floats, elsewhere two quantised types */
    {{.arch = "qwen2", SHAPE(2, 256, 12, 6, 20, 96), .dtype = SAF_DTYPE_Q4_K}, SAF_KV_F16},
};
enum { MODELS = sizeof models / sizeof models[0] };

typedef struct {
    saf_gguf *g;
    saf_model_params p;
    saf_kv_type kv;
} model;

static void open_model(int i, model *m) {
    saf_model_make_options o = models[i].options;
    o.vocab_size = VOCAB;
    o.seed = 7 + (uint64_t)i;
    m->kv = models[i].kv;
    OK(saf_model_make(path, &o));
    OK(saf_gguf_open(path, &m->g));
    OK(saf_model_params_read(m->g, &m->p));
}

/* Row `to` of the head becomes row `from`, or with no such row NaN. Of a model of floats, before it
 * is loaded. */
static void set_head_row(const model *m, int64_t to, int64_t from) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(m->g, "output.weight");
    size_t bytes = (size_t)m->p.width * sizeof(float);
    float row[128];
    assert_true(t && t->dtype == SAF_DTYPE_F32 && bytes <= sizeof row);
    for (int i = 0; i < 128; i++) row[i] = NAN;
    if (from >= 0) OK(saf_gguf_tensor_read(m->g, t, (size_t)from * bytes, bytes, row));
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)(t->offset + (size_t)to * bytes), SEEK_SET), 0);
    assert_int_equal(fwrite(row, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void close_model(model *m) {
    saf_model_params_free(&m->p);
    saf_gguf_close(&m->g);
}

/* A long prompt; several sequences, one continued; rows of each kind together; one token. */
static const struct {
    int32_t n_runs;
    saf_run runs[MAX_RUNS];
} passes[] = {
    {1, {{0, 0, 300, 1}}},
    {3, {{1, 0, 30, 30}, {0, 300, 1, 1}, {2, 0, 2, 0}}},
    {3, {{0, 301, 1, 1}, {1, 30, 1, 0}, {2, 2, 6, 1}}},
    {2, {{2, 8, 20, 0}, {1, 31, 1, 0}}},
    {1, {{0, 302, 1, 1}}},
};
enum { PASSES = sizeof passes / sizeof passes[0] };

static saf_batch batch_of(int pass, const model *m, int32_t *ids) {
    saf_batch b = {.n_runs = passes[pass].n_runs, .runs = passes[pass].runs, .ids = ids};
    for (int32_t i = 0; i < b.n_runs; i++) b.tokens += b.runs[i].tokens;
    for (int32_t t = 0; t < b.tokens; t++)
        ids[t] = (int32_t)((t * 7919 + pass * 31 + 5) % m->p.vocab);
    return b;
}

static int64_t wanted_of(const saf_batch *b) {
    int64_t n = 0;
    for (int32_t i = 0; i < b->n_runs; i++) n += b->runs[i].logits;
    return n;
}

typedef enum { EVEN, UNEVEN, FIRST_AND_LAST, CUTS } cut;

/* Where rank r's part of n rows begins, in units: alike, ever more, or nothing for the ranks in the
 * middle; a last incomplete unit belongs to the last. */
static int64_t begin_of(cut how, int ranks, int r, int64_t n, int64_t unit) {
    int64_t units = saf_ceil_div(n, unit), at = units * r / ranks;
    if (how == UNEVEN) at = units * r * r / (ranks * ranks);
    if (how == FIRST_AND_LAST) at = r == 0 ? 0 : units - 1;
    return r == ranks ? n : at * unit;
}

static saf_span span_of(cut how, int ranks, int r, int64_t n, int64_t unit) {
    return (saf_span){begin_of(how, ranks, r, n, unit), begin_of(how, ranks, r + 1, n, unit)};
}

static void cut_stage(const model *m, cut how, int ranks, saf_slice_range stage,
                      saf_slice_range *out) {
    int64_t heads = 1;
    while (heads * m->p.head_width % 32) heads++;
    for (int r = 0; r < ranks; r++) {
        out[r] = stage;
        out[r].heads = span_of(how, ranks, r, m->p.heads, heads);
        out[r].width = span_of(how, ranks, r, m->p.width, 32);
        out[r].ff = span_of(how, ranks, r, m->p.ff_width, 32);
        out[r].vocab = span_of(how, ranks, r, m->p.vocab, SAF_LOGIT_SEGMENT);
    }
}

/* ---- ranks ------------------------------------------------------------------------------------
 */

/* What a rank of a run of all passes sees: equal on all of them. */
typedef struct {
    float *x[PASSES], *logits[PASSES]; /* [T, D] as it leaves the last layer, [wanted, V] */
    bool finite[PASSES][MAX_LOGITS];
    saf_logit_row rows[PASSES][MAX_LOGITS]; /* with candidates of their own: */
    saf_candidate candidates[PASSES][MAX_LOGITS][CANDIDATES];
    saf_fault faults[PASSES][MAX_RUNS];
    saf_profile profile;
    saf_cost cost[SAF_STEP_COUNT]; /* of all passes */
} seen;

static void seen_free(seen *s) {
    for (int i = 0; i < PASSES; i++) {
        saf_free(&s->x[i]);
        saf_free(&s->logits[i]);
    }
}

/* A group of threads, and what all of them do. */
typedef struct {
    const model *m;
    int ranks, threads;
    int64_t layer1;  /* of the first stage; all layers: there is one stage */
    bool copies;     /* each rank has memory of its own */
    bool by_token;   /* as if the kernels of all ranks were those of this one */
    int break_pass;  /* x of this pass is not finite between the stages; -1: none is */
    int64_t fail_at; /* the meeting at which sharing fails; -1: none */
    cut how;
    pthread_barrier_t barrier;
    size_t own_bytes, bytes; /* of the memory: what the stage has of it, all */
    struct rank *rank;
} world;

typedef struct rank {
    world *w;
    int32_t me;
    char *memory;
    int64_t meetings;
    const saf_part *parts; /* of the meeting under way */
    int64_t n_parts;
    int64_t wrong; /* parts that another rank lists in another way, or that leave the memory */
    saf_status status;
    seen seen;
} rank;

static bool same_part(const saf_part *a, const saf_part *b) {
    return a->owner == b->owner && a->rows == b->rows && a->offset == b->offset &&
           a->bytes == b->bytes && a->stride == b->stride;
}

/* What a group's share is called with: offsets count from where the group's memory begins. */
typedef struct {
    rank *r;
    size_t base;
} door;

/* Brings what the others wrote into this rank's memory. */
static void copy_parts(rank *r, size_t base, const saf_part *parts, int64_t n) {
    const rank *first = &r->w->rank[0];
    if (first->n_parts != n) r->wrong++;
    for (int64_t i = 0; i < n && i < first->n_parts; i++) {
        const saf_part *p = &parts[i];
        size_t end = p->offset + (size_t)(p->rows - 1) * p->stride + p->bytes;
        if (!same_part(p, &first->parts[i]) || p->owner < 0 || p->owner >= r->w->ranks ||
            p->rows < 1 || p->bytes < 1 || end > r->w->bytes - base) {
            r->wrong++;
            continue;
        }
        const char *from = r->w->rank[p->owner].memory;
        for (int64_t row = 0; row < p->rows && p->owner != r->me; row++) {
            size_t at = base + p->offset + (size_t)row * p->stride;
            memcpy(r->memory + at, from + at, p->bytes);
        }
    }
}

static saf_status share(void *ctx, const saf_part *parts, int64_t n) {
    const door *d = ctx;
    rank *r = d->r;
    r->parts = parts;
    r->n_parts = n;
    if (r->meetings++ == r->w->fail_at)
        return saf_fail(SAF_COMM, "rank %d meets nobody any more", r->me);
    (void)pthread_barrier_wait(&r->w->barrier);
    if (r->w->copies) {
        copy_parts(r, d->base, parts, n);
        (void)pthread_barrier_wait(&r->w->barrier); /* nobody writes before all have read */
    }
    return SAF_OK;
}

/* The stages of a rank. x and logits of one call are those of the call before the last one. */
typedef struct {
    int n;
    saf_slice *slice[2];
    saf_kv_cache *kv[2];
    saf_stage *stage[2];
    saf_slice_range ranges[2][MOST_RANKS];
    saf_stage_group group[2];
    door door[2];
    float *x[2][2], *logits[2];
    int calls;
} stages;

static int64_t cache_line(int64_t bytes) {
    return saf_round_up(bytes, 64);
}

static size_t stage_bytes_of(const model *m, int ranks) {
    const saf_stage_room room = {MAX_TOKENS, MAX_RUNS, MAX_LOGITS, CANDIDATES};
    return saf_stage_shared_bytes(&m->p, room, ranks);
}

/* In the memory: of each stage its own bytes, and x twice; logits twice. */
static void place(rank *r, stages *s) {
    const world *w = r->w;
    size_t x_bytes = (size_t)cache_line(MAX_TOKENS * w->m->p.width * 4);
    char *at = r->memory;
    for (int i = 0; i < 2; i++) {
        s->group[i].memory = at;
        at += w->own_bytes;
        for (int k = 0; k < 2; k++, at += x_bytes) s->x[i][k] = (float *)at;
    }
    for (int k = 0; k < 2; k++)
        s->logits[k] = (float *)(at + k * cache_line(LOGIT_ROWS * w->m->p.vocab * 4));
}

static size_t memory_bytes(const world *w) {
    return 2 * w->own_bytes + 4 * (size_t)cache_line(MAX_TOKENS * w->m->p.width * 4) +
           2 * (size_t)cache_line(LOGIT_ROWS * w->m->p.vocab * 4);
}

static saf_status open_stages(rank *r, stages *s) {
    saf_status st = SAF_OK;
    const world *w = r->w;
    const saf_model_params *p = &w->m->p;
    s->n = w->layer1 < p->layers ? 2 : 1;
    place(r, s);
    for (int i = 0; i < s->n; i++) {
        int64_t first = i ? w->layer1 : 0, last = i + 1 < s->n ? w->layer1 : p->layers;
        saf_slice_range whole = saf_slice_range_whole(p, first, last, i == 0, i == s->n - 1);
        cut_stage(w->m, w->how, w->ranks, whole, s->ranges[i]);
        s->door[i] = (door){r, (size_t)(s->group[i].memory - r->memory)};
        s->group[i] = (saf_stage_group){.ctx = &s->door[i],
                                        .rank = r->me,
                                        .ranks = w->ranks,
                                        .ranges = s->ranges[i],
                                        .memory = s->group[i].memory,
                                        .parts = w->copies,
                                        .by_token = w->by_token,
                                        .share = share};
        saf_slice_range mine = w->ranks ? s->ranges[i][r->me] : whole;
        SAF_TRY(saf_slice_load(w->m->g, p, mine, &s->slice[i]));
        SAF_TRY(saf_kv_cache_new(p, mine, w->m->kv, SLOTS, CAPACITY, &s->kv[i]));
        const saf_stage_room room = {MAX_TOKENS, MAX_RUNS, whole.head ? MAX_LOGITS : 0, CANDIDATES};
        SAF_TRY(saf_stage_new(p, s->slice[i], s->kv[i], room, w->ranks ? &s->group[i] : NULL,
                              &s->stage[i]));
        saf_stage_profile(s->stage[i], &r->seen.profile);
    }
out:
    return st;
}

static void close_stages(stages *s) {
    for (int i = 0; i < 2; i++) {
        saf_stage_free(&s->stage[i]);
        saf_kv_cache_free(&s->kv[i]);
        saf_slice_free(&s->slice[i]);
    }
}

/* From the first stage's x to the second's, as whoever receives it would write it. */
static saf_status hand_over(stages *s, const saf_batch *b, const float *from, float *to, int pass) {
    rank *r = s->door[0].r;
    const world *w = r->w;
    int64_t D = w->m->p.width;
    if (w->copies || r->me == 0) {
        memcpy(to, from, (size_t)(b->tokens * D) * sizeof *to);
        if (pass == w->break_pass) {
            to[D / 2] = NAN;
            to[(b->tokens - 1) * D + 1] = -INFINITY;
        }
    }
    return w->ranks ? share(&s->door[0], NULL, 0) : SAF_OK;
}

/* Rows of all kinds: scored, of all parts of the vocabulary; the likeliest; some of them, after
 * penalties and before; with tokens made more likely; nothing. */
static saf_logit_ask ask_of(const model *m, int pass, int64_t row) {
    static const saf_sampling kinds[] = {
        {.temperature = 0, .repeat_penalty = 1},
        {.temperature = 0.8, .top_k = 5, .top_p = 0.9, .repeat_penalty = 1.5, .repeat_last = 9},
        {.temperature = 1.2,
         .top_k = CANDIDATES,
         .top_p = 1,
         .repeat_penalty = 0.5,
         .repeat_last = -1},
        {.temperature = 0, .repeat_penalty = 4, .repeat_last = 12},
        {.temperature = 1.5, .top_p = 0.02, .repeat_penalty = 1}};
    static const int32_t history[] = {1,    700,  2067, -1,  INT32_MAX, VOCAB, 512,  511,
                                      1024, 700,  5,    6,   7,         1535,  1536, 0,
                                      2048, 2047, 300,  300, 300,       1600,  1700, 1800};
    int64_t V = m->p.vocab, kind = (pass + row) % 7;
    saf_logit_ask ask = {.scored = -1};
    if (kind == 0) ask.scored = (int32_t)((pass * 613 + row * 997) % V);
    if (kind == 0 || kind == 6) return ask;
    ask.sampling = &kinds[kind - 1];
    ask.n = saf_sampling_candidates(ask.sampling);
    ask.n_top = kind == 2 ? 7 : 0;
    ask.history = history;
    ask.n_history = sizeof history / sizeof *history;
    return ask;
}

/* They are the stage's until the next call. */
static void keep_candidates(seen *to, int pass, int64_t i) {
    saf_logit_row *row = &to->rows[pass][i];
    saf_candidate *at = to->candidates[pass][i];
    memcpy(at, row->likely, (size_t)row->n * sizeof *at);
    memcpy(at + row->n, row->top, (size_t)row->n_top * sizeof *at);
    row->likely = at;
    row->top = at + row->n;
}

static bool is_penalised(saf_logit_ask ask) {
    return ask.sampling && ask.sampling->repeat_penalty != 1;
}

/* Rows of the last block that nobody penalised, whole after all: one, or two side by side. */
static saf_status share_some(rank *r, stages *s, int pass, int64_t row, int64_t n) {
    saf_status st = SAF_OK;
    const model *m = r->w->m;
    int64_t V = m->p.vocab;
    float *logits = s->logits[(s->calls + 1) % 2];
    for (int64_t i = 0, some; i < n; i += some) {
        some = 1;
        if (is_penalised(ask_of(m, pass, row + i))) continue;
        if (i + 1 < n && !is_penalised(ask_of(m, pass, row + i + 1))) some = 2;
        SAF_TRY(saf_stage_share_logits(s->stage[s->n - 1], some, logits + i * V));
        for (int64_t k = i * V; k < (i + some) * V; k++) {
            const float want = r->seen.logits[pass][row * V + k];
            if (logits[k] != want && !(isnan(logits[k]) && isnan(want))) r->wrong++;
        }
        if (r->w->ranks) SAF_TRY(share(&s->door[s->n - 1], NULL, 0)); /* all have read */
        r->meetings -= r->w->ranks > 0;
    }
out:
    return st;
}

static saf_status run_pass(rank *r, stages *s, int pass) {
    saf_status st = SAF_OK;
    const model *m = r->w->m;
    seen *to = &r->seen;
    int32_t ids[MAX_TOKENS];
    saf_batch b = batch_of(pass, m, ids);
    int64_t wanted = wanted_of(&b), V = m->p.vocab;
    saf_cost cost[SAF_STEP_COUNT];
    float *x = s->x[0][pass % 2];
    SAF_TRY(saf_alloc((size_t)(b.tokens * m->p.width), sizeof(float), &to->x[pass]));
    SAF_TRY(saf_alloc((size_t)(wanted * V), sizeof(float), &to->logits[pass]));
    for (int i = 0; i < s->n; i++) {
        if (i > 0) SAF_TRY(hand_over(s, &b, x, s->x[1][pass % 2], pass));
        x = s->x[i][pass % 2];
        SAF_TRY(saf_stage_forward(s->stage[i], &b, x, to->faults[pass]));
        saf_stage_cost(s->stage[i], &b, cost);
        for (int k = 0; k < SAF_STEP_COUNT; k++) {
            to->cost[k].weight_bytes += cost[k].weight_bytes;
            to->cost[k].kv_bytes += cost[k].kv_bytes;
            to->cost[k].int8_ops += cost[k].int8_ops;
            to->cost[k].float_ops += cost[k].float_ops;
        }
    }
    memcpy(to->x[pass], x, (size_t)(b.tokens * m->p.width) * sizeof *x);
    for (int64_t row = 0; row < wanted; row += LOGIT_ROWS) {
        int64_t n = saf_i64_min(LOGIT_ROWS, wanted - row);
        float *logits = s->logits[s->calls++ % 2];
        SAF_TRY(saf_stage_logits(s->stage[s->n - 1], row, n, logits, to->finite[pass] + row));
        memcpy(to->logits[pass] + row * V, logits, (size_t)(n * V) * sizeof *logits);
        saf_logit_ask asks[LOGIT_ROWS];
        for (int64_t i = 0; i < n; i++) asks[i] = ask_of(m, pass, row + i);
        SAF_TRY(saf_stage_logit_rows(s->stage[s->n - 1], row, n, asks, s->logits[s->calls++ % 2],
                                     to->rows[pass] + row));
        for (int64_t i = 0; i < n; i++) keep_candidates(to, pass, row + i);
        SAF_TRY(share_some(r, s, pass, row, n));
    }
out:
    return st;
}

static void *run_rank(void *ctx) {
    rank *r = ctx;
    stages s = {0};
    omp_set_num_threads(r->w->threads);
    r->status = open_stages(r, &s);
    for (int pass = 0; pass < PASSES && r->status == SAF_OK; pass++)
        r->status = run_pass(r, &s, pass);
    if (r->status == SAF_COMM && s.stage[0]) { /* no meeting follows one that failed */
        int64_t met = r->meetings;
        if (run_pass(r, &s, PASSES - 1) != SAF_COMM || r->meetings != met) r->wrong++;
    }
    close_stages(&s);
    return NULL;
}

/* All ranks of a world, or with none of them one alone. What nobody wrote is NaN. */
static void run_world(world *w, rank *ranks) {
    pthread_t threads[MOST_RANKS];
    int n = w->ranks ? w->ranks : 1;
    char *memory = NULL;
    w->rank = ranks;
    w->own_bytes = stage_bytes_of(w->m, n);
    w->bytes = memory_bytes(w);
    assert_int_equal(pthread_barrier_init(&w->barrier, NULL, (unsigned)n), 0);
    for (int i = 0; i < n; i++) {
        ranks[i] = (rank){.w = w, .me = i};
        if (i == 0 || w->copies) {
            OK(saf_alloc(w->bytes, 1, &memory));
            memset(memory, 0xFF, w->bytes);
        }
        ranks[i].memory = memory;
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &ranks[i]), 0);
    for (int i = 0; i < n; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < n; i++)
        if (i == 0 || w->copies) saf_free(&ranks[i].memory);
    assert_int_equal(pthread_barrier_destroy(&w->barrier), 0);
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static world world_of(const model *m, int ranks, cut how, bool copies) {
    return (world){.m = m,
                   .ranks = ranks,
                   .threads = 1,
                   .layer1 = m->p.layers,
                   .copies = copies,
                   .by_token = saf_kernels_by_token(),
                   .break_pass = -1,
                   .fail_at = -1,
                   .how = how};
}

/* Equal bits, or both NaN: which one an operation gives depends on its operands' order. */
static bool same_floats(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (saf_f32_to_bits(a[i]) != saf_f32_to_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static int by_value(const void *a, const void *b) {
    const saf_candidate *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The first n of all in order. */
static void check_candidates(const float *logits, const float *values, int64_t V, int32_t wanted,
                             int32_t n, const saf_candidate *got) {
    saf_candidate all[VOCAB];
    assert_int_equal(V, VOCAB);
    for (int64_t v = 0; v < V; v++) all[v] = (saf_candidate){(int32_t)v, values[v], logits[v]};
    qsort(all, (size_t)V, sizeof *all, by_value);
    assert_int_equal(n, saf_i64_min(wanted, V));
    assert_memory_equal(got, all, (size_t)n * sizeof *all);
}

/* What is picked from the likeliest is what is picked from all logits. */
static void check_pick(const saf_logit_ask *ask, const saf_logit_row *row, const float *logits,
                       int64_t V) {
    saf_sampler *s = NULL;
    saf_sampled want;
    OK(saf_sampler_new(V, &s));
    for (int64_t position = 0; position < 20; position++) {
        OK(saf_sampler_pick(s, logits, ask->sampling, ask->history, ask->n_history, 5, position,
                            &want, 0, NULL));
        int32_t at =
            saf_sampling_draw(row->likely, row->n, V, row->log_sum_exp, ask->sampling, 5, position);
        assert_true(at >= 0);
        assert_int_equal(row->likely[at].id, want.id);
        assert_true((float)((double)row->likely[at].logit - row->log_sum_exp) == want.logprob);
    }
    saf_sampler_free(&s);
}

/* What rows come to is what their logits say. */
static void check_row(const model *m, const seen *got, int pass, int64_t i) {
    int64_t V = m->p.vocab;
    const float *logits = got->logits[pass] + i * V;
    const saf_logit_row *row = &got->rows[pass][i];
    const saf_logit_ask ask = ask_of(m, pass, i);
    float values[VOCAB];
    assert_true(row->finite == got->finite[pass][i]);
    if (!row->finite) return;
    assert_true(ask.scored < 0 || row->scored_logit == logits[ask.scored]);
    assert_true(row->log_sum_exp == saf_log_sum_exp(logits, V));
    memcpy(values, logits, (size_t)V * sizeof *values);
    check_candidates(logits, values, V, ask.n_top, row->n_top, row->top);
    for (int64_t k = 0; ask.sampling && k < ask.n_history; k++) {
        int64_t back = ask.n_history - k;
        const saf_sampling *s = ask.sampling;
        if (s->repeat_last >= 0 && back > s->repeat_last) continue;
        if (ask.history[k] < 0 || ask.history[k] >= V) continue;
        double x = (double)logits[ask.history[k]], r = s->repeat_penalty;
        values[ask.history[k]] = (float)(x > 0 ? x / r : x * r);
    }
    check_candidates(logits, values, V, ask.n, row->n, row->likely);
    if (ask.sampling) check_pick(&ask, row, logits, V);
}

static void same_row(const saf_logit_row *a, const saf_logit_row *b) {
    assert_true(a->finite == b->finite);
    if (!a->finite) return;
    assert_true(a->scored_logit == b->scored_logit && a->log_sum_exp == b->log_sum_exp);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->n_top, b->n_top);
    assert_memory_equal(a->likely, b->likely, (size_t)a->n * sizeof *a->likely);
    assert_memory_equal(a->top, b->top, (size_t)a->n_top * sizeof *a->top);
}

static void compare(const world *w, const seen *want, const rank *r) {
    if (r->status != SAF_OK) fail_msg("rank %d: %s", r->me, saf_error_text());
    assert_int_equal(r->wrong, 0);
    for (int pass = 0; pass < PASSES; pass++) {
        int32_t ids[MAX_TOKENS];
        const seen *got = &r->seen;
        saf_batch b = batch_of(pass, w->m, ids);
        int64_t wanted = wanted_of(&b);
        if (!same_floats(want->x[pass], got->x[pass], b.tokens * w->m->p.width) ||
            !same_floats(want->logits[pass], got->logits[pass], wanted * w->m->p.vocab))
            fail_msg("%s, %d ranks, cut %d, %s: pass %d of rank %d is another one", w->m->p.name,
                     w->ranks, w->how, w->copies ? "copies" : "one memory", pass, r->me);
        assert_memory_equal(want->finite[pass], got->finite[pass], (size_t)wanted * sizeof(bool));
        for (int64_t i = 0; i < wanted; i++)
            if (got == want)
                check_row(w->m, want, pass, i);
            else
                same_row(&want->rows[pass][i], &got->rows[pass][i]);
        assert_memory_equal(want->faults[pass], got->faults[pass],
                            (size_t)b.n_runs * sizeof(saf_fault));
    }
}

static void run_and_compare(world *w, const seen *want) {
    static rank ranks[MOST_RANKS];
    run_world(w, ranks);
    for (int r = 0; r < w->ranks; r++) compare(w, want, &ranks[r]);
    for (int r = 0; r < w->ranks; r++) seen_free(&ranks[r].seen);
}

static void test_parts_give_the_bits_of_one_rank(void **state) {
    static const int counts[] = {1, 2, 3, 5, 8};
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        model m = {0};
        rank alone[1];
        open_model(i, &m);
        world one = world_of(&m, 0, EVEN, false);
        run_world(&one, alone);
        compare(&one, &alone->seen, alone);
        for (int n = 0; n < (int)(sizeof counts / sizeof counts[0]); n++)
            for (int how = 0; how < CUTS; how++) {
                world w = world_of(&m, counts[n], (cut)how, (n + how + i) % 2);
                w.threads = counts[n] < 4 ? 1 + (how + i) % 2 : 1;
                if ((n + how) % 3 == 0) w.layer1 = 1; /* two stages */
                run_and_compare(&w, &alone->seen);
                w.copies = !w.copies;
                w.by_token = false;
                w.threads = 1;
                run_and_compare(&w, &alone->seen);
            }
        seen_free(&alone->seen);
        close_model(&m);
    }
}

/* What is not finite is found by all ranks, in the same places. */
static void test_parts_find_the_same_faults(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        model m = {0};
        rank alone[1];
        open_model(i, &m);
        world one = world_of(&m, 0, EVEN, false);
        one.layer1 = 1;
        one.break_pass = 1;
        run_world(&one, alone);
        assert_int_equal(alone->status, SAF_OK);
        /* of pass 1, the first and the last sequence; the first wanted logits of all its rows */
        assert_int_equal(alone->seen.faults[1][0].run, 0);
        assert_int_equal(alone->seen.faults[1][0].position, 0);
        assert_int_equal(alone->seen.faults[1][1].run, -1);
        assert_int_equal(alone->seen.faults[1][2].run, 2);
        assert_int_equal(alone->seen.faults[1][2].position, 1);
        assert_false(alone->seen.finite[1][0]);
        assert_true(alone->seen.finite[1][30]);
        for (int ranks = 2; ranks <= 3; ranks++) {
            world w = world_of(&m, ranks, (cut)(i % CUTS), ranks == 2);
            w.layer1 = 1;
            w.break_pass = 1;
            run_and_compare(&w, &alone->seen);
        }
        seen_free(&alone->seen);
        close_model(&m);
    }
}

static void compare_cuts(const model *m, rank *alone) {
    for (int how = 0; how < CUTS; how++)
        for (int copies = 0; copies < 2; copies++) {
            world w = world_of(m, 3, (cut)how, copies);
            run_and_compare(&w, &alone->seen);
        }
    seen_free(&alone->seen);
}

/* All rows of the head are one, so all logits of a row are equal: in every segment, on every rank.
 */
static void test_parts_take_the_first_of_equals(void **state) {
    (void)state;
    model m = {0};
    rank alone[1];
    open_model(2, &m);
    for (int64_t v = 1; v < m.p.vocab; v++) set_head_row(&m, v, 0);
    world one = world_of(&m, 0, EVEN, false);
    run_world(&one, alone);
    compare(&one, &alone->seen, alone);
    assert_int_equal(alone->seen.rows[1][0].likely[0].id, 0);
    compare_cuts(&m, alone);
    close_model(&m);
}

/* Logits that are not finite on one rank, the last one, are so for all. */
static void test_parts_hear_of_logits_that_are_not_finite(void **state) {
    (void)state;
    model m = {0};
    rank alone[1];
    open_model(2, &m);
    set_head_row(&m, m.p.vocab - 1, -1);
    world one = world_of(&m, 0, EVEN, false);
    run_world(&one, alone);
    assert_false(alone->seen.rows[0][0].finite);
    assert_false(alone->seen.finite[0][0]);
    compare_cuts(&m, alone);
    close_model(&m);
}

/* Four meetings a layer, one for the tokens, one for each block of logits, and one for what its
 * rows come to; with a clock of their own. */
static void test_parts_meet_four_times_a_layer(void **state) {
    model m = {0};
    rank ranks[3];
    int64_t expected = 0;
    (void)state;
    open_model(0, &m);
    for (int pass = 0; pass < PASSES; pass++) {
        int32_t ids[MAX_TOKENS];
        saf_batch b = batch_of(pass, &m, ids);
        expected += 1 + 4 * m.p.layers + 2 * saf_ceil_div(wanted_of(&b), LOGIT_ROWS);
    }
    world w = world_of(&m, 3, EVEN, false);
    run_world(&w, ranks);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(ranks[r].status, SAF_OK);
        assert_int_equal(ranks[r].meetings, expected);
        assert_true(ranks[r].seen.profile.seconds[SAF_STEP_EXCHANGE] > 0);
        seen_free(&ranks[r].seen);
    }
    world one = world_of(&m, 0, EVEN, false);
    run_world(&one, ranks);
    assert_true(ranks->seen.profile.seconds[SAF_STEP_EXCHANGE] == 0);
    assert_true(ranks->seen.profile.seconds[SAF_STEP_O] > 0);
    seen_free(&ranks->seen);
    close_model(&m);
}

static void test_parts_pass_on_a_meeting_that_fails(void **state) {
    model m = {0};
    (void)state;
    open_model(0, &m);
    /* at the tokens, in the middle of a layer, at the logits of the first pass and at what they
     * come to; in the third */
    static const int64_t at[] = {0, 7, 13, 14, 20};
    for (int i = 0; i < 5; i++) {
        rank ranks[2];
        world w = world_of(&m, 2, EVEN, i % 2);
        w.fail_at = at[i];
        run_world(&w, ranks);
        for (int r = 0; r < 2; r++) {
            assert_int_equal(ranks[r].status, SAF_COMM);
            assert_int_equal(ranks[r].meetings, at[i] + 1);
            assert_int_equal(ranks[r].wrong, 0);
            seen_free(&ranks[r].seen);
        }
    }
    close_model(&m);
}

/* Together the parts read and compute what one rank does; norms, and keys and values that two of
 * them need, count for each that reads them. */
static void test_parts_cost_what_the_whole_costs(void **state) {
    static const saf_step steps[] = {SAF_STEP_EMBED,   SAF_STEP_ATTENTION, SAF_STEP_O,
                                     SAF_STEP_GATE_UP, SAF_STEP_DOWN,      SAF_STEP_HEAD};
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m = {0};
        rank alone[1], ranks[2];
        open_model(i, &m);
        world one = world_of(&m, 0, EVEN, false), w = world_of(&m, 2, EVEN, true);
        run_world(&one, alone);
        run_world(&w, ranks);
        const saf_cost *want = alone->seen.cost, *a = ranks[0].seen.cost, *b = ranks[1].seen.cost;
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            saf_step s = steps[k];
            assert_int_equal(a[s].weight_bytes + b[s].weight_bytes, want[s].weight_bytes);
            assert_int_equal(a[s].kv_bytes + b[s].kv_bytes, want[s].kv_bytes);
            assert_int_equal(a[s].int8_ops + b[s].int8_ops, want[s].int8_ops);
            assert_int_equal(a[s].float_ops + b[s].float_ops, want[s].float_ops);
        }
        assert_int_equal(a[SAF_STEP_NORM].weight_bytes, want[SAF_STEP_NORM].weight_bytes);
        assert_int_equal(a[SAF_STEP_EXCHANGE].weight_bytes, 0);
        assert_true(a[SAF_STEP_O].weight_bytes > 0 && b[SAF_STEP_O].weight_bytes > 0);
        seen_free(&alone->seen);
        seen_free(&ranks[0].seen);
        seen_free(&ranks[1].seen);
        close_model(&m);
    }
}

static void expect_refusal(const model *m, saf_slice_range mine, const saf_stage_group *group) {
    saf_slice *slice = NULL;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    OK(saf_slice_load(m->g, &m->p, mine, &slice));
    OK(saf_kv_cache_new(&m->p, mine, m->kv, 1, 16, &kv));
    assert_int_equal(saf_stage_new(&m->p, slice, kv, (saf_stage_room){4, 1, 4, 0}, group, &stage),
                     SAF_DEFECT);
    assert_null(stage);
    saf_kv_cache_free(&kv);
    saf_slice_free(&slice);
}

static void test_parts_refuse_to_note_more_than_there_is_room_for(void **state) {
    static const int32_t history[SAF_PENALISED + 1] = {0};
    static const saf_sampling all = {.repeat_penalty = 2, .repeat_last = -1};
    model m = {0};
    saf_slice *slice = NULL;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    saf_logit_row row;
    (void)state;
    open_model(0, &m);
    const saf_slice_range whole = saf_slice_range_whole(&m.p, 0, m.p.layers, true, true);
    const saf_stage_room room = {1, 1, 1, 3};
    float *logits = calloc((size_t)m.p.vocab, sizeof *logits);
    assert_non_null(logits);
    OK(saf_slice_load(m.g, &m.p, whole, &slice));
    OK(saf_kv_cache_new(&m.p, whole, m.kv, 1, 16, &kv));
    OK(saf_stage_new(&m.p, slice, kv, room, NULL, &stage));
    const saf_logit_ask wrong[] = {{.scored = -1, .n = 2, .n_top = 2},
                                   {.scored = -1, .n = -1},
                                   {.scored = (int32_t)m.p.vocab},
                                   {.scored = -1,
                                    .n = 1,
                                    .sampling = &all,
                                    .history = history,
                                    .n_history = SAF_PENALISED + 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(saf_stage_logit_rows(stage, 0, 1, &wrong[i], logits, &row), SAF_DEFECT);
    const saf_logit_ask right = {.scored = -1, .n = 1, .n_top = 2};
    OK(saf_stage_logit_rows(stage, 0, 1, &right, logits, &row));
    free(logits);
    saf_stage_free(&stage);
    saf_kv_cache_free(&kv);
    saf_slice_free(&slice);
    close_model(&m);
}

static void test_parts_that_are_no_whole_are_refused(void **state) {
    model m = {0};
    char *memory = NULL;
    saf_slice_range ranges[2];
    (void)state;
    open_model(0, &m);
    saf_slice_range whole = saf_slice_range_whole(&m.p, 0, m.p.layers, true, true);
    size_t bytes = saf_stage_shared_bytes(&m.p, (saf_stage_room){4, 1, 4, 0}, 2);
    assert_int_equal(bytes % 64, 0);
    assert_true(saf_stage_shared_bytes(&m.p, (saf_stage_room){INT64_MAX / 2, 1, 4, 0}, 2) ==
                SIZE_MAX);
    assert_true(saf_stage_shared_bytes(&m.p, (saf_stage_room){4, 1, INT64_MAX, 0}, 1000) ==
                SIZE_MAX);
    OK(saf_alloc(bytes + 64, 1, &memory));
    for (int i = 0; i < 8; i++) {
        saf_stage_group group = {.ranks = 2, .ranges = ranges, .memory = memory, .share = share};
        cut_stage(&m, EVEN, 2, whole, ranges);
        saf_slice_range mine = ranges[0];
        if (i == 0) ranges[1].ff.begin += 32; /* a gap */
        if (i == 1) ranges[1].vocab.end -= 1; /* less than the whole */
        if (i == 2) ranges[1].layer0 = 1;     /* of another stage */
        if (i == 3) mine.width.end -= 32;     /* the slice is another one */
        if (i == 4) group.memory += 4;
        if (i == 5) group.rank = 2;
        if (i == 6) ranges[0].ff.end = ranges[1].ff.begin = mine.ff.end = 40; /* inside a block */
        expect_refusal(&m, mine, i == 7 ? NULL : &group);
    }
    saf_free(&memory);
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_give_the_bits_of_one_rank),
        cmocka_unit_test(test_parts_find_the_same_faults),
        cmocka_unit_test(test_parts_take_the_first_of_equals),
        cmocka_unit_test(test_parts_hear_of_logits_that_are_not_finite),
        cmocka_unit_test(test_parts_meet_four_times_a_layer),
        cmocka_unit_test(test_parts_pass_on_a_meeting_that_fails),
        cmocka_unit_test(test_parts_cost_what_the_whole_costs),
        cmocka_unit_test(test_parts_refuse_to_note_more_than_there_is_room_for),
        cmocka_unit_test(test_parts_that_are_no_whole_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
