/* Attention: the work shared out over the team.
 *
 * An item is up to SAF__ATTN_ROWS query rows of one sequence with the same key head. The items lie
 * on a line, each as long as it takes, and the line is cut into as many equal parts as there are
 * threads. A cut inside an item falls between two segments: the thread with the item's first
 * segments folds them as it goes along, the ones after it leave every segment's own result in their
 * part of the scratch memory, and when all are done the first thread folds those in, in order. So
 * the operations are the same wherever the cuts are.
 */
#include <assert.h>
#include <omp.h>

#include "kernel/expf.h"
#include "kernel/kernels.h"

/* ---- scratch memory ---- */

struct saf_attn_scratch {
    int64_t threads, partials; /* how many results of a row and a segment a thread may leave */
    size_t part_floats;        /* of one thread */
    float *data; /* of each thread: outputs [partials, C], maxima [partials], sums [partials] */
};

static int64_t heads_of(saf_span span) {
    return span.end - span.begin;
}

static bool scratch_sizes(const saf_attn_shape *shape, int64_t capacity, int64_t *partials,
                          size_t *part_floats) {
    int64_t group = saf_ceil_div(shape->heads, shape->kv_heads);
    int64_t rows = saf_i64_min(saf_i64_min(group, heads_of(shape->q)), SAF__ATTN_ROWS);
    if (!saf_i64_mul(rows, saf_ceil_div(capacity, SAF_KV_SEGMENT), partials)) return false;
    if (!saf_size_mul((size_t)*partials, (size_t)shape->head_width + 2, part_floats)) return false;
    *part_floats = (*part_floats + 31) & ~(size_t)31; /* whole pairs of cache lines */
    return true;
}

size_t saf_attn_scratch_bytes(const saf_attn_shape *shape, int64_t capacity) {
    int64_t partials;
    size_t bytes;
    if (!scratch_sizes(shape, capacity, &partials, &bytes) ||
        !saf_size_mul(bytes, sizeof(float) * (size_t)omp_get_max_threads(), &bytes))
        return SIZE_MAX;
    return bytes + sizeof(struct saf_attn_scratch);
}

saf_status saf_attn_scratch_new(const saf_attn_shape *shape, int64_t capacity,
                                saf_attn_scratch **out) {
    saf_status st = SAF_OK;
    saf_attn_scratch *s = NULL;
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->threads = omp_get_max_threads();
    if (!scratch_sizes(shape, capacity, &s->partials, &s->part_floats)) {
        st = saf_fail(SAF_NO_MEMORY, "attention over %lld positions is too large",
                      (long long)capacity);
        goto out;
    }
    SAF_TRY(saf_alloc(s->part_floats, sizeof(float) * (size_t)s->threads, &s->data));
    *out = s;
    s = NULL;
out:
    saf_attn_scratch_free(&s);
    return st;
}

void saf_attn_scratch_free(saf_attn_scratch **scratch) {
    if (!*scratch) return;
    saf_free(&(*scratch)->data);
    saf_free(scratch);
}

typedef struct {
    float *out, *max, *sum;
} attn_part;

static attn_part part_of(const saf_attn_scratch *s, int64_t thread, int64_t head_width) {
    float *base = s->data + (size_t)thread * s->part_floats;
    float *max = base + s->partials * head_width;
    return (attn_part){base, max, max + s->partials};
}

/* ---- items ---- */

typedef struct {
    const saf_attn_seq *seqs;
    const float *q;
    float *out;
    saf_attn_scratch *scratch; /* NULL where nothing may be cut */
    saf_attn_shape shape;
    saf_kv_type type;
    float scale;
    int64_t n_seqs, head_width, ldq, ldo;
    int64_t total, me, team; /* length of the line */
    int64_t item_rows;       /* the most of an item */
} attn_call;

/* Rows [i0, i0 + rows) of the heads [h0, h0 + group), counted token by token. h0 counts from the
 * first query head that is here, g from the first key head. */
typedef struct {
    int64_t seq, g, h0, group, i0, rows, limit; /* limit: positions that the last row reads */
    int64_t segments, start, length;            /* on the line */
} attn_item;

static void measure(const attn_call *a, attn_item *it) {
    /* A position costs its rows' arithmetic and once what eight rows cost: it must come in. */
    enum { READ_COST = 8 };
    const saf_attn_seq *seq = &a->seqs[it->seq];
    it->rows = saf_i64_min(seq->tokens * it->group - it->i0, a->item_rows);
    it->limit = seq->pos0 + (it->i0 + it->rows - 1) / it->group + 1;
    it->segments = saf_ceil_div(it->limit, SAF_KV_SEGMENT);
    it->length = it->limit * (it->rows + READ_COST);
}

