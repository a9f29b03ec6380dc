/* The key-value cache and attention: against a softmax in double precision, and equal bits for
 * every set of kernels, number of threads and way of cutting a sequence into calls. */
#include "unit/kernel_util.h"

enum { MOST_THREADS = 7, KV_TYPES = SAF_KV_Q8_0 + 1 };

/* A rounded value: scale * code; f16 and f32 have scale 1. */
typedef struct {
    float scale, code;
} cell;

/* Keys and values into the cache as they are. */
static void store(saf_kv_type type, const saf_attn_seq *seqs, int64_t n_seqs, int64_t kv_heads,
                  int64_t width, float *k, float *v, int64_t ld) {
    static const saf_attn_heads as_they_are;
    const saf_attn_shape shape = {kv_heads, kv_heads, width, {0, 0}, {0, kv_heads}};
    saf_attn_store(&as_they_are, &shape, type, seqs, n_seqs, NULL, 0, k, v, ld);
}

/* Every value of x[n, width], by the cache's definition. */
static void round_rows(saf_kv_type type, const float *x, int64_t n, int64_t width, cell *out) {
    for (int64_t i = 0; i < n * width; i++) {
        out[i] = (cell){1, type == SAF_KV_F16 ? saf_f32_from_f16(saf_f16_from_f32(x[i])) : x[i]};
        if (type != SAF_KV_Q8_0) continue;
        int64_t first = i - i % width % 32, end = first - first % width + width;
        float amax = 0;
        bool finite = true;
        for (int64_t j = first; j < first + 32 && j < end; j++) {
            amax = fmaxf(amax, fabsf(x[j]));
            finite = finite && isfinite(x[j]);
        }
        out[i] = (cell){amax / 127, nearbyintf(x[i] * (127 / amax))};
        if (amax < ldexpf(1, -100)) out[i] = (cell){0, 0};
        if (!finite) out[i] = (cell){NAN, 0};
    }
}

typedef struct {
    saf_kv_type type;
    int64_t heads, kv_heads, width, tokens, capacity;
    saf_attn_shape shape;
    size_t stride, bytes; /* of the segments, which have gaps between them; of keys or values */
    float *q, *k, *v;     /* [tokens, heads * width], [tokens, kv_heads * width] */
    cell *rk, *rv;        /* of the shape of k and v: what the cache holds of them */
    void *cache_k, *cache_v;
    saf_attn_scratch *scratch;
} setup;

static void round_setup(setup *s) {
    round_rows(s->type, s->k, s->tokens * s->kv_heads, s->width, s->rk);
    round_rows(s->type, s->v, s->tokens * s->kv_heads, s->width, s->rv);
}

static setup new_setup(saf_kv_type type, int64_t heads, int64_t kv_heads, int64_t width,
                       int64_t tokens) {
    setup s = {.type = type,
               .heads = heads,
               .kv_heads = kv_heads,
               .width = width,
               .tokens = tokens,
               .capacity = saf_round_up(tokens, SAF_KV_SEGMENT),
               .shape = saf_attn_shape_whole(heads, kv_heads, width)};
    s.q = util_new((size_t)(tokens * heads * width) * 4);
    s.k = util_new((size_t)(tokens * kv_heads * width) * 4);
    s.v = util_new((size_t)(tokens * kv_heads * width) * 4);
    util_fill(s.q, tokens * heads * width, 1.5f);
    util_fill(s.k, tokens * kv_heads * width, 1);
    util_fill(s.v, tokens * kv_heads * width, 1);
    s.stride = saf_kv_bytes(type, SAF_KV_SEGMENT, kv_heads, width) + 48;
    s.bytes = s.stride * (size_t)(s.capacity / SAF_KV_SEGMENT);
    s.rk = util_new((size_t)(tokens * kv_heads * width) * sizeof *s.rk);
    s.rv = util_new((size_t)(tokens * kv_heads * width) * sizeof *s.rv);
    round_setup(&s);
    s.cache_k = util_new(s.bytes);
    s.cache_v = util_new(s.bytes);
    omp_set_num_threads(MOST_THREADS);
    assert_int_equal(saf_attn_scratch_new(&s.shape, s.capacity, &s.scratch), SAF_OK);
    return s;
}
static void free_setup(setup *s) {
    saf_attn_scratch_free(&s->scratch);
    saf_free(&s->q);
    saf_free(&s->k);
    saf_free(&s->v);
    saf_free(&s->rk);
    saf_free(&s->rv);
    saf_free(&s->cache_k);
    saf_free(&s->cache_v);
}

