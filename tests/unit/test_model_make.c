/* Models with synthetic weights: readable in every type, of the wanted spread, the same bytes for
 * any number of threads, and calm activations through many layers. */
#include <math.h>
#include <omp.h>
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

static char folder[] = "/tmp/saf-make-XXXXXX";
static char path[64], other[64];

static const saf_dtype types[] = {SAF_DTYPE_F32,  SAF_DTYPE_F16,  SAF_DTYPE_BF16, SAF_DTYPE_Q8_0,
                                  SAF_DTYPE_Q4_0, SAF_DTYPE_Q4_1, SAF_DTYPE_Q5_0, SAF_DTYPE_Q5_1,
                                  SAF_DTYPE_Q2_K, SAF_DTYPE_Q3_K, SAF_DTYPE_Q4_K, SAF_DTYPE_Q5_K,
                                  SAF_DTYPE_Q6_K};
enum { TYPES = sizeof types / sizeof types[0] };

static saf_model_make_options small(const char *arch, saf_dtype dtype) {
    return (saf_model_make_options){.arch = arch,
                                    .layers = 2,
                                    .width = 256,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_width = 64,
                                    .ff_width = 512,
                                    .dtype = dtype,
                                    .seed = 1};
}

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    snprintf(other, sizeof other, "%s/n.gguf", folder);
    return saf_kernels_init(NULL) != SAF_OK;
}

static int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void open_model(const char *file, saf_gguf **g, saf_model_params *p) {
    OK(saf_gguf_open(file, g));
    OK(saf_model_params_read(*g, p));
}

/* Mean and deviation of a matrix in units of 1 / sqrt(K), by the kernels' own decoder. */
static void measure(const saf_gguf *g, const char *name, double *mean, double *deviation,
                    double *largest_row) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    saf_weight w;
    void *raw = NULL;
    float *row = NULL;
    double sum = 0, squares = 0;
    assert_non_null(t);
    int64_t cols = t->shape[0], rows = t->shape[1];
    OK(saf_alloc(t->bytes, 1, &raw));
    OK(saf_alloc((size_t)cols, sizeof *row, &row));
    OK(saf_gguf_tensor_read(g, t, 0, t->bytes, raw));
    OK(saf_weight_plan(t->dtype, rows, cols, &w));
    OK(saf_alloc(w.bytes, 1, &w.data));
    saf_weight_pack(&w, 0, rows, raw);
    *largest_row = 0;
    for (int64_t r = 0; r < rows; r++) {
        double of_row = 0;
        saf_weight_row(&w, r, row);
        for (int64_t k = 0; k < cols; k++) {
            assert_true(isfinite(row[k]));
            of_row += (double)row[k];
            squares += (double)row[k] * (double)row[k];
        }
        sum += of_row;
        if (fabs(of_row) > *largest_row) *largest_row = fabs(of_row);
    }
    double n = (double)(rows * cols), unit = sqrt((double)cols);
    *mean = sum / n * unit;
    *deviation = sqrt(squares / n - sum / n * (sum / n)) * unit;
    saf_free(&raw);
    saf_free(&row);
    saf_free(&w.data);
}

static void test_model_make_every_type_and_architecture(void **state) {
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    (void)state;
    for (int a = 0; a < 3; a++) {
        for (int t = 0; t < TYPES; t++) {
            saf_model_make_options o = small(archs[a], types[t]);
            saf_gguf *g = NULL;
            saf_model_params p = {0};
            double mean, deviation, largest;
            o.tied = t % 2 == 1;
            OK(saf_model_make(path, &o));
            open_model(path, &g, &p);
            assert_string_equal(saf_arch_name(p.arch), archs[a]);
            assert_true(p.layers == 2 && p.width == 256 && p.heads == 4 && p.kv_heads == 2);
            assert_true(p.head_width == 64 && p.ff_width == 512 && p.vocab == 257);
            assert_int_equal(p.context, 4096);
            assert_int_equal(p.tied, o.tied);
            assert_int_equal(p.qkv_bias, a == 1);
            assert_int_equal(p.qk_norm, a == 2);
            const saf_gguf_tensor *m = saf_gguf_tensor_find(g, "blk.1.ffn_down.weight");
            assert_int_equal(m->dtype, types[t]);
            measure(g, m->name, &mean, &deviation, &largest);
            if (fabs(mean) > 0.02 || fabs(deviation - 1) > 0.02)
                fail_msg("%s: mean %g, deviation %g", saf_dtype_name(types[t]), mean, deviation);
            /* no row leans: 512 independent values sum to less than 6 deviations of the sum */
            if (largest > 6) fail_msg("%s: a row sums to %g", saf_dtype_name(types[t]), largest);
            saf_model_params_free(&p);
            saf_gguf_close(&g);
        }
    }
}

