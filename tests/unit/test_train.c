/* What can be trained and how: tensors against those of a model file, settings, the schedule, the
 * first parameters, the tree of partial sums. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mpi/train_fixture.h"
#include "train/train.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

/* ---- shapes ---------------------------------------------------------------------------------- */

/* Names, shapes and order are those of `saf model make`. */
static void check_tensors(const char *arch, saf_train_shape shape) {
    char path[] = "/tmp/saf-train-XXXXXX";
    saf_gguf *g = NULL;
    saf_train_tensor *tensors = NULL;
    int64_t n = 0, at = 0;
    saf_model_make_options o = {.arch = arch,
                                .layers = shape.layers,
                                .width = shape.width,
                                .heads = shape.heads,
                                .kv_heads = shape.kv_heads,
                                .head_width = shape.head_width,
                                .ff_width = shape.ff_width,
                                .vocab_size = shape.vocab,
                                .dtype = SAF_DTYPE_F32,
                                .tied = shape.tied,
                                .header_only = true};
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    OK(saf_model_make(path, &o));
    OK(saf_gguf_open(path, &g));
    OK(saf_train_tensors(&shape, &tensors, &n));
    assert_int_equal(n, saf_gguf_tensor_count(g));
    for (int64_t i = 0; i < n; i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        assert_string_equal(tensors[i].name, t->name);
        assert_int_equal(tensors[i].cols, t->shape[0]);
        assert_int_equal(tensors[i].rows, t->ndim > 1 ? t->shape[1] : 0);
        assert_int_equal(tensors[i].offset, at);
        assert_int_equal(tensors[i].count * 4, (int64_t)t->bytes);
        bool embedding = strcmp(t->name, "token_embd.weight") == 0;
        assert_int_equal(tensors[i].decay, t->ndim > 1 && !embedding);
        at += tensors[i].count;
    }
    assert_int_equal(at, saf_train_parameters(&shape));
    saf_free(&tensors);
    saf_gguf_close(&g);
    (void)unlink(path);
}

static void test_train_tensors_are_those_of_a_file(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        saf_train_shape s = train_fixture_shape(SAF_ARCH_LLAMA, tied, 8);
        s.vocab = 300; /* the 256 bytes and more */
        check_tensors("llama", s);
        s.arch = SAF_ARCH_QWEN3;
        check_tensors("qwen3", s);
    }
}

static void test_train_shape_refuses(void **state) {
    (void)state;
    const saf_train_shape good = train_fixture_shape(SAF_ARCH_LLAMA, true, 8);
    saf_train_shape bad[12];
    for (int i = 0; i < 12; i++) bad[i] = good;
    bad[0].arch = SAF_ARCH_QWEN2;
    bad[1].layers = 0;
    bad[2].width = -1;
    bad[3].heads = 3;
    bad[4].kv_heads = 5;
    bad[5].head_width = 5;
    bad[6].head_width = 514;
    bad[7].ff_width = INT64_MAX;
    bad[8].vocab = 1;
    bad[9].context = 0;
    bad[10].rope_base = NAN;
    bad[11].norm_eps = 0;
    OK(saf_train_shape_check(&good));
    for (int i = 0; i < 12; i++) assert_int_equal(saf_train_shape_check(&bad[i]), SAF_USAGE);
}

static void test_train_settings_refuse(void **state) {
    (void)state;
    const saf_train_settings good = train_fixture_settings(10);
    saf_train_settings bad[15];
    for (int i = 0; i < 15; i++) bad[i] = good;
    bad[0].micro_batches = 3;
    bad[1].micro_batches = 0;
    bad[2].micro_batches = INT64_MIN;
    bad[3].batch = 12;
    bad[4].batch = 0;
    bad[5].batch = INT64_MAX / 8 * 8;
    bad[6].learning_rate = -1;
    bad[7].learning_rate = NAN;
    bad[8].floor = 1.1;
    bad[9].beta1 = 1;
    bad[10].beta2 = -0.1;
    bad[11].epsilon = 0;
    bad[12].threads = 0;
    bad[13].steps = -1;
    bad[14].warmup = -1;
    OK(saf_train_settings_check(&good, 8));
    assert_int_equal(saf_train_settings_check(&good, 9), SAF_USAGE);
    for (int i = 0; i < 15; i++) assert_int_equal(saf_train_settings_check(&bad[i], 1), SAF_USAGE);
    const saf_train_shape shape = train_fixture_shape(SAF_ARCH_LLAMA, false, 256);
    saf_train_settings large = good;
    large.micro_batches = 1;
    large.batch = 1 << 16;
    OK(saf_train_check(&shape, &large, 1));
    large.batch++;
    assert_int_equal(saf_train_check(&shape, &large, 1), SAF_USAGE);
}

static void test_train_rate_follows_the_schedule(void **state) {
    (void)state;
    saf_train_settings s = saf_train_defaults();
    s.learning_rate = 2;
    s.floor = 0.25;
    s.warmup = 4;
    s.steps = 12;
    const double expected[] = {0.5, 1, 1.5, 2};
    for (int i = 0; i < 4; i++) assert_true(saf_train_rate(&s, i + 1) == expected[i]);
    for (int i = 5; i <= 12; i++)
        assert_true(fabs(saf_train_rate(&s, i) -
                         (1.25 + 0.75 * cos(3.14159265358979 * (i - 4) / 8))) < 1e-12);
    assert_true(saf_train_rate(&s, 12) == 0.5);
    s.warmup = 0;
    assert_true(saf_train_rate(&s, 1) < 2);
    s.warmup = 12;
    assert_true(saf_train_rate(&s, 12) == 2);
}