/* Runs the whole sequence in calls of `chunk` tokens; out[tokens, heads * width]. What no
 * position wrote is NaN: reading it would show. */
static void run(setup *s, int64_t chunk, int threads, float *out) {
    int64_t ldq = s->heads * s->width, ldk = s->kv_heads * s->width;
    float scale = 1 / sqrtf((float)s->width);
    memset(s->cache_k, 0xFF, s->bytes);
    memset(s->cache_v, 0xFF, s->bytes);
    for (int64_t p = 0; p < s->tokens; p += chunk) {
        saf_attn_seq seq = {s->cache_k, s->cache_v, s->stride, p, saf_i64_min(chunk, s->tokens - p),
                            0};
#pragma omp parallel num_threads(threads)
        {
            store(s->type, &seq, 1, s->kv_heads, s->width, s->k + p * ldk, s->v + p * ldk, ldk);
            saf_attention(&s->shape, s->type, &seq, 1, scale, s->q + p * ldq, ldq, out + p * ldq,
                          ldq, s->scratch);
        }
    }
}

static double value_of(cell x) {
    return (double)x.scale * (double)x.code;
}

static double dot(const setup *s, int64_t t, int64_t h, int64_t p, int64_t g) {
    double sum = 0;
    for (int64_t c = 0; c < s->width; c++)
        sum += (double)s->q[(t * s->heads + h) * s->width + c] *
               value_of(s->rk[(p * s->kv_heads + g) * s->width + c]);
    return sum / sqrt((double)s->width);
}

/* Largest difference from the exact softmax over all rows of a few tokens. */
static double error_of(const setup *s, const float *out) {
    double worst = 0, *weight = util_new((size_t)s->tokens * sizeof *weight);
    for (int64_t t = 0; t < s->tokens; t += t < 3 ? 1 : s->tokens / 9 + 1) {
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t g = h * s->kv_heads / s->heads;
            double max = -INFINITY, sum = 0;
            for (int64_t p = 0; p <= t; p++) max = fmax(max, weight[p] = dot(s, t, h, p, g));
            for (int64_t p = 0; p <= t; p++) sum += weight[p] = exp(weight[p] - max);
            for (int64_t c = 0; c < s->width; c++) {
                double want = 0;
                for (int64_t p = 0; p <= t; p++)
                    want += weight[p] / sum * value_of(s->rv[(p * s->kv_heads + g) * s->width + c]);
                worst = fmax(worst, fabs(want - (double)out[(t * s->heads + h) * s->width + c]));
            }
        }
    }
    saf_free(&weight);
    return worst;
}

static void test_attention_is_a_softmax_for_every_cut(void **state) {
    (void)state;
    static const struct {
        int64_t heads, kv_heads, width, tokens;
    } shapes[] = {{4, 2, 32, 300},  {8, 1, 16, 40}, {3, 3, 8, 270},  {5, 2, 20, 60},
                  {6, 2, 128, 530}, {2, 1, 64, 1},  {9, 1, 96, 257}, {1, 1, 512, 20},
                  {2, 1, 48, 780},  {100, 1, 8, 40}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int type = 0; type < KV_TYPES; type++) {
            setup s = new_setup((saf_kv_type)type, shapes[i].heads, shapes[i].kv_heads,
                                shapes[i].width, shapes[i].tokens);
            size_t bytes = (size_t)(s.tokens * s.heads * s.width) * 4;
            float *first = util_new(bytes), *out = util_new(bytes);
            for (int set = 0; set < KERNEL_NAMES; set++) {
                static const int64_t chunks[] = {1000, 64, 7, 1, 1};
                if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
                for (int c = 0; c < 5; c++) {
                    if (set == 0 && c > 0 && s.width * s.tokens > 5000) continue; /* slow */
                    saf__kernels_read_in_order(c % 2);
                    run(&s, chunks[c], 1 + (c + set) % 3, set + c ? out : first);
                    if (set + c) assert_memory_equal(first, out, bytes);
                }
            }
            assert_true(error_of(&s, first) < 1e-5);
            saf_free(&first);
            saf_free(&out);
            free_setup(&s);
        }
    }
}

/* One token after contexts of up to six segments, on teams that cut the heads' segments in many
 * ways, with scratch memory and without. */
