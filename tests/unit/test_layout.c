/* Stages and parts are cut where the largest of them is smallest; checked against trying every cut.
 */
#include <setjmp.h>
#include <stdio.h>
#include <unistd.h>
/* cmocka wants these before it */
#include <cmocka.h>

#include "parallel/layout.h"
#include "saf/kernel.h"

/* One whose heads are cut in pairs, and one of floats, cut in fours; the vocabulary weighs as much
 * as three layers. */
static const saf_model_make_options shapes[] = {{.arch = "llama",
                                                 .layers = 9,
                                                 .width = 96,
                                                 .heads = 12,
                                                 .kv_heads = 3,
                                                 .head_width = 16,
                                                 .ff_width = 160,
                                                 .context = 128,
                                                 .vocab_size = 2085,
                                                 .dtype = SAF_DTYPE_Q8_0,
                                                 .seed = 1},
                                                {.arch = "qwen3",
                                                 .layers = 9,
                                                 .width = 72,
                                                 .heads = 12,
                                                 .kv_heads = 4,
                                                 .head_width = 8,
                                                 .ff_width = 100,
                                                 .context = 128,
                                                 .vocab_size = 11 * SAF_LOGIT_SEGMENT + 300,
                                                 .dtype = SAF_DTYPE_F16,
                                                 .seed = 1}};
enum { MODELS = 2, LAYERS = 9, MAX_PARTS = 16 };
typedef struct {
    char path[64];
    saf_gguf *g;
    saf_model_params p;
} model;
static model models[MODELS];

static int make_models(void **state) {
    (void)state;
    if (saf_kernels_init(NULL) != SAF_OK) return -1;
    for (int i = 0; i < MODELS; i++) {
        model *m = &models[i];
        snprintf(m->path, sizeof m->path, "/tmp/saf-layout-%d-%d.gguf", (int)getpid(), i);
        if (saf_model_make(m->path, &shapes[i]) != SAF_OK) return -1;
        if (saf_gguf_open(m->path, &m->g) != SAF_OK) return -1;
        if (saf_model_params_read(m->g, &m->p) != SAF_OK) return -1;
    }
    return 0;
}

static int remove_models(void **state) {
    (void)state;
    int failed = 0;
    for (int i = 0; i < MODELS; i++) {
        saf_model_params_free(&models[i].p);
        saf_gguf_close(&models[i].g);
        failed |= unlink(models[i].path);
    }
    return failed;
}

/* Shares that are not alike, another set for each seed; seed 0: alike. */
static void make_shares(unsigned seed, int32_t n, double *share) {
    for (int32_t i = 0; i < n; i++)
        share[i] = seed == 0 ? 1 : (double)((seed * 7919u + (unsigned)i * 104729u) % 13 + 1);
}

/* ---- trying every cut ---- */

typedef double (*value_of)(const void *ctx, int32_t part, int32_t begin, int32_t end);

/* The smallest possible largest value; *squares: of those cuts the smallest sum of value^2 * share.
 */
static void try_all(const void *ctx, value_of value, const double *share, int32_t part,
                    int32_t parts, int32_t begin, int32_t items, int32_t least, double worst,
                    double sum, double *best, double *squares) {
    if (part == parts) {
        if (begin != items || worst > *best) return;
        *squares = worst < *best || sum < *squares ? sum : *squares;
        *best = worst;
        return;
    }
    for (int32_t end = begin + least; end <= items; end++) {
        double v = value(ctx, part, begin, end);
        try_all(ctx, value, share, part + 1, parts, end, items, least, v > worst ? v : worst,
                sum + v * v * share[part], best, squares);
    }
}

static void check_cut(const void *ctx, value_of value, const double *share, int32_t parts,
                      int32_t items, int32_t least, const int32_t *at) {
    double best = 1e300, squares = 1e300, worst = 0, sum = 0;
    try_all(ctx, value, share, 0, parts, 0, items, least, 0, 0, &best, &squares);
    assert_int_equal(at[0], 0);
    assert_int_equal(at[parts], items);
    for (int32_t i = 0; i < parts; i++) {
        assert_true(at[i + 1] - at[i] >= least);
        double v = value(ctx, i, at[i], at[i + 1]);
        worst = v > worst ? v : worst;
        sum += v * v * share[i];
    }
    assert_true(worst == best);
    assert_true(sum <= squares * (1 + 1e-12));
}

/* ---- stages ---- */

typedef struct {
    const model *m;
    const double *share;
} stage_costs;