static void test_model_make_norms_are_about_one(void **state) {
    saf_model_make_options o = small("qwen3", SAF_DTYPE_Q8_0);
    saf_gguf *g = NULL;
    float norm[256];
    double sum = 0;
    (void)state;
    OK(saf_model_make(path, &o));
    OK(saf_gguf_open(path, &g));
    OK(saf_gguf_tensor_read(g, saf_gguf_tensor_find(g, "blk.0.ffn_norm.weight"), 0, sizeof norm,
                            norm));
    for (int i = 0; i < 256; i++) {
        assert_true(norm[i] > 0.7f && norm[i] < 1.3f);
        sum += (double)norm[i];
    }
    assert_true(fabs(sum / 256 - 1) < 0.02);
    assert_true(norm[0] != norm[1]);
    saf_gguf_close(&g);
}

static void same_bytes(bool expected) {
    saf_buf a = {0}, b = {0};
    OK(saf_file_read(path, 1 << 26, &a));
    OK(saf_file_read(other, 1 << 26, &b));
    assert_int_equal(a.len, b.len);
    assert_int_equal(memcmp(a.data, b.data, a.len) == 0, expected);
    saf_buf_free(&a);
    saf_buf_free(&b);
}

static void test_model_make_same_bytes_on_any_threads(void **state) {
    int threads = omp_get_max_threads();
    (void)state;
    for (int t = 0; t < TYPES; t++) {
        saf_model_make_options o = small("qwen2", types[t]);
        omp_set_num_threads(1);
        OK(saf_model_make(path, &o));
        omp_set_num_threads(3);
        OK(saf_model_make(other, &o));
        same_bytes(true);
    }
    omp_set_num_threads(threads);
    saf_model_make_options o = small("qwen2", SAF_DTYPE_Q4_K);
    OK(saf_model_make(path, &o));
    o.seed = 2;
    OK(saf_model_make(other, &o));
    same_bytes(false);
}

/* A tensor larger than one piece of work has no seams: its values are those of a smaller one. */
static void test_model_make_pieces_join(void **state) {
    saf_model_make_options o = small("llama", SAF_DTYPE_Q8_0);
    saf_gguf *g = NULL;
    double mean, deviation, largest;
    (void)state;
    o.layers = 1;
    o.ff_width = 16384; /* 4 M elements: two pieces of 2 M */
    OK(saf_model_make(path, &o));
    OK(saf_gguf_open(path, &g));
    measure(g, "blk.0.ffn_up.weight", &mean, &deviation, &largest);
    assert_true(fabs(mean) < 0.005 && fabs(deviation - 1) < 0.005);
    saf_gguf_close(&g);
}

static void test_model_make_falls_back(void **state) {
    saf_model_make_options o = small("llama", SAF_DTYPE_Q4_K);
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    (void)state;
    o.width = 96;
    o.head_width = 10;
    o.ff_width = 256;
    OK(saf_model_make(path, &o));
    open_model(path, &g, &p);
    assert_int_equal(saf_gguf_tensor_find(g, "token_embd.weight")->dtype, SAF_DTYPE_Q8_0);
    assert_int_equal(saf_gguf_tensor_find(g, "blk.0.attn_output.weight")->dtype, SAF_DTYPE_F16);
    assert_int_equal(saf_gguf_tensor_find(g, "blk.0.ffn_down.weight")->dtype, SAF_DTYPE_Q4_K);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
}