/* ---- the first parameters -------------------------------------------------------------------- */

static void test_train_draws_as_it_says(void **state) {
    (void)state;
    saf_train_shape shape = train_fixture_shape(SAF_ARCH_QWEN3, false, 8);
    saf_train_tensor *tensors = NULL;
    float *one = NULL, *two = NULL;
    int64_t n = 0;
    shape.width = 128;
    shape.vocab = 512;
    size_t values = (size_t)saf_train_parameters(&shape);
    OK(saf_train_tensors(&shape, &tensors, &n));
    OK(saf_alloc(values, sizeof *one, &one));
    OK(saf_alloc(values, sizeof *two, &two));
    saf__draw(tensors, n, shape.layers, 3, 1, one);
    saf__draw(tensors, n, shape.layers, 3, 2, two);
    assert_memory_equal(one, two, values * sizeof *one);
    for (int64_t i = 0; i < n; i++) {
        const saf_train_tensor *t = &tensors[i];
        double sum = 0, squares = 0, count = (double)t->count;
        for (int64_t j = 0; j < t->count; j++) {
            double v = (double)one[t->offset + j];
            assert_true(t->rows || v == 1);
            sum += v;
            squares += v * v;
        }
        double sd = strstr(t->name, "blk") ? 0.45 / sqrt((double)t->cols) : 0.02;
        if (strstr(t->name, "attn_output") || strstr(t->name, "ffn_down")) sd /= 2;
        if (!t->rows) continue;
        assert_true(fabs(sum / count) < 4 * sd / sqrt(count));
        assert_true(fabs(squares / count / (sd * sd) - 1) < 4 * sqrt(2 / count));
    }
    saf__draw(tensors, n, shape.layers, 4, 1, two);
    assert_true(memcmp(one, two, values * sizeof *one) != 0);
    saf_free(&tensors);
    saf_free(&one);
    saf_free(&two);
}

/* ---- the tree -------------------------------------------------------------------------------- */

/* Every range's nodes cover it once, as few as there can be, each as large as its place allows. */
static void test_train_nodes_cover_a_range(void **state) {
    (void)state;
    for (int64_t begin = 0; begin < 33; begin++)
        for (int64_t end = begin + 1; end <= 64; end++) {
            saf__node nodes[SAF__NODES];
            int most, n = saf__nodes_of((saf_span){begin, end}, nodes, &most);
            int64_t at = begin;
            for (int i = 0; i < n; i++) {
                int64_t size = (int64_t)1 << nodes[i].level, next = size * 2;
                assert_int_equal(nodes[i].index * size, at);
                assert_false(at % next == 0 && at + next <= end);
                at += size;
            }
            assert_int_equal(at, end);
            assert_true(most >= n && most <= 14);
        }
}

static void test_train_ranks_share_evenly(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 9; ranks++)
        for (int64_t n = 0; n < 70; n++) {
            int64_t at = 0;
            for (int r = 0; r < ranks; r++) {
                saf_span s = saf__rank_share(n, ranks, r);
                assert_int_equal(s.begin, at);
                assert_true(s.end - s.begin >= n / ranks && s.end - s.begin <= n / ranks + 1);
                at = s.end;
            }
            assert_int_equal(at, n);
        }
}

static void test_train_memory_is_counted(void **state) {
    (void)state;
    saf_train_shape shape = train_fixture_shape(SAF_ARCH_LLAMA, false, 8);
    saf_train_settings s = train_fixture_settings(10);
    shape.vocab = 100000;
    size_t values = (size_t)saf_train_parameters(&shape) * sizeof(float);
    size_t whole = saf_train_memory_bytes(&shape, &s, 1, 0);
    size_t two = saf_train_memory_bytes(&shape, &s, 2, 0);
    assert_true(whole > 7 * values && whole < 8 * values); /* p, m, v, four partial sums */
    assert_true(two < whole); /* one partial sum less, half is received */
    s.shard = true;
    assert_true(two - saf_train_memory_bytes(&shape, &s, 2, 0) > values * 9 / 10);
    s.batch = (int64_t)1 << 24;
    s.micro_batches = 1;
    shape.ff_width = shape.width = shape.context = 1 << 18;
    assert_true(saf_train_memory_bytes(&shape, &s, 1, 0) == SIZE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_tensors_are_those_of_a_file),
        cmocka_unit_test(test_train_shape_refuses),
        cmocka_unit_test(test_train_settings_refuse),
        cmocka_unit_test(test_train_rate_follows_the_schedule),
        cmocka_unit_test(test_train_draws_as_it_says),
        cmocka_unit_test(test_train_nodes_cover_a_range),
        cmocka_unit_test(test_train_ranks_share_evenly),
        cmocka_unit_test(test_train_memory_is_counted),
    };
    return saf_kernels_init(NULL) == SAF_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