/* The rule: bytes of the layers in full, those of the head at three quarters. */
static double stage_cost(const void *ctx, int32_t stage, int32_t a, int32_t b) {
    const stage_costs *c = ctx;
    size_t replicated;
    const saf_model_params *p = &c->m->p;
    saf_slice_range layers = saf_slice_range_whole(p, a, b, false, false);
    saf_slice_range all = saf_slice_range_whole(p, a, b, false, b == p->layers);
    size_t bytes = saf_slice_file_bytes(c->m->g, p, layers, &replicated);
    size_t with_head = saf_slice_file_bytes(c->m->g, p, all, &replicated);
    return (double)(4 * bytes + 3 * (with_head - bytes)) / c->share[stage];
}

static void stages_of(const saf_layout *layout, int32_t *at) {
    for (int32_t s = 0; s < layout->stages; s++) {
        assert_int_equal(layout->ranges[s].layer0, at[s]);
        assert_int_equal(layout->ranges[s].embedding, s == 0);
        assert_int_equal(layout->ranges[s].head, s == layout->stages - 1);
        at[s + 1] = (int32_t)layout->ranges[s].layer1;
    }
}

static void test_layout_cuts_as_evenly_as_possible(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++)
        for (int32_t stages = 1; stages <= LAYERS; stages++)
            for (unsigned seed = 0; seed < 4; seed++) {
                saf_layout layout = {0};
                double share[LAYERS], sum = 0;
                int32_t at[LAYERS + 1] = {0};
                make_shares(seed, stages, share);
                saf_layout_wish wish = {
                    .ranks = stages, .stages = stages, .share = seed ? share : NULL};
                assert_int_equal(saf_layout_choose(models[i].g, &models[i].p, &wish, &layout),
                                 SAF_OK);
                stages_of(&layout, at);
                for (int32_t s = 0; s < stages; s++) sum += share[s];
                for (int32_t s = 0; s < stages; s++) share[s] *= stages / sum;
                stage_costs c = {&models[i], share};
                check_cut(&c, stage_cost, share, stages, LAYERS, 1, at);
                saf_layout_free(&layout);
            }
}

static void test_layout_gain_over_equal_numbers(void **state) {
    (void)state;
    static const int32_t by_hand[] = {5, 2, 2};
    const model *m = &models[0];
    const double alike[] = {1, 1, 1}, shares[] = {2, 1, 1}, scaled[] = {1.5, 0.75, 0.75};
    saf_layout layout = {0};
    saf_layout_gains gains;
    stage_costs c = {m, alike};
    saf_layout_wish wish = {.ranks = 3, .stages = 3};
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_OK);
    assert_int_equal(saf_layout_gain(m->g, &m->p, &wish, &layout, &gains), SAF_OK);
    assert_true(gains.chosen == gains.best);
    assert_true(gains.equal == stage_cost(&c, 2, 6, 9) / 4);
    assert_true(gains.best < gains.equal);
    saf_layout_free(&layout);
    wish = (saf_layout_wish){.ranks = 3, .layers = by_hand, .n_layers = 3, .share = shares};
    c.share = scaled;
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_OK);
    assert_int_equal(saf_layout_gain(m->g, &m->p, &wish, &layout, &gains), SAF_OK);
    assert_true(gains.chosen == stage_cost(&c, 2, 7, 9) / 4);
    assert_true(gains.best < gains.chosen);
    saf_layout_free(&layout);
}

/* ---- parts of a stage ---- */

static double items_for_share(const void *ctx, int32_t part, int32_t begin, int32_t end) {
    const double *share = ctx;
    return (double)(end - begin) / share[part];
}

static void test_layout_things_that_are_alike(void **state) {
    (void)state;
    for (int32_t items = 0; items <= 12; items++)
        for (int32_t parts = 1; parts <= 4; parts++)
            for (unsigned seed = 0; seed < 9; seed++) {
                double share[4], best = 1e300, squares = 1e300, worst = 0;
                int64_t at[5];
                make_shares(seed, parts, share);
                saf__cut_alike(items, share, parts, at);
                assert_int_equal(at[0], 0);
                assert_int_equal(at[parts], items);
                for (int32_t i = 0; i < parts; i++) {
                    double v = (double)(at[i + 1] - at[i]) / share[i];
                    assert_true(at[i] <= at[i + 1]);
                    worst = v > worst ? v : worst;
                    if (seed == 0)
                        assert_in_range(at[i + 1] - at[i], items / parts,
                                        (items + parts - 1) / parts);
                }
                try_all(share, items_for_share, share, 0, parts, 0, items, 0, 0, 0, &best,
                        &squares);
                assert_true(worst == best);
            }
}

typedef struct {
    const model *m;
    const double *share;
    int64_t layer0, layer1, step;
} head_costs;