static void test_model_make_built_in_vocabulary(void **state) {
    saf_model_make_options o = small("qwen3", SAF_DTYPE_Q8_0);
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    saf_tokenizer *t = NULL;
    saf_ids ids = {0};
    saf_buf text = {0};
    char bytes[512];
    int n = 0;
    (void)state;
    o.vocab_size = 1000;
    OK(saf_model_make(path, &o));
    open_model(path, &g, &p);
    assert_int_equal(p.vocab, 1000);
    OK(saf_tokenizer_new(g, &t));
    assert_int_equal(saf_tokenizer_vocab(t), 1000);
    assert_int_equal(saf_tokenizer_eos(t), 256);
    assert_true(saf_tokenizer_is_end(t, 256));
    /* every character below U+0800 that UTF-8 makes of two bytes, and ASCII: id = byte */
    for (uint32_t c = 1; c < 0x800 && n < 500; c += 7) n += saf_utf8_encode(c, bytes + n);
    OK(saf_tokenizer_encode(t, bytes, (size_t)n, true, false, &ids));
    assert_int_equal(ids.len, n);
    for (int i = 0; i < n; i++) assert_int_equal(ids.data[i], (uint8_t)bytes[i]);
    OK(saf_tokenizer_decode(t, ids.data, ids.len, false, &text));
    assert_true(text.len == (size_t)n && memcmp(text.data, bytes, text.len) == 0);
    saf_buf_free(&text);
    saf_ids_free(&ids);
    saf_tokenizer_free(&t);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
}

static void test_model_make_copies_and_pads_a_vocabulary(void **state) {
    const char *vocab = "../shared/vocab/llama-spm.gguf";
    saf_model_make_options o = small("llama", SAF_DTYPE_Q4_0);
    saf_gguf *g = NULL, *from = NULL;
    saf_model_params p = {0};
    saf_tokenizer *t = NULL;
    const char *text, *original;
    size_t len, original_len;
    (void)state;
    if (access(vocab, R_OK)) {
        print_message("# no %s on this machine\n", vocab);
        skip();
    }
    o.vocab_path = vocab;
    o.vocab_size = 32100;
    OK(saf_model_make(path, &o));
    open_model(path, &g, &p);
    assert_int_equal(p.vocab, 32100);
    OK(saf_tokenizer_new(g, &t));
    assert_int_equal(saf_tokenizer_vocab(t), 32100);
    OK(saf_gguf_open(vocab, &from));
    for (int64_t i = 0; i < 32000; i += 17) {
        saf_gguf_array_string(g, "tokenizer.ggml.tokens", i, &text, &len);
        saf_gguf_array_string(from, "tokenizer.ggml.tokens", i, &original, &original_len);
        assert_true(len == original_len && memcmp(text, original, len) == 0);
        assert_true(saf_gguf_array_f64(g, "tokenizer.ggml.scores", i) ==
                    saf_gguf_array_f64(from, "tokenizer.ggml.scores", i));
        assert_int_equal(saf_gguf_array_i64(g, "tokenizer.ggml.token_type", i),
                         saf_gguf_array_i64(from, "tokenizer.ggml.token_type", i));
    }
    assert_int_equal(saf_gguf_array_i64(g, "tokenizer.ggml.token_type", 32099), 5);
    saf_gguf_array_string(g, "tokenizer.ggml.tokens", 32099, &text, &len);
    assert_true(len == 10 && memcmp(text, "[PAD32099]", 10) == 0);
    saf_gguf_close(&from);
    saf_tokenizer_free(&t);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
    o.vocab_size = 31999;
    assert_int_equal(saf_model_make(other, &o), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "32000 tokens, more than the 31999"));
}