static void test_attention_shares_a_long_sequence(void **state) {
    (void)state;
    static const struct {
        int64_t heads, kv_heads, tokens, chunk;
    } shapes[] = {{1, 1, 1500, 1}, {4, 2, 1300, 1}, {6, 3, 770, 1},  {5, 2, 1025, 1},
                  {2, 2, 1400, 3}, {40, 1, 600, 1}, {100, 1, 520, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        setup s = new_setup(SAF_KV_F16, shapes[i].heads, shapes[i].kv_heads, 24, shapes[i].tokens);
        int64_t ld = s.heads * s.width;
        float *want = util_new((size_t)(s.tokens * ld) * 4), *out = util_new((size_t)ld * 4 * 3);
        assert_int_equal(saf_kernels_init(NULL), SAF_OK);
        run(&s, 64, 1, want);
        for (int set = 0; set < KERNEL_NAMES; set++) {
            if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
            for (int threads = 1; threads <= MOST_THREADS + 1; threads++)
                for (int64_t p = s.tokens - shapes[i].chunk; p > 2; p -= 130) {
                    saf_attn_seq seq = {s.cache_k, s.cache_v, s.stride, p, shapes[i].chunk, 0};
                    const float *q = s.q + p * ld;
#pragma omp parallel num_threads(threads)
                    saf_attention(&s.shape, s.type, &seq, 1, 1 / sqrtf((float)s.width), q, ld, out,
                                  ld, p % 260 < 130 ? s.scratch : NULL);
                    assert_memory_equal(want + p * ld, out, (size_t)(seq.tokens * ld) * 4);
                }
        }
        saf_free(&want);
        saf_free(&out);
        free_setup(&s);
    }
}

/* The query heads [h0, h1), in work alone with the key heads that they read: out[tokens, width of
 * these heads]. The whole sequence, and then its last token again, whose keys are shared out. */
static void run_part(const setup *s, int64_t h0, int64_t h1, int threads, float *out) {
    const saf_attn_heads as_they_are = {0};
    saf_attn_shape part = s->shape;
    part.q = (saf_span){h0, h1};
    part.kv = (saf_span){h0 * s->kv_heads / s->heads, (h1 - 1) * s->kv_heads / s->heads + 1};
    if (h0 == h1) part.kv = (saf_span){h0 * s->kv_heads / s->heads, h0 * s->kv_heads / s->heads};
    int64_t n_kv = part.kv.end - part.kv.begin, ld = s->heads * s->width,
            ldo = (h1 - h0) * s->width;
    size_t stride = saf_kv_bytes(s->type, SAF_KV_SEGMENT, n_kv, s->width);
    char *cache_k = util_new(stride * (size_t)(s->capacity / SAF_KV_SEGMENT) + 1);
    char *cache_v = util_new(stride * (size_t)(s->capacity / SAF_KV_SEGMENT) + 1);
    const saf_attn_seq all = {cache_k, cache_v, stride, 0, s->tokens, 0};
    const saf_attn_seq last = {cache_k, cache_v, stride, s->tokens - 1, 1, s->tokens - 1};
    saf_attn_scratch *scratch = NULL;
    float *q = util_new((size_t)(s->tokens * ld) * 4), scale = 1 / sqrtf((float)s->width);
    memcpy(q, s->q, (size_t)(s->tokens * ld) * 4);
    assert_int_equal(saf_attn_scratch_new(&part, s->capacity, &scratch), SAF_OK);
#pragma omp parallel num_threads(threads)
    {
        saf_attn_store(&as_they_are, &part, s->type, &all, 1, q + h0 * s->width, ld,
                       s->k + part.kv.begin * s->width, s->v + part.kv.begin * s->width,
                       s->kv_heads * s->width);
        saf_attention(&part, s->type, &all, 1, scale, q + h0 * s->width, ld, out, ldo, scratch);
        saf_attention(&part, s->type, &last, 1, scale, q + h0 * s->width, ld, out, ldo, scratch);
    }
    saf_attn_scratch_free(&scratch);
    saf_free(&q);
    saf_free(&cache_k);
    saf_free(&cache_v);
}

/* Every part of a model's heads, in the middle of a group of them or not, gives what all heads
 * together give. */
static void test_attention_of_some_heads(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{8, 2}, {6, 6}, {5, 2}, {7, 1}, {9, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t H = shapes[i][0], width = 24;
        setup s = new_setup((saf_kv_type)(i % KV_TYPES), H, shapes[i][1], width, 530);
        float *want = util_new((size_t)(s.tokens * H * width) * 4);
        float *out = util_new((size_t)(s.tokens * H * width) * 4);
        assert_int_equal(saf_kernels_init(NULL), SAF_OK);
        run(&s, 1000, 1, want);
        for (int64_t h0 = 0; h0 <= H; h0++)
            for (int64_t h1 = h0; h1 <= H; h1++) {
                int64_t n = (h1 - h0) * width;
                memset(out, 0xFF, (size_t)(s.tokens * n) * 4);
                run_part(&s, h0, h1, 1 + (int)(h0 + h1) % 3, out);
                for (int64_t t = 0; t < s.tokens; t++)
                    assert_memory_equal(want + (t * H + h0) * width, out + t * n, (size_t)n * 4);
            }
        saf_free(&want);
        saf_free(&out);
        free_setup(&s);
    }
}

/* The rule of the header, step by step, for one row. */
static void rule(const setup *s, int64_t t, int64_t h, float *out) {
    int64_t g = h * s->kv_heads / s->heads, block = s->type == SAF_KV_Q8_0 ? 32 : 1;
    const float *q = s->q + (t * s->heads + h) * s->width;
    float scale = 1 / sqrtf((float)s->width), M = 0, S = 0, score[SAF_KV_SEGMENT];
    for (int64_t p0 = 0; p0 <= t; p0 += SAF_KV_SEGMENT) {
        int64_t n = saf_i64_min(SAF_KV_SEGMENT, t + 1 - p0);
        float m = -INFINITY, lane[16] = {0};
        for (int64_t p = 0; p < n; p++) {
            const cell *k = s->rk + ((p0 + p) * s->kv_heads + g) * s->width;
            float d = 0;
            for (int64_t c0 = 0; c0 < s->width; c0 += block) {
                float sum = block == 1 ? d : 0; /* a block of one is one fma into the whole */
                for (int64_t c = c0; c < c0 + block && c < s->width; c++)
                    sum = fmaf(q[c], k[c].code, sum);
                d = block == 1 ? sum : fmaf(k[c0].scale, sum, d);
            }
            score[p] = d * scale;
            m = fmaxf(m, score[p]);
        }
        for (int64_t p = 0; p < n; p++) lane[p % 16] += score[p] = saf_math_expf(score[p] - m);
        for (int half = 8; half; half /= 2)
            for (int j = 0; j < half; j++) lane[j] += lane[j + half];
        float merged = p0 == 0 || m > M ? m : M;
        float a = saf_math_expf(M - merged), b = saf_math_expf(m - merged);
        for (int64_t c = 0; c < s->width; c++) {
            float o = 0;
            for (int64_t p = 0; p < n; p++) {
                cell v = s->rv[((p0 + p) * s->kv_heads + g) * s->width + c];
                o = fmaf(score[p] * v.scale, v.code, o);
            }
            out[c] = p0 == 0 ? o : fmaf(out[c], a, o * b);
        }
        S = p0 == 0 ? lane[0] : fmaf(S, a, lane[0] * b);
        M = merged;
    }
    for (int64_t c = 0; c < s->width; c++) out[c] = out[c] / S;
}

static void test_attention_follows_the_rule(void **state) {
    (void)state;
    float want[40];
    for (int type = 0; type < KV_TYPES; type++) {
        setup s = new_setup((saf_kv_type)type, 6, 3, 40, 600);
        float *out = util_new((size_t)(s.tokens * s.heads * s.width) * 4);
        assert_int_equal(saf_kernels_init(NULL), SAF_OK);
        run(&s, 600, 2, out);
        for (int64_t t = 0; t < s.tokens; t += 1 + t / 3)
            for (int64_t h = 0; h < s.heads; h++) {
                rule(&s, t, h, want);
                assert_memory_equal(want, out + (t * s.heads + h) * s.width, sizeof want);
            }
        saf_free(&out);
        free_setup(&s);
    }
}

/* Blocks of 32 of every unpleasant kind, at random. */
static void fill_adversarial(float *x, int64_t n, int64_t width) {
    for (int64_t i = 0; i < n * width; i += saf_i64_min(32, width - i % width)) {
        int64_t end = i + saf_i64_min(32, width - i % width);
        int kind = util_below(9);
        for (int64_t j = i; j < end; j++) {
            float normal = util_normal();
            x[j] = kind == 0   ? util_below(2) ? 0.0f : -0.0f
                   : kind == 1 ? normal * 1e-32f                       /* below the cut-off */
                   : kind == 2 ? normal * 1e-40f                       /* denormal */
                   : kind == 3 ? normal * 1e28f                        /* large */
                   : kind == 4 ? (float)(util_below(509) - 254) * 0.5f /* halves to round */
                   : kind == 5 ? normal * 1e-3f /* small beside a spike, below */
                   : kind == 6 ? ldexpf(util_below(2) ? 1 : -1, -100 - util_below(2))
                               : normal;
        }
        if (kind == 4) x[i] = 127;
        if (kind == 5) x[end - 1] = -1e3f;
    }
}

static void test_attention_of_rounded_extremes(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 17, 32, 40, 63, 96, 128, 200};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        setup s = new_setup(SAF_KV_Q8_0, 3, 2, widths[i], 280);
        int64_t ld = s.heads * s.width;
        fill_adversarial(s.k, s.tokens * s.kv_heads, s.width);
        fill_adversarial(s.v, s.tokens * s.kv_heads, s.width);
        round_setup(&s);
        float *want = util_new((size_t)(s.tokens * ld) * 4);
        float *out = util_new((size_t)(s.tokens * ld) * 4);
        for (int64_t t = 0; t < s.tokens; t += 1 + t / 9)
            for (int64_t h = 0; h < s.heads; h++) rule(&s, t, h, want + t * ld + h * s.width);
        for (int set = 0; set < KERNEL_NAMES; set++) {
            if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
            run(&s, set ? 100 : 280, 2, out);
            for (int64_t t = 0; t < s.tokens; t += 1 + t / 9)
                assert_memory_equal(want + t * ld, out + t * ld, (size_t)ld * 4);
        }
        for (int64_t j = 0; j < s.tokens * ld; j++) assert_true(isfinite(out[j]));
        saf_free(&want);
        saf_free(&out);
        free_setup(&s);
    }
}