static double head_cost(const void *ctx, int32_t part, int32_t begin, int32_t end) {
    const head_costs *c = ctx;
    const saf_model_params *p = &c->m->p;
    int64_t bytes = 0, group = p->heads / p->kv_heads, cache = (int64_t)256 * 2 * 2 * p->head_width;
    int64_t h0 = begin * c->step, h1 = end * c->step;
    if (h0 == h1) return 0;
    int64_t kv = (h1 + group - 1) / group - h0 / group;
    for (int64_t i = c->layer0; i < c->layer1; i++) {
        static const char *const names[] = {"q", "k", "v"};
        bytes += (h1 - h0 + kv) * cache;
        for (int k = 0; k < 3; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.attn_%s.weight", (int)i, names[k]);
            const saf_gguf_tensor *t = saf_gguf_tensor_find(c->m->g, name);
            int64_t row = (int64_t)t->bytes / t->shape[1];
            bytes += (k ? kv : h1 - h0) * p->head_width * row;
        }
    }
    return (double)bytes / c->share[part];
}

static void test_layout_heads_as_evenly_as_possible(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++)
        for (int32_t parts = 2; parts <= 7; parts++)
            for (unsigned seed = 0; seed < 5; seed++) {
                const model *m = &models[i];
                saf_slice_range ranges[7];
                double share[7];
                int32_t at[8] = {0}, step = 1;
                while (step * m->p.head_width % SAF_QUANT_BLOCK != 0) step++;
                make_shares(seed, parts, share);
                for (int32_t k = 0; k < parts; k++)
                    ranges[k] = saf_slice_range_whole(&m->p, 2, 5, false, false);
                assert_int_equal(saf__parts_cut(m->g, &m->p, share, parts, ranges), SAF_OK);
                for (int32_t k = 0; k < parts; k++) {
                    assert_int_equal(ranges[k].heads.begin % step, 0);
                    assert_int_equal(ranges[k].heads.begin, at[k] * step);
                    at[k + 1] = (int32_t)(ranges[k].heads.end / step);
                }
                head_costs c = {m, share, 2, 5, step};
                check_cut(&c, head_cost, share, parts, (int32_t)m->p.heads / step, 0, at);
                assert_int_equal(saf__parts_with_heads(&m->p), m->p.heads / step);
            }
}

/* Each span begins where the one before ended, in whole units, and the last one ends with the rows.
 */
static void check_spans(const saf_slice_range *ranges, int32_t parts, size_t member, int64_t rows,
                        int64_t unit) {
    int64_t at = 0;
    for (int32_t i = 0; i < parts; i++) {
        saf_span span;
        memcpy(&span, (const char *)&ranges[i] + member, sizeof span);
        assert_int_equal(span.begin, at);
        assert_true(span.end >= span.begin && (span.end % unit == 0 || span.end == rows));
        at = span.end;
    }
    assert_int_equal(at, rows);
}

static void test_layout_parts_hold_every_row_once(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++)
        for (int32_t parts = 1; parts <= MAX_PARTS; parts++)
            for (unsigned seed = 0; seed < 6; seed++) {
                const model *m = &models[i];
                saf_slice_range ranges[MAX_PARTS];
                double share[MAX_PARTS];
                int64_t head = 0;
                make_shares(seed, parts, share);
                for (int32_t k = 0; k < parts; k++)
                    ranges[k] = saf_slice_range_whole(&m->p, 0, 9, true, true);
                assert_int_equal(saf__parts_cut(m->g, &m->p, share, parts, ranges), SAF_OK);
                for (int32_t k = 0; k < parts; k++) {
                    assert_int_equal(ranges[k].heads.begin, head);
                    assert_true(ranges[k].heads.end >= head);
                    head = ranges[k].heads.end;
                    assert_true(ranges[k].layer0 == 0 && ranges[k].layer1 == 9);
                }
                assert_int_equal(head, m->p.heads);
                check_spans(ranges, parts, offsetof(saf_slice_range, width), m->p.width,
                            SAF_TILE_ROWS);
                check_spans(ranges, parts, offsetof(saf_slice_range, ff), m->p.ff_width,
                            SAF_TILE_ROWS);
                check_spans(ranges, parts, offsetof(saf_slice_range, vocab), m->p.vocab,
                            SAF_LOGIT_SEGMENT);
            }
}

/* ---- the whole ---- */

