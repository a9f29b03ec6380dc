/* Suite comm: tensors of every type, of one to four dimensions, sent there and back, and compared
 * bit for bit with what was sent. Their bits are random: NaN of every kind is among them. */
#include <assert.h>
#include <stdio.h>

#include "job/bench/suites.h"

enum { ELEMENTS = 1 << 16, KEY = 6 };

typedef struct {
    saf__suites *w;
    int32_t a, b;
    char *out, *in;
    size_t room;     /* bytes of each */
    double *samples; /* [repeats], and whether all was right */
} tensors;

/* Dimensions before the last are small and odd. */
static saf_tensor shape_of(const tensors *t, saf_dtype dtype, int ndim) {
    static const int64_t lead[SAF_MAX_DIMS - 1] = {3, 5, 7};
    saf_tensor x = {.dtype = dtype, .ndim = ndim, .data = t->out};
    int64_t block = saf_dtype_block(dtype), rows = 1;
    assert(ndim >= 1 && ndim <= SAF_MAX_DIMS);
    int64_t blocks = saf_i64_min(ELEMENTS / block,
                                 t->w->s->job->bench.message_bytes / saf_dtype_block_bytes(dtype));
    for (int i = 0; i < ndim - 1; i++) rows *= x.shape[i] = lead[i];
    x.shape[ndim - 1] = saf_i64_max(1, blocks / rows) * block;
    return x;
}

static size_t bytes_of(const saf_tensor *x) {
    size_t bytes = 0;
    (void)saf_tensor_bytes(x, &bytes); /* of shapes made here */
    return bytes;
}

/* The other sends what it got, as it got it. */
static saf_status pass(const tensors *t, const saf_tensor *x, saf_tensor *back) {
    saf_status st = SAF_OK;
    const saf__session *s = t->w->s;
    *back = (saf_tensor){.dtype = x->dtype, .data = t->in};
    if (s->rank == t->a) SAF_TRY(saf_comm_send(s->world, t->b, SAF_TAG_BENCH, x));
    SAF_TRY(saf_comm_recv(s->world, s->rank == t->a ? t->b : t->a, SAF_TAG_BENCH, t->room, back));
    if (s->rank == t->b) SAF_TRY(saf_comm_send(s->world, t->a, SAF_TAG_BENCH, back));
out:
    return st;
}

static bool is_same(const saf_tensor *x, const saf_tensor *back) {
    return x->dtype == back->dtype && x->ndim == back->ndim &&
           memcmp(x->shape, back->shape, (size_t)x->ndim * sizeof *x->shape) == 0 &&
           memcmp(x->data, back->data, bytes_of(x)) == 0;
}

static saf_status measure(const tensors *t, const saf_tensor *x) {
    saf_status st = SAF_OK;
    saf_tensor back;
    size_t bytes = bytes_of(x);
    uint64_t counter = (uint64_t)x->dtype * SAF_MAX_DIMS + (uint64_t)x->ndim;
    int32_t rounds = saf__suite_rounds((int64_t)bytes), repeats = t->w->repeats;
    for (size_t i = 0; i < bytes; i += 4 * sizeof(uint32_t)) {
        uint32_t bits[4];
        saf_philox(KEY, counter, i, bits);
        memcpy(t->out + i, bits, bytes - i < sizeof bits ? bytes - i : sizeof bits);
    }
    memset(t->in, 0, bytes);
    SAF_TRY(pass(t, x, &back));
    t->samples[repeats] = is_same(x, &back);
    for (int32_t i = 0; i < repeats; i++) {
        double start = saf_clock_s();
        for (int32_t r = 0; r < rounds; r++) SAF_TRY(pass(t, x, &back));
        t->samples[i] = (saf_clock_s() - start) / (2 * rounds);
    }
    if (!is_same(x, &back)) t->samples[repeats] = 0;
out:
    return st;
}

static saf_status add_row(const tensors *t, const saf_tensor *x) {
    saf__figures f;
    int32_t repeats = t->w->repeats;
    int64_t bytes = (int64_t)bytes_of(x);
    saf_status st = saf__suite_figures(t->samples, repeats, (double)bytes, &f);
    if (st != SAF_OK) return st;
    saf_suite_tensor row = {.rank_a = t->a,
                            .rank_b = t->b,
                            .ndim = x->ndim,
                            .bytes = bytes,
                            .same = t->samples[repeats] > 0,
                            .repeats = repeats,
                            .rounds = saf__suite_rounds(bytes),
                            .seconds = f.seconds,
                            .seconds_min = f.seconds_min,
                            .seconds_max = f.seconds_max,
                            .bytes_per_s = f.rate,
                            .bytes_per_s_min = f.rate_min,
                            .bytes_per_s_max = f.rate_max};
    snprintf(row.dtype, sizeof row.dtype, "%s", saf_dtype_name(x->dtype));
    for (int i = 0; i < x->ndim; i++) {
        size_t n = strlen(row.shape);
        snprintf(row.shape + n, sizeof row.shape - n, i ? "x%lld" : "%lld", (long long)x->shape[i]);
    }
    if (!row.same)
        return saf_fail(SAF_FAILED, "suite comm: a tensor %s [%s] came back from rank %d changed",
                        row.dtype, row.shape, t->b);
    return saf__suite_row(t->w, SAF_SUITE_TENSORS, &row);
}

static saf_status run_tensor(const tensors *t, saf_dtype dtype, int ndim) {
    saf_status st = SAF_OK;
    const saf__session *s = t->w->s;
    saf_tensor x = shape_of(t, dtype, ndim);
    if (s->rank == t->a || s->rank == t->b) saf__suite_end_apart(t->w, measure(t, &x));
    saf_tensor all = saf_tensor_1d(SAF_DTYPE_F64, t->samples, t->w->repeats + 1);
    SAF_TRY(saf_comm_bcast(s->world, t->a, &all));
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? add_row(t, &x) : SAF_OK));
out:
    return st;
}

saf_status saf__suite_tensors(saf__suites *w) {
    saf_status st = SAF_OK;
    tensors t = {.w = w, .a = w->ends[0]};
    for (int d = 0; d < SAF_DTYPE_COUNT; d++)
        for (int ndim = 1; ndim <= SAF_MAX_DIMS; ndim++) {
            saf_tensor x = shape_of(&t, (saf_dtype)d, ndim);
            size_t bytes = bytes_of(&x);
            t.room = bytes > t.room ? bytes : t.room;
        }
    st = saf_alloc(t.room, 1, &t.out);
    if (st == SAF_OK) st = saf_alloc(t.room, 1, &t.in);
    if (st == SAF_OK) st = saf_alloc((size_t)w->repeats + 1, sizeof *t.samples, &t.samples);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    for (int32_t i = 1; i < w->n_ends; i++)
        for (int d = 0; d < SAF_DTYPE_COUNT; d++)
            for (int ndim = 1; ndim <= SAF_MAX_DIMS; ndim++) {
                t.b = w->ends[i];
                SAF_TRY(run_tensor(&t, (saf_dtype)d, ndim));
            }
out:
    saf_free(&t.out);
    saf_free(&t.in);
    saf_free(&t.samples);
    return st;
}