static void test_model_make_refusals(void **state) {
    static const struct {
        const char *message;
        saf_status status;
        saf_model_make_options o;
    } table[] = {
#define SHAPE(l, d, h, hkv, c, f) \
    .layers = l, .width = d, .heads = h, .kv_heads = hkv, .head_width = c, .ff_width = f
        {"\"mamba\" is not one of", SAF_USAGE, {.arch = "mamba", SHAPE(1, 64, 4, 2, 16, 64)}},
        {"number of layers is 0", SAF_USAGE, {.arch = "llama", SHAPE(0, 64, 4, 2, 16, 64)}},
        {"the width is 0", SAF_USAGE, {.arch = "llama", SHAPE(1, 0, 4, 2, 16, 64)}},
        {"number of heads is 0", SAF_USAGE, {.arch = "llama", SHAPE(1, 64, 0, 2, 16, 64)}},
        {"key-value heads is 8, expected 1 to 4",
         SAF_USAGE,
         {.arch = "llama", SHAPE(1, 64, 4, 8, 16, 64)}},
        {"a multiple of the key-value heads",
         SAF_USAGE,
         {.arch = "llama", SHAPE(1, 64, 4, 3, 16, 64)}},
        {"the width must be even", SAF_USAGE, {.arch = "llama", SHAPE(1, 64, 4, 2, 15, 64)}},
        {"the head width is 1024", SAF_USAGE, {.arch = "llama", SHAPE(1, 64, 4, 2, 1024, 64)}},
        {"feed-forward width is -1", SAF_USAGE, {.arch = "llama", SHAPE(1, 64, 4, 2, 16, -1)}},
        {"type I32",
         SAF_USAGE,
         {.arch = "llama", SHAPE(1, 64, 4, 2, 16, 64), .dtype = SAF_DTYPE_I32}},
        {"256 is too small",
         SAF_USAGE,
         {.arch = "llama", SHAPE(1, 64, 4, 2, 16, 64), .vocab_size = 256}},
        {"no/such/vocab.gguf",
         SAF_NO_INPUT,
         {.arch = "llama", SHAPE(1, 64, 4, 2, 16, 64), .vocab_path = "no/such/vocab.gguf"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        saf_status st = saf_model_make(other, &table[i].o);
        if (st != table[i].status || !strstr(saf_error_text(), table[i].message))
            fail_msg("status %d, message \"%s\", expected \"%s\"", st, saf_error_text(),
                     table[i].message);
    }
    saf_model_make_options o = small("llama", SAF_DTYPE_Q8_0);
    assert_int_equal(saf_model_make("/no/such/folder/m.gguf", &o), SAF_CANNOT_CREATE);
    char part[80];
    snprintf(part, sizeof part, "%s.part", other);
    assert_int_equal(access(part, F_OK), -1);
}

/* 30 layers: the activations that leave the last one, and the logits, are neither tiny nor huge. */
static void test_model_make_activations_stay_moderate(void **state) {
    enum { T = 6, LAYERS = 30 };
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    int threads = omp_get_max_threads();
    (void)state;
    omp_set_num_threads(1); /* tiny products: on a busy machine threads only wait for each other */
    for (int a = 0; a < 3; a++) {
        saf_model_make_options o = small(archs[a], a == 1 ? SAF_DTYPE_Q4_K : SAF_DTYPE_Q8_0);
        saf_gguf *g = NULL;
        saf_model_params p = {0};
        saf_slice *slice = NULL;
        saf_kv_cache *kv = NULL;
        saf_stage *stage = NULL;
        static float x[T * 256], logits[T * 257];
        const int32_t ids[T] = {72, 101, 108, 108, 111, 33};
        const saf_run run = {0, 0, T, T};
        const saf_batch batch = {1, T, &run, ids};
        saf_fault fault;
        bool finite[T];
        double acts = 0, out = 0;
        o.layers = LAYERS;
        OK(saf_model_make(path, &o));
        open_model(path, &g, &p);
        const saf_slice_range all = saf_slice_range_whole(&p, 0, LAYERS, true, true);
        OK(saf_slice_load(g, &p, all, &slice));
        OK(saf_kv_cache_new(&p, all, SAF_KV_F16, 1, SAF_KV_SEGMENT, &kv));
        OK(saf_stage_new(&p, slice, kv, (saf_stage_room){T, 1, T, 0}, NULL, &stage));
        OK(saf_stage_forward(stage, &batch, x, &fault));
        assert_int_equal(fault.run, -1);
        OK(saf_stage_logits(stage, 0, T, logits, finite));
        for (int i = 0; i < T * 256; i++) acts += (double)x[i] * (double)x[i];
        for (int i = 0; i < T * 257; i++) out += (double)logits[i] * (double)logits[i];
        acts = sqrt(acts / (T * 256));
        out = sqrt(out / (T * 257));
        if (!(acts > 0.3 && acts < 30 && out > 0.5 && out < 2))
            fail_msg("%s: activations %g, logits %g", archs[a], acts, out);
        saf_stage_free(&stage);
        saf_kv_cache_free(&kv);
        saf_slice_free(&slice);
        saf_model_params_free(&p);
        saf_gguf_close(&g);
    }
    omp_set_num_threads(threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_make_every_type_and_architecture),
        cmocka_unit_test(test_model_make_norms_are_about_one),
        cmocka_unit_test(test_model_make_same_bytes_on_any_threads),
        cmocka_unit_test(test_model_make_pieces_join),
        cmocka_unit_test(test_model_make_falls_back),
        cmocka_unit_test(test_model_make_built_in_vocabulary),
        cmocka_unit_test(test_model_make_copies_and_pads_a_vocabulary),
        cmocka_unit_test(test_model_make_refusals),
        cmocka_unit_test(test_model_make_activations_stay_moderate),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
