/* What a key-value cache holds, taken out as rows and put into another: by the definition of each
 * type, bit for bit, and the next tokens are those of the cache that it comes from. */
#include "unit/kernel_util.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "saf/kernel_kv.h"
#include "saf/model.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

enum { TOKENS = 600, KV_TYPES = SAF_KV_Q8_0 + 1 };

/* ---- rows by the definition of the types ---- */

typedef struct {
    saf_kv_type type;
    int64_t kv_heads, width;
    size_t stride;
    char *k, *v;
} cache;

static cache new_cache(saf_kv_type type, int64_t kv_heads, int64_t width, size_t gap) {
    cache c = {.type = type, .kv_heads = kv_heads, .width = width};
    c.stride = saf_kv_bytes(type, SAF_KV_SEGMENT, kv_heads, width) + gap;
    size_t bytes = c.stride * (size_t)saf_ceil_div(TOKENS, SAF_KV_SEGMENT);
    c.k = util_new(bytes);
    c.v = util_new(bytes);
    memset(c.k, 0, bytes);
    memset(c.v, 0, bytes);
    return c;
}

static size_t cache_bytes(const cache *c) {
    return c->stride * (size_t)saf_ceil_div(TOKENS, SAF_KV_SEGMENT);
}

static void free_cache(cache *c) {
    saf_free(&c->k);
    saf_free(&c->v);
}

static saf_kv_part part_of(const cache *c, bool keys, int64_t head) {
    return (saf_kv_part){c->type, keys, keys ? c->k : c->v, c->stride, c->width, head};
}

/* Keys and values [TOKENS, kv_heads * width], kept as they are. */
static void fill(cache *c, const float *k, const float *v) {
    static const saf_attn_heads as_they_are;
    int64_t ld = c->kv_heads * c->width;
    size_t bytes = (size_t)(TOKENS * ld) * sizeof *k;
    const saf_attn_shape shape = {c->kv_heads, c->kv_heads, c->width, {0, 0}, {0, c->kv_heads}};
    const saf_attn_seq seq = {c->k, c->v, c->stride, 0, TOKENS, 0};
    float *own_k = util_new(bytes), *own_v = util_new(bytes);
    memcpy(own_k, k, bytes);
    memcpy(own_v, v, bytes);
    saf_attn_store(&as_they_are, &shape, c->type, &seq, 1, NULL, 0, own_k, own_v, ld);
    saf_free(&own_k);
    saf_free(&own_v);
}

/* One row against the values that it was made of. */
static void check_row(saf_kv_type type, int64_t width, const char *row, const float *x) {
    int64_t blocks = saf_ceil_div(width, 32);
    for (int64_t c = 0; c < width; c++) {
        if (type == SAF_KV_F32) {
            assert_memory_equal(row + 4 * c, &x[c], 4);
        } else if (type == SAF_KV_F16) {
            uint16_t half = saf_f16_from_f32(x[c]);
            assert_memory_equal(row + 2 * c, &half, 2);
        } else {
            int64_t b = c / 32;
            float scale, amax = 0;
            memcpy(&scale, row + 4 * b, 4);
            for (int64_t i = 32 * b; i < 32 * b + 32 && i < width; i++)
                amax = fmaxf(amax, fabsf(x[i]));
            assert_true(scale == amax / 127);
            assert_int_equal((int8_t)row[4 * blocks + c], (int)nearbyintf(x[c] * (127 / amax)));
        }
    }
}

static void check_rows(saf_kv_type type, int64_t kv_heads, int64_t width) {
    int64_t n = TOKENS * kv_heads * width;
    float *x[2] = {util_new((size_t)n * 4), util_new((size_t)n * 4)};
    cache whole = new_cache(type, kv_heads, width, 48), copy = new_cache(type, kv_heads, width, 48);
    cache other = new_cache(type, 1, width, 0);
    size_t row = saf_kv_bytes(type, 1, 1, width);
    char *rows = util_new(row * TOKENS), *again = util_new(row * TOKENS);
    for (int i = 0; i < 2; i++) util_fill(x[i], n, 1);
    fill(&whole, x[0], x[1]);
    for (int i = 0; i < 2; i++)
        for (int64_t g = 0; g < kv_heads; g++) {
            saf_kv_part from = part_of(&whole, i == 0, g), to = part_of(&copy, i == 0, g);
            saf_kv_part alone = part_of(&other, i == 0, 0);
            saf_kv_rows_get(&from, 0, TOKENS, rows);
            for (int64_t t = 0; t < TOKENS; t++)
                check_row(type, width, rows + (size_t)t * row, x[i] + (t * kv_heads + g) * width);
            /* In pieces that are no multiples of anything, into the same place and another one. */
            for (int64_t at = 0, some = 1; at < TOKENS; at += some, some = some % 41 + 7) {
                int64_t m = saf_i64_min(some, TOKENS - at);
                saf_kv_rows_put(&to, at, m, rows + (size_t)at * row);
                saf_kv_rows_put(&alone, at, m, rows + (size_t)at * row);
                saf_kv_rows_get(&alone, at, m, again + (size_t)at * row);
            }
            assert_memory_equal(rows, again, row * TOKENS);
        }
    assert_memory_equal(whole.k, copy.k, cache_bytes(&whole));
    assert_memory_equal(whole.v, copy.v, cache_bytes(&whole));
    saf_free(&rows);
    saf_free(&again);
    saf_free(&x[0]);
    saf_free(&x[1]);
    free_cache(&whole);
    free_cache(&copy);
    free_cache(&other);
}