static void test_attention_takes_several_sequences_at_once(void **state) {
    (void)state;
    enum { SEQS = 3, HEADS = 4, KV_HEADS = 2, WIDTH = 24 };
    static const int64_t tokens[SEQS] = {1, 300, 17};
    assert_int_equal(saf_kernels_init(NULL), SAF_OK);
    setup s[SEQS];
    saf_attn_seq seqs[SEQS];
    int64_t total = 0;
    for (int i = 0; i < SEQS; i++) {
        s[i] = new_setup(SAF_KV_F16, HEADS, KV_HEADS, WIDTH, tokens[i]);
        seqs[i] = (saf_attn_seq){s[i].cache_k, s[i].cache_v, s[i].stride, 0, tokens[i], total};
        total += tokens[i];
    }
    int64_t ldq = HEADS * WIDTH + 8, ldk = KV_HEADS * WIDTH + 4;
    float *q = util_new((size_t)(total * ldq) * 4), *out = util_new((size_t)(total * ldq) * 4);
    float *k = util_new((size_t)(total * ldk) * 4), *v = util_new((size_t)(total * ldk) * 4);
    for (int i = 0; i < SEQS; i++)
        for (int64_t t = 0; t < tokens[i]; t++) {
            int64_t row = seqs[i].row0 + t;
            memcpy(q + row * ldq, s[i].q + t * HEADS * WIDTH, HEADS * WIDTH * 4);
            memcpy(k + row * ldk, s[i].k + t * KV_HEADS * WIDTH, KV_HEADS * WIDTH * 4);
            memcpy(v + row * ldk, s[i].v + t * KV_HEADS * WIDTH, KV_HEADS * WIDTH * 4);
        }
    saf_attn_scratch *scratch = s[1].scratch; /* the longest */
#pragma omp parallel num_threads(3)
    {
        store(SAF_KV_F16, seqs, SEQS, KV_HEADS, WIDTH, k, v, ldk);
        saf_attention(&s[1].shape, SAF_KV_F16, seqs, SEQS, 1 / sqrtf(WIDTH), q, ldq, out, ldq,
                      scratch);
    }
    for (int i = 0; i < SEQS; i++) {
        float *alone = util_new((size_t)(tokens[i] * HEADS * WIDTH) * 4);
        run(&s[i], 50, 1, alone);
        for (int64_t t = 0; t < tokens[i]; t++)
            assert_memory_equal(alone + t * HEADS * WIDTH, out + (seqs[i].row0 + t) * ldq,
                                HEADS * WIDTH * 4);
        saf_free(&alone);
        free_setup(&s[i]);
    }
    saf_free(&q);
    saf_free(&k);
    saf_free(&v);
    saf_free(&out);
}

