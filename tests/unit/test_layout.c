/* Stages are cut where the largest of them is smallest; checked against trying every cut. */
#include <setjmp.h>
#include <stdio.h>
#include <unistd.h>
/* cmocka wants these before it */
#include <cmocka.h>

#include "saf/kernel.h"
#include "saf/parallel.h"

static char path[64];
static saf_gguf *gguf;
static saf_model_params params;

static int make_model(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/saf-layout-%d.gguf", (int)getpid());
    saf_model_make_options o = {.arch = "llama",
                                .layers = 9,
                                .width = 64,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_width = 16,
                                .ff_width = 96,
                                .context = 128,
                                .dtype = SAF_DTYPE_Q8_0,
                                .seed = 1};
    if (saf_kernels_init(NULL) != SAF_OK) return -1;
    if (saf_model_make(path, &o) != SAF_OK) return -1;
    if (saf_gguf_open(path, &gguf) != SAF_OK) return -1;
    return saf_model_params_read(gguf, &params) == SAF_OK ? 0 : -1;
}

static int remove_model(void **state) {
    (void)state;
    saf_model_params_free(&params);
    saf_gguf_close(&gguf);
    return unlink(path);
}

/* The rule of layout.c: bytes of the layers in full, those of the head at three quarters. */
static size_t stage_cost(int64_t a, int64_t b) {
    size_t replicated;
    saf_slice_range layers = saf_slice_range_whole(&params, a, b, false, false);
    saf_slice_range all = saf_slice_range_whole(&params, a, b, false, b == params.layers);
    size_t bytes = saf_slice_file_bytes(gguf, &params, layers, &replicated);
    return 4 * bytes + 3 * (saf_slice_file_bytes(gguf, &params, all, &replicated) - bytes);
}

static size_t worst_cost(const int32_t *first, int32_t stages) {
    size_t worst = 0;
    for (int32_t s = 0; s < stages; s++) {
        size_t c = stage_cost(first[s], first[s + 1]);
        if (c > worst) worst = c;
    }
    return worst;
}

/* The best that any cut reaches, by trying them all. */
static size_t best_by_trying(int32_t *first, int32_t stage, int32_t stages) {
    if (stage == stages) return worst_cost(first, stages);
    size_t best = SIZE_MAX;
    for (int32_t at = first[stage - 1] + 1; at <= params.layers - (stages - stage); at++) {
        first[stage] = at;
        size_t c = best_by_trying(first, stage + 1, stages);
        if (c < best) best = c;
    }
    return best;
}

static saf_status choose(int32_t ranks, const int32_t *layers, int32_t n, saf_layout *out) {
    saf_layout_wish wish = {.ranks = ranks, .layers = layers, .n_layers = n};
    return saf_layout_choose(gguf, &params, &wish, out);
}

static void test_layout_cuts_as_evenly_as_possible(void **state) {
    (void)state;
    for (int32_t stages = 1; stages <= 9; stages++) {
        saf_layout layout = {0};
        int32_t first[16] = {0};
        first[stages] = (int32_t)params.layers;
        int32_t cut[16] = {0};
        assert_int_equal(choose(stages, NULL, 0, &layout), SAF_OK);
        for (int32_t s = 0; s < stages; s++) {
            assert_int_equal(layout.ranges[s].layer0, cut[s]);
            cut[s + 1] = (int32_t)layout.ranges[s].layer1;
        }
        assert_int_equal(cut[stages], 9);
        assert_int_equal(worst_cost(cut, stages), best_by_trying(first, 1, stages));
        saf_layout_free(&layout);
    }
}

static void test_layout_ranges_hold_everything_once(void **state) {
    (void)state;
    saf_layout layout = {0};
    size_t replicated, sum = 0;
    assert_int_equal(choose(4, NULL, 0, &layout), SAF_OK);
    for (int32_t s = 0; s < 4; s++)
        sum += saf_slice_file_bytes(gguf, &params, saf_layout_range(&layout, s), &replicated) -
               replicated;
    size_t all = 0;
    for (int64_t i = 0; i < saf_gguf_tensor_count(gguf); i++)
        all += saf_gguf_tensor_at(gguf, i)->bytes;
    assert_int_equal(sum, all);
    saf_layout_free(&layout);
}

static void test_layout_given_stages(void **state) {
    (void)state;
    saf_layout layout = {0};
    saf_buf text = {0};
    const int32_t good[] = {2, 6, 1}, zero[] = {9, 0, 0}, more[] = {5, 5, 5}, less[] = {1, 1, 1};
    assert_int_equal(choose(3, good, 3, &layout), SAF_OK);
    assert_int_equal(saf_layout_text(&layout, &text), SAF_OK);
    assert_string_equal(text.data, "pipeline 3: layers 0-1 | 2-7 | 8 + head");
    saf_layout_free(&layout);
    assert_int_equal(choose(3, zero, 3, &layout), SAF_USAGE);
    assert_int_equal(choose(3, more, 3, &layout), SAF_USAGE);
    assert_int_equal(choose(3, less, 3, &layout), SAF_USAGE);
    assert_int_equal(choose(2, good, 3, &layout), SAF_USAGE);
    assert_int_equal(choose(10, NULL, 0, &layout), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "at most 9 ranks"));
    saf_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_cuts_as_evenly_as_possible),
        cmocka_unit_test(test_layout_ranges_hold_everything_once),
        cmocka_unit_test(test_layout_given_stages),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