static void test_kv_rows_are_what_the_types_say(void **state) {
    static const int64_t widths[] = {1, 20, 32, 64, 72, 128};
    (void)state;
    for (int type = 0; type < KV_TYPES; type++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
            check_rows((saf_kv_type)type, 1 + (int64_t)i % 3, widths[i]);
}

/* ---- caches of a model ---- */

static char path[] = "/tmp/saf-kv-rows-XXXXXX";
static saf_gguf *g;
static saf_model_params p;

static int make_model(void **state) {
    const saf_model_make_options o = {.arch = "qwen3",
                                      .layers = 3,
                                      .width = 128,
                                      .heads = 8,
                                      .kv_heads = 4,
                                      .head_width = 40,
                                      .ff_width = 224,
                                      .vocab_size = 300,
                                      .dtype = SAF_DTYPE_Q8_0,
                                      .seed = 9};
    int fd = mkstemp(path);
    (void)state;
    if (fd < 0 || close(fd) != 0 || saf_kernels_init(NULL) != SAF_OK) return -1;
    return saf_model_make(path, &o) != SAF_OK || saf_gguf_open(path, &g) != SAF_OK ||
           saf_model_params_read(g, &p) != SAF_OK;
}

static int remove_model(void **state) {
    (void)state;
    saf_model_params_free(&p);
    saf_gguf_close(&g);
    return unlink(path);
}

/* Some layers with a cache of their own. */
typedef struct {
    saf_slice *slice;
    saf_kv_cache *kv;
    saf_stage *stage;
} piece;

static piece new_piece(int64_t layer0, int64_t layer1, saf_kv_type type, int64_t slots,
                       int64_t capacity) {
    piece r = {0};
    bool last = layer1 == p.layers;
    saf_slice_range range = saf_slice_range_whole(&p, layer0, layer1, layer0 == 0, last);
    OK(saf_slice_load(g, &p, range, &r.slice));
    OK(saf_kv_cache_new(&p, range, type, slots, capacity, &r.kv));
    OK(saf_stage_new(&p, r.slice, r.kv, (saf_stage_room){TOKENS, 1, last, 0}, NULL, &r.stage));
    return r;
}

static void free_piece(piece *r) {
    saf_stage_free(&r->stage);
    saf_kv_cache_free(&r->kv);
    saf_slice_free(&r->slice);
}

/* Tokens at [pos0, pos0 + n) of a slot through all pieces; logits of the last one. */
static void pass(piece *pieces, int n_pieces, int32_t slot, int32_t pos0, int32_t n,
                 float *logits) {
    int32_t ids[TOKENS];
    float *x = util_new((size_t)(n * p.width) * sizeof *x);
    saf_fault fault = {-1, -1, -1};
    bool finite = true;
    const saf_run run = {slot, pos0, n, 1};
    const saf_batch batch = {1, n, &run, ids};
    for (int32_t i = 0; i < n; i++) ids[i] = (pos0 + i) * 31 % 300;
    for (int i = 0; i < n_pieces; i++) OK(saf_stage_forward(pieces[i].stage, &batch, x, &fault));
    OK(saf_stage_logits(pieces[n_pieces - 1].stage, 0, 1, logits, &finite));
    assert_true(finite && fault.run < 0);
    saf_free(&x);
}

/* All of a slot into slot 1 of caches that share the layers otherwise. */
static void carry(const piece *from, int64_t from_slot, piece *to, int64_t split, int64_t n) {
    size_t row = saf_kv_cache_row_bytes(from->kv);
    char *rows = util_new(row * (size_t)n);
    for (int64_t layer = 0; layer < p.layers; layer++)
        for (int64_t head = 0; head < p.kv_heads; head++)
            for (int keys = 0; keys < 2; keys++) {
                saf_kv_rows which = {from_slot, layer, head, keys, 0, n};
                saf_kv_cache *into = to[layer >= split].kv;
                OK(saf_kv_cache_get(from->kv, &which, rows));
                assert_int_equal(saf_kv_cache_row_bytes(into), row);
                which.slot = 1;
                OK(saf_kv_cache_put(into, &which, rows));
            }
    saf_free(&rows);
}

static void test_kv_cache_goes_on_elsewhere(void **state) {
    enum { PROMPT = 270 };
    (void)state;
    for (int type = 0; type < KV_TYPES; type++) {
        piece one = new_piece(0, p.layers, (saf_kv_type)type, 3, TOKENS);
        piece two[2] = {new_piece(0, 1, (saf_kv_type)type, 2, PROMPT + 8),
                        new_piece(1, p.layers, (saf_kv_type)type, 4, 2 * TOKENS)};
        float *expected = util_new((size_t)p.vocab * 4), *got = util_new((size_t)p.vocab * 4);
        pass(&one, 1, 2, 0, PROMPT, expected);
        carry(&one, 2, two, 1, PROMPT);
        for (int32_t pos = PROMPT; pos < PROMPT + 6; pos += 3) {
            pass(&one, 1, 2, pos, 3, expected);
            pass(two, 2, 1, pos, 3, got);
            assert_memory_equal(expected, got, (size_t)p.vocab * 4);
        }
        saf_free(&expected);
        saf_free(&got);
        free_piece(&one);
        free_piece(&two[0]);
        free_piece(&two[1]);
    }
}

static int64_t page_faults(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt;
}

/* Page faults of writing all that a cache holds. */
static int64_t faults_of_writing(bool touched) {
    enum { SLOTS = 3, POSITIONS = 40 * SAF_KV_SEGMENT };
    saf_kv_cache *kv = NULL;
    saf_slice_range range = saf_slice_range_whole(&p, 0, p.layers, false, false);
    OK(saf_kv_cache_new(&p, range, SAF_KV_F32, SLOTS, POSITIONS, &kv));
    char *rows = util_new(saf_kv_cache_row_bytes(kv) * POSITIONS);
    memset(rows, 0, saf_kv_cache_row_bytes(kv) * POSITIONS);
    if (touched) saf_kv_cache_touch(kv, SLOTS + 1, POSITIONS + 1); /* more than there are */
    int64_t before = page_faults();
    for (int64_t slot = 0; slot < SLOTS; slot++)
        for (int64_t layer = 0; layer < p.layers; layer++)
            for (int64_t head = 0; head < p.kv_heads; head++)
                for (int keys = 0; keys < 2; keys++) {
                    const saf_kv_rows all = {slot, layer, head, keys, 0, POSITIONS};
                    OK(saf_kv_cache_put(kv, &all, rows));
                }
    int64_t faults = page_faults() - before;
    saf_free(&rows);
    saf_kv_cache_free(&kv);
    return faults;
}

static void test_kv_cache_takes_its_memory_when_told(void **state) {
    (void)state;
    int64_t otherwise = faults_of_writing(false), touched = faults_of_writing(true);
    assert_true(otherwise >= 3); /* one a slot, with the largest pages */
    assert_true(touched < otherwise / 2);
}

static void test_kv_cache_of_some_heads_and_layers(void **state) {
    (void)state;
    saf_kv_cache *kv = NULL;
    saf_slice_range range = saf_slice_range_whole(&p, 1, 3, false, false);
    range.heads = (saf_span){3, 6}; /* of 8 that read 4: key heads 1 and 2 */
    OK(saf_kv_cache_new(&p, range, SAF_KV_F16, 2, SAF_KV_SEGMENT + 1, &kv));
    int64_t capacity = 2 * SAF_KV_SEGMENT; /* whole segments */
    char *rows = util_new(saf_kv_cache_row_bytes(kv) * (size_t)capacity);
    memset(rows, 0, saf_kv_cache_row_bytes(kv) * (size_t)capacity);
    const saf_kv_rows good[] = {{0, 1, 1, true, 0, capacity},
                                {1, 2, 2, false, capacity - 1, 1},
                                {1, 2, 2, false, capacity, 0}};
    const saf_kv_rows bad[] = {
        {-1, 1, 1, true, 0, 1},
        {2, 1, 1, true, 0, 1},
        {0, 0, 1, true, 0, 1},
        {0, 3, 1, true, 0, 1},
        {0, 1, 0, true, 0, 1},
        {0, 1, 3, true, 0, 1},
        {0, 1, 1, true, -1, 1},
        {0, 1, 1, true, 0, -1},
        {0, 1, 1, true, 0, capacity + 1},
        {0, 1, 1, true, capacity, 1},
        {0, 1, 1, true, INT64_MAX, 1},
        {0, 1, 1, true, 1, INT64_MAX},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        OK(saf_kv_cache_put(kv, &good[i], rows));
        OK(saf_kv_cache_get(kv, &good[i], rows));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(saf_kv_cache_put(kv, &bad[i], rows), SAF_DEFECT);
        assert_int_equal(saf_kv_cache_get(kv, &bad[i], rows), SAF_DEFECT);
    }
    saf_free(&rows);
    saf_kv_cache_free(&kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_rows_are_what_the_types_say),
        cmocka_unit_test(test_kv_cache_goes_on_elsewhere),
        cmocka_unit_test(test_kv_cache_takes_its_memory_when_told),
        cmocka_unit_test(test_kv_cache_of_some_heads_and_layers),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