/* The query heads of key head g; a part of a model's heads may begin and end in the middle. */
static void first_of_head(const attn_call *a, attn_item *it) {
    const saf_attn_shape *s = &a->shape;
    int64_t g = s->kv.begin + it->g;
    int64_t begin = saf_i64_max(saf_ceil_div(g * s->heads, s->kv_heads), s->q.begin);
    int64_t end = saf_i64_min(saf_ceil_div((g + 1) * s->heads, s->kv_heads), s->q.end);
    it->h0 = begin - s->q.begin;
    it->group = saf_i64_max(end - begin, 0);
    it->i0 = 0;
}

/* Goes to the next item; from {.seq = -1}, to the first. False at the end. */
static bool next_item(const attn_call *a, attn_item *it) {
    if (it->seq < 0) {
        it->seq = it->g = 0;
        first_of_head(a, it);
    } else {
        it->i0 += it->rows;
        it->start += it->length;
    }
    while (it->seq < a->n_seqs && it->i0 >= a->seqs[it->seq].tokens * it->group) {
        if (++it->g >= heads_of(a->shape.kv)) {
            it->g = 0;
            it->seq++;
        }
        first_of_head(a, it);
    }
    if (it->seq >= a->n_seqs) return false;
    measure(a, it);
    return true;
}

/* The more rows an item has, the less of its time goes into bringing in keys and values; but every
 * thread is to have several, or the longest one makes the others wait. */
static int64_t item_rows_of(const attn_call *a) {
    enum { STEP = 12, LEAST = 2 * STEP, ITEMS = 6 };
    int64_t group = saf_ceil_div(a->shape.heads, a->shape.kv_heads);
    int64_t rows = 0, least = saf_i64_max(group, LEAST);
    for (int64_t i = 0; i < a->n_seqs; i++) rows += a->seqs[i].tokens;
    rows = rows * heads_of(a->shape.q) / (a->team * ITEMS) / STEP * STEP;
    return saf_i64_min(saf_i64_max(rows, least), SAF__ATTN_ROWS);
}

/* How many of the item's segments come before the part of thread t. */
static int64_t segments_before(const attn_call *a, const attn_item *it, int64_t t) {
    int64_t share = a->total / a->team;
    int64_t at = a->total / a->team * t + a->total % a->team * t / a->team - it->start;
    if (at <= 0) return 0;
    if (at >= it->length) return it->segments;
    bool whole = !a->scratch || a->team > a->scratch->threads ||
                 it->rows * it->segments > a->scratch->partials;
    if (whole) return at > it->length / 2 ? it->segments : 0;
    if (at < share / 16) return 0; /* would gain less than a cut costs */
    if (it->length - at < share / 16) return it->segments;
    return (at * it->segments + it->length / 2) / it->length;
}

static void gather_rows(const attn_call *a, const attn_item *it, saf__attn_rows *rows) {
    const saf_attn_seq *seq = &a->seqs[it->seq];
    rows->rows = (int)it->rows;
    for (int i = 0; i < rows->rows; i++) {
        int64_t t = (it->i0 + i) / it->group;
        int64_t at = (it->h0 + (it->i0 + i) % it->group) * a->head_width;
        rows->q[i] = a->q + (seq->row0 + t) * a->ldq + at;
        rows->out[i] = a->out + (seq->row0 + t) * a->ldo + at;
        rows->limit[i] = seq->pos0 + t + 1;
    }
}

/* The segments [s0, s1), s0 > 0, each into its own place of this thread's part. */
static void leave_partials(const attn_call *a, const saf__kv_head *head, saf__attn_rows *rows,
                           int64_t s0, int64_t s1) {
    attn_part part = part_of(a->scratch, a->me, a->head_width);
    for (int64_t s = s0; s < s1; s++) {
        int64_t at = (s - s0) * rows->rows;
        for (int i = 0; i < rows->rows; i++) rows->out[i] = part.out + (at + i) * a->head_width;
        saf__kernels_get()->attend(head, rows, s, s + 1);
        memcpy(part.max + at, rows->max, (size_t)rows->rows * sizeof(float));
        memcpy(part.sum + at, rows->sum, (size_t)rows->rows * sizeof(float));
    }
}

static void fold_in(saf__attn_rows *rows, int i, int64_t width, float max, float sum,
                    const float *o) {
    float *restrict out = rows->out[i];
    float merged = max > rows->max[i] ? max : rows->max[i];
    float old_factor = saf__expf(rows->max[i] - merged), new_factor = saf__expf(max - merged);
    rows->sum[i] = __builtin_fmaf(rows->sum[i], old_factor, sum * new_factor);
    rows->max[i] = merged;
    for (int64_t c = 0; c < width; c++)
        out[c] = __builtin_fmaf(out[c], old_factor, o[c] * new_factor);
}