static void test_attention_of_a_broken_value_is_not_finite(void **state) {
    (void)state;
    for (int n = 0; n < KERNEL_NAMES * KV_TYPES; n++) {
        if (saf_kernels_init(kernel_names[n / KV_TYPES]) != SAF_OK) continue;
        setup s = new_setup((saf_kv_type)(n % KV_TYPES), 2, 1, 32, 300);
        float *out = util_new((size_t)(s.tokens * 64) * 4);
        s.q[10 * 64 + 32] = NAN;      /* token 10, head 1 */
        s.k[280 * 32 + 3] = INFINITY; /* seen by tokens 280 and later */
        run(&s, 300, 1, out);
        for (int64_t i = 0; i < s.tokens * 64; i++) {
            bool broken = (i / 64 == 10 && i % 64 >= 32) || i / 64 >= 280;
            /* where the infinite score is -inf, its weight is 0 and the row stays finite */
            float first = out[i / 32 * 32];
            assert_true(isfinite(out[i]) == isfinite(first));
            if (!broken) assert_true(isfinite(out[i]));
            if (i / 64 == 10 && i % 64 >= 32) assert_false(isfinite(out[i]));
            if (i / 64 >= 280 && s.q[i / 32 * 32 + 3] > 0) assert_false(isfinite(out[i]));
        }
        saf_free(&out);
        free_setup(&s);
    }
}