static void test_layout_grids(void **state) {
    (void)state;
    const model *m = &models[0];
    const double share[] = {3, 1, 3, 1, 1, 1, 1, 5};
    saf_layout_wish wish = {.ranks = 8, .replicas = 2, .stages = 2, .tensor = 2, .share = share};
    saf_layout layout = {0};
    saf_buf text = {0};
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_OK);
    for (int32_t r = 0; r < 8; r++) {
        saf_slice_range range = saf_layout_range(&layout, r),
                        mate = saf_layout_range(&layout, r ^ 1);
        assert_true(range.layer0 == mate.layer0 && range.layer1 == mate.layer1);
        assert_int_equal(range.embedding, r / 2 % 2 == 0);
        assert_int_equal(range.head, r / 2 % 2 == 1);
    }
    /* 5 tiles for shares of 3 and 1 */
    assert_int_equal(layout.ranges[0].ff.end, 128);
    assert_int_equal(layout.ranges[1].ff.begin, 128);
    assert_int_equal(saf_layout_text(&layout, &text), SAF_OK);
    /* the second replica's later stage can do three times as much as its first */
    assert_int_equal(strncmp(text.data, "replicas 2 x pipeline 2 x tensor 2: layers 0-", 45), 0);
    assert_non_null(strstr(text.data, " + head; layers 0-"));
    assert_true(layout.ranges[4].layer1 < layout.ranges[0].layer1);
    saf_layout_free(&layout);
    wish.share = NULL;
    saf_buf_clear(&text);
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_OK);
    assert_int_equal(saf_layout_text(&layout, &text), SAF_OK);
    assert_null(strchr(text.data, ';'));
    saf_layout_free(&layout);
    saf_buf_free(&text);
}

static void test_layout_ranges_hold_everything_once(void **state) {
    (void)state;
    const model *m = &models[0];
    saf_layout layout = {0};
    size_t replicated, sum = 0, all = 0;
    saf_layout_wish wish = {.ranks = 4};
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_OK);
    for (int32_t s = 0; s < 4; s++)
        sum += saf_slice_file_bytes(m->g, &m->p, saf_layout_range(&layout, s), &replicated) -
               replicated;
    for (int64_t i = 0; i < saf_gguf_tensor_count(m->g); i++)
        all += saf_gguf_tensor_at(m->g, i)->bytes;
    assert_int_equal(sum, all);
    saf_layout_free(&layout);
}

static saf_status choose(saf_layout_wish wish, saf_layout *out) {
    return saf_layout_choose(models[0].g, &models[0].p, &wish, out);
}

static void test_layout_given_stages(void **state) {
    (void)state;
    saf_layout layout = {0};
    saf_buf text = {0};
    const int32_t good[] = {2, 6, 1}, zero[] = {9, 0, 0}, more[] = {5, 5, 5}, less[] = {1, 1, 1};
    assert_int_equal(choose((saf_layout_wish){.ranks = 3, .layers = good, .n_layers = 3}, &layout),
                     SAF_OK);
    assert_int_equal(saf_layout_text(&layout, &text), SAF_OK);
    assert_string_equal(text.data, "pipeline 3: layers 0-1 | 2-7 | 8 + head");
    saf_layout_free(&layout);
    const int32_t *bad[] = {zero, more, less};
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            choose((saf_layout_wish){.ranks = 3, .layers = bad[i], .n_layers = 3}, &layout),
            SAF_USAGE);
    saf_buf_free(&text);
}

static void test_layout_ranks_that_would_hold_nothing(void **state) {
    (void)state;
    saf_layout layout = {0};
    double share[] = {1000, 1, 1000}, none[] = {1, 0, 1};
    /* 5 tiles of ff for the first parts, 6 pairs of heads for the last ones */
    assert_int_equal(choose((saf_layout_wish){.ranks = 36, .stages = 3, .tensor = 12}, &layout),
                     SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "layout.tensor can be 5"));
    assert_int_equal(choose((saf_layout_wish){.ranks = 15, .stages = 3, .tensor = 5}, &layout),
                     SAF_OK);
    saf_layout_free(&layout);
    /* an end of the pipeline has segments of the vocabulary as well: twelve of them, four tiles */
    const model *m = &models[1];
    saf_layout_wish wish = {.tensor = 12};
    for (wish.stages = 1; wish.stages <= 3; wish.stages += 2) {
        wish.ranks = wish.stages * wish.tensor;
        saf_status want = wish.stages == 1 ? SAF_OK : SAF_USAGE;
        assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), want);
        saf_layout_free(&layout);
    }
    wish = (saf_layout_wish){.ranks = 25, .stages = 1, .tensor = 25};
    assert_int_equal(saf_layout_choose(m->g, &m->p, &wish, &layout), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "can be 12"));
    assert_int_equal(
        choose((saf_layout_wish){.ranks = 3, .stages = 1, .tensor = 3, .share = share}, &layout),
        SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "rank 1 would hold nothing"));
    assert_int_equal(choose((saf_layout_wish){.ranks = 3, .share = none}, &layout), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "rank 1 has 0"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_cuts_as_evenly_as_possible),
        cmocka_unit_test(test_layout_gain_over_equal_numbers),
        cmocka_unit_test(test_layout_things_that_are_alike),
        cmocka_unit_test(test_layout_heads_as_evenly_as_possible),
        cmocka_unit_test(test_layout_parts_hold_every_row_once),
        cmocka_unit_test(test_layout_grids),
        cmocka_unit_test(test_layout_ranges_hold_everything_once),
        cmocka_unit_test(test_layout_given_stages),
        cmocka_unit_test(test_layout_ranks_that_would_hold_nothing),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