/* What later threads left of an item whose first segments are in `rows`. */
static void fold_partials(const attn_call *a, const attn_item *it, saf__attn_rows *rows) {
    for (int64_t t = a->me + 1; t < a->team; t++) {
        int64_t s0 = segments_before(a, it, t), s1 = segments_before(a, it, t + 1);
        attn_part part = part_of(a->scratch, t, a->head_width);
        for (int64_t s = s0; s < s1; s++)
            for (int i = 0; i < rows->rows; i++) {
                int64_t at = (s - s0) * rows->rows + i;
                if (rows->limit[i] > s * SAF_KV_SEGMENT)
                    fold_in(rows, i, a->head_width, part.max[at], part.sum[at],
                            part.out + at * a->head_width);
            }
        if (s1 == it->segments) return;
    }
}

static void divide(const attn_call *a, const saf__attn_rows *rows, int n, float *const *out) {
    for (int i = 0; i < n; i++)
        for (int64_t c = 0; c < a->head_width; c++) out[i][c] = rows->out[i][c] / rows->sum[i];
}

/* An item that no other thread has a part of. Its rows' sums lie side by side until they are
 * complete: the rows of `out` are far apart, and would meet in the same places of the cache. */
static void attend_whole(const attn_call *a, const saf__kv_head *head, saf__attn_rows *rows,
                         int64_t segments) {
    float sums[SAF__ATTN_ROWS * SAF_MAX_HEAD_WIDTH], *out[SAF__ATTN_ROWS];
    const int n = rows->rows;
    for (int i = 0; i < n; i++) {
        out[i] = rows->out[i];
        rows->out[i] = sums + i * a->head_width;
    }
    saf__kernels_get()->attend(head, rows, 0, segments);
    divide(a, rows, n, out);
}

/* Whether a cut falls inside the item. *t, the first thread whose part may begin in it, moves on
 * with the items. */
static bool is_cut(const attn_call *a, const attn_item *it, int64_t *t) {
    for (; *t < a->team; ++*t) {
        int64_t before = segments_before(a, it, *t);
        if (before == it->segments) return false; /* lies behind the item */
        if (before > 0) return true;
    }
    return false;
}

static saf__kv_head head_of(const attn_call *a, const attn_item *it) {
    const saf_attn_seq *seq = &a->seqs[it->seq];
    return (saf__kv_head){
        .type = a->type,
        .k = saf__kv_head_at(seq->k, a->type, it->g, a->head_width),
        .v = saf__kv_head_at(seq->v, a->type, it->g, a->head_width),
        .stride = seq->stride,
        .head_width = a->head_width,
        .scale = a->scale,
        .in_order = saf__kernels_get()->in_order,
    };
}

void saf_attention(const saf_attn_shape *shape, saf_kv_type type, const saf_attn_seq *seqs,
                   int64_t n_seqs, float scale, const float *q, int64_t ldq, float *out,
                   int64_t ldo, saf_attn_scratch *scratch) {
    assert(shape->head_width <= SAF_MAX_HEAD_WIDTH);
    attn_call a = {.seqs = seqs,
                   .q = q,
                   .out = out,
                   .scratch = scratch,
                   .shape = *shape,
                   .type = type,
                   .scale = scale,
                   .n_seqs = n_seqs,
                   .head_width = shape->head_width,
                   .ldq = ldq,
                   .ldo = ldo,
                   .me = omp_get_thread_num(),
                   .team = omp_get_num_threads()};
    a.item_rows = item_rows_of(&a);
    attn_item it = {.seq = -1}, mine = it;
    saf__attn_rows rows, cut_rows; /* cut_rows: of the item whose end others have */
    bool any_cut = false;
    int64_t t = 1;
    while (next_item(&a, &it)) a.total += it.length;
    for (it = mine; next_item(&a, &it);) {
        any_cut = any_cut || is_cut(&a, &it, &t);
        int64_t s0 = segments_before(&a, &it, a.me), s1 = segments_before(&a, &it, a.me + 1);
        if (s0 == s1) continue;
        const saf__kv_head head = head_of(&a, &it);
        bool cut = s0 == 0 && s1 < it.segments;
        saf__attn_rows *r = cut ? &cut_rows : &rows;
        gather_rows(&a, &it, r);
        if (s0 > 0) {
            leave_partials(&a, &head, r, s0, s1);
        } else if (cut) {
            saf__kernels_get()->attend(&head, r, 0, s1);
            mine = it;
        } else {
            attend_whole(&a, &head, r, s1);
        }
    }
#pragma omp barrier
    if (!any_cut) return;
    if (mine.seq >= 0) {
        fold_partials(&a, &mine, &cut_rows);
        divide(&a, &cut_rows, cut_rows.rows, cut_rows.out);
    }
#pragma omp barrier
}