/* Whatever the cache holds: scores that overflow, values of any size, denormals, zeros. */
static void test_attention_every_set_agrees_on_hard_values(void **state) {
    (void)state;
    for (int round = 0; round < 12; round++) {
        bool broken = round % 3 == 2;
        setup s = new_setup(round % 2 ? SAF_KV_F32 : SAF_KV_F16, 3, 1, 8 + 12 * (round % 4),
                            round < 4 ? 290 : 40);
        size_t values = (size_t)(s.tokens * s.heads * s.width);
        float *want = util_new(values * 4), *got = util_new(values * 4);
        for (int64_t i = 0; i < s.tokens * s.width; i++) {
            if (util_below(20) == 0) s.k[i] = util_hard(broken);
            if (util_below(2) == 0) s.v[i] = util_hard(broken);
        }
        for (size_t i = 0; i < values; i++)
            if (util_below(20) == 0) s.q[i] = util_hard(false);
        for (int set = 0; set < KERNEL_NAMES; set++) {
            if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
            run(&s, round % 5 ? 7 : 1000, 2, set ? got : want);
            for (size_t i = 0; set && i < values; i++) {
                if (util_same(want[i], got[i])) continue;
                fail_msg("%s, round %d, token %d: %a, the reference says %a", saf_kernels_name(),
                         round, (int)((int64_t)i / (s.heads * s.width)), (double)got[i],
                         (double)want[i]);
            }
        }
        saf_free(&want);
        saf_free(&got);
        free_setup(&s);
    }
}

static void test_attention_cache_rounds_to_f16_in_its_layout(void **state) {
    (void)state;
    enum { WIDTH = 40, HEADS = 2, CAPACITY = 256, POSITION = 37, GAP = 16 };
    static uint16_t cache_k[2][CAPACITY * HEADS * WIDTH + GAP], cache_v[2][sizeof cache_k[0] / 2];
    const uint16_t *ck = cache_k[1], *cv = cache_v[1];
    float k[HEADS * WIDTH], v[HEADS * WIDTH];
    saf_attn_seq seq = {cache_k, cache_v, sizeof cache_k[0], CAPACITY + POSITION, 1, 0};
    assert_int_equal(saf_kv_bytes(SAF_KV_F16, CAPACITY, HEADS, WIDTH) + GAP * 2, sizeof cache_k[0]);
    assert_true(saf_kv_bytes(SAF_KV_F16, INT64_MAX, INT64_MAX, 2) == SIZE_MAX);
    for (int set = 0; set < KERNEL_NAMES; set++) {
        if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
        for (int round = 0; round < 200; round++) {
            for (int i = 0; i < HEADS * WIDTH; i++) { /* all bit patterns */
                k[i] = saf_f32_from_bits(util_u32());
                v[i] = util_normal() * ldexpf(1, -util_below(30));
            }
            store(SAF_KV_F16, &seq, 1, HEADS, WIDTH, k, v, HEADS * WIDTH);
            for (int g = 0; g < HEADS; g++)
                for (int c = 0; c < WIDTH; c++) {
                    int at = ((g * CAPACITY / 16 + POSITION / 16) * WIDTH + c) * 16 + POSITION % 16;
                    assert_int_equal(ck[at], saf_f16_from_f32(k[g * WIDTH + c]));
                    assert_int_equal(cv[(g * CAPACITY + POSITION) * WIDTH + c],
                                     saf_f16_from_f32(v[g * WIDTH + c]));
                }
        }
    }
}

static void test_attention_cache_keeps_codes_and_scales_in_groups(void **state) {
    (void)state;
    enum { WIDTH = 40, HEADS = 2, CAPACITY = 256, GROUP = 16 * (WIDTH + 4 * 2), POSITION = 37 };
    static char cache_k[2][CAPACITY * HEADS * GROUP / 16], cache_v[2][sizeof cache_k[0]];
    const char *ck = cache_k[1], *cv = cache_v[1];
    float k[HEADS * WIDTH], v[HEADS * WIDTH];
    cell rk[HEADS * WIDTH], rv[HEADS * WIDTH];
    saf_attn_seq seq = {cache_k, cache_v, sizeof cache_k[0], CAPACITY + POSITION, 1, 0};
    assert_int_equal(saf_kv_bytes(SAF_KV_Q8_0, CAPACITY, HEADS, WIDTH), sizeof cache_k[0]);
    assert_int_equal(saf_kv_bytes(SAF_KV_Q8_0, 4096, 8, 128), 4096 * 8 * 144);
    assert_true(saf_kv_bytes(SAF_KV_Q8_0, INT64_MAX / 2, 2, 1) == SIZE_MAX);
    for (int set = 0; set < KERNEL_NAMES; set++) {
        if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
        for (int round = 0; round < 300; round++) {
            fill_adversarial(k, HEADS, WIDTH);
            fill_adversarial(v, HEADS, WIDTH);
            if (round % 3 == 0) k[util_below(HEADS * WIDTH)] = INFINITY;
            if (round % 3 == 1) v[util_below(HEADS * WIDTH)] = NAN;
            round_rows(SAF_KV_Q8_0, k, HEADS, WIDTH, rk);
            round_rows(SAF_KV_Q8_0, v, HEADS, WIDTH, rv);
            store(SAF_KV_Q8_0, &seq, 1, HEADS, WIDTH, k, v, HEADS * WIDTH);
            for (int i = 0; i < HEADS * WIDTH; i++) {
                int g = i / WIDTH, c = i % WIDTH;
                int at = (g * CAPACITY + POSITION) / 16 * GROUP, lane = POSITION % 16;
                cell sk, sv;
                memcpy(&sk.scale, ck + at + (c / 32 * 16 + lane) * 4, 4);
                memcpy(&sv.scale, cv + at + (c / 32 * 16 + lane) * 4, 4);
                sk.code = (float)(signed char)ck[at + 2 * 64 + c * 16 + lane];
                sv.code = (float)(signed char)cv[at + 2 * 64 + lane * WIDTH + c];
                assert_true(sk.code == rk[i].code && sv.code == rv[i].code);
                assert_true(sk.scale == rk[i].scale || (isnan(sk.scale) && isnan(rk[i].scale)));
                assert_true(sv.scale == rv[i].scale || (isnan(sv.scale) && isnan(rv[i].scale)));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_is_a_softmax_for_every_cut),
        cmocka_unit_test(test_attention_shares_a_long_sequence),
        cmocka_unit_test(test_attention_of_some_heads),
        cmocka_unit_test(test_attention_follows_the_rule),
        cmocka_unit_test(test_attention_of_rounded_extremes),
        cmocka_unit_test(test_attention_takes_several_sequences_at_once),
        cmocka_unit_test(test_attention_of_a_broken_value_is_not_finite),
        cmocka_unit_test(test_attention_every_set_agrees_on_hard_values),
        cmocka_unit_test(test_attention_cache_rounds_to_f16_in_its_layout),
        cmocka_unit_test(test_attention_cache_keeps_codes_and_scales_in_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
