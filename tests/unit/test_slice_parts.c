/* Parts of stages: every way to cut the rows of a model gives each row to one part, as in the file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/slice.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static size_t bytes_read; /* from files */

ssize_t pread(int fd, void *to, size_t bytes, off_t offset) {
    __atomic_add_fetch(&bytes_read, bytes, __ATOMIC_SEQ_CST);
    return syscall(SYS_pread64, fd, to, bytes, offset);
}

/* ---- models ---------------------------------------------------------------------------------- */

static const saf_model_make_options models[] = {
    {.arch = "qwen3", /* norms of heads, tied; the down matrix is larger than a block */
     .layers = 2,
     .width = 288,
     .heads = 6,
     .kv_heads = 2,
     .head_width = 64,
     .ff_width = 7200,
     .context = 128,
     .vocab_size = 5001,
     .dtype = SAF_DTYPE_Q8_0,
     .tied = true,
     .seed = 1},
    {.arch = "qwen2", /* biases, types of 256 */
     .layers = 2,
     .width = 256,
     .heads = 8,
     .kv_heads = 4,
     .head_width = 32,
     .ff_width = 512,
     .context = 128,
     .vocab_size = 777,
     .dtype = SAF_DTYPE_Q4_K,
     .seed = 2},
    {.arch = "llama", /* the shape of stories260K: heads are a quarter of a tile */
     .layers = 5,
     .width = 64,
     .heads = 8,
     .kv_heads = 4,
     .head_width = 8,
     .ff_width = 172,
     .context = 512,
     .vocab_size = 512,
     .dtype = SAF_DTYPE_F32,
     .tied = true,
     .seed = 3},
};
enum { MODELS = sizeof models / sizeof models[0] };
static char path[64];

/* A model, as one rank has it and as one that has only its headers. */
typedef struct {
    saf_gguf *g, *headless;
    saf_model_params p, q;
} pair;

static void open_pair(pair *m) {
    saf_buf image = {0};
    OK(saf_gguf_open(path, &m->g));
    OK(saf_gguf_image_write(m->g, &image));
    OK(saf_gguf_image_open(path, &image, &m->headless));
    OK(saf_model_params_read(m->g, &m->p));
    OK(saf_model_params_read(m->headless, &m->q));
}

static void open_model(int i, pair *m) {
    OK(saf_model_make(path, &models[i]));
    open_pair(m);
}

static void close_model(pair *m) {
    saf_model_params_free(&m->p);
    saf_model_params_free(&m->q);
    saf_gguf_close(&m->g);
    saf_gguf_close(&m->headless);
    assert_int_equal(unlink(path), 0);
}

/* ---- cuts ------------------------------------------------------------------------------------ */

typedef enum { EVEN, UNEVEN, LAST, APART, CUTS } cut;

/* Where a part begins of n rows, in units: all alike, ever more, all in the last, or heads and rows
 * in different parts. */
static int64_t begin_of(cut how, int parts, int part, int64_t n, int64_t unit, int which) {
    int64_t units = n / unit;
    if (part >= parts) return n;
    switch (how) {
        case EVEN:
            return units * part / parts * unit;
        case UNEVEN:
            return units * part * part / (parts * parts) * unit;
        case LAST:
            return 0;
        default:
            return part <= which % parts ? 0 : n;
    }
}

static saf_span span_of(cut how, int parts, int part, int64_t n, int64_t unit, int which) {
    return (saf_span){begin_of(how, parts, part, n, unit, which),
                      begin_of(how, parts, part + 1, n, unit, which)};
}

/* stage 0 of two has the embedding and layer 0, stage 1 the head and all others. */
static saf_slice_range range_of(const saf_model_params *p, cut how, int parts, int part,
                                int stage) {
    int64_t tile = SAF_TILE_ROWS;
    return (saf_slice_range){.layer0 = stage,
                             .layer1 = stage ? p->layers : 1,
                             .embedding = stage == 0,
                             .head = stage == 1,
                             .heads = span_of(how, parts, part, p->heads, 1, 0),
                             .width = span_of(how, parts, part, p->width, tile, 1),
                             .ff = span_of(how, parts, part, p->ff_width, tile, 2),
                             .vocab = span_of(how, parts, part, p->vocab, tile, 3)};
}

/* ---- what a part holds ----------------------------------------------------------------------- */

static void same_bytes(const void *a, const void *b, size_t n) { /* faster than cmocka's */
    if (n > 0) assert_int_equal(memcmp(a, b, n), 0);
}

/* Row r of a part's weight is row span.begin + r of the file; and the weight as a whole is what the
 * rows in the file give when they are packed at once, up to the end of its last tile. */
static void check_matrix(const saf_gguf *g, const char *name, saf_span span, const saf_weight *w) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    saf_weight all, one;
    char *raw = NULL;
    float *want = NULL, *got = NULL;
    assert_non_null(t);
    size_t row_bytes = t->bytes / (size_t)t->shape[1];
    assert_int_equal(w->rows, span.end - span.begin);
    assert_int_equal(w->cols, t->shape[0]);
    assert_int_equal(w->dtype, t->dtype);
    assert_non_null(w->data);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    OK(saf_weight_plan(t->dtype, w->rows, t->shape[0], &all));
    OK(saf_weight_plan(t->dtype, 1, t->shape[0], &one));
    assert_int_equal(w->bytes, all.bytes);
    OK(saf_alloc((size_t)w->rows, row_bytes, &raw));
    OK(saf_alloc(all.bytes, 1, &all.data));
    OK(saf_alloc(one.bytes, 1, &one.data));
    OK(saf_alloc((size_t)t->shape[0], sizeof *want, &want));
    OK(saf_alloc((size_t)t->shape[0], sizeof *got, &got));
    OK(saf_gguf_tensor_read(g, t, (size_t)span.begin * row_bytes, (size_t)w->rows * row_bytes,
                            raw));
    saf_weight_pack(&all, 0, all.rows, raw);
    same_bytes(w->data, all.data, w->bytes);
    for (int64_t i = 0; w->rows > 0 && i < w->rows + 36; i += 37) {
        int64_t r = saf_i64_min(i, w->rows - 1); /* the last one among them */
        saf_weight_pack(&one, 0, 1, raw + (size_t)r * row_bytes);
        saf_weight_row(&one, 0, want);
        saf_weight_row(w, r, got);
        same_bytes(want, got, (size_t)w->cols * sizeof *want);
    }
    saf_free(&want);
    saf_free(&got);
    saf_free(&one.data);
    saf_free(&all.data);
    saf_free(&raw);
}

/* NULL: not cut. */
static void check_vector(const saf_gguf *g, const char *name, const saf_span *span,
                         const float *v) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    float *whole = NULL;
    assert_non_null(t);
    const saf_span mine = span ? *span : (saf_span){0, t->shape[0]};
    assert_int_equal(t->dtype, SAF_DTYPE_F32);
    OK(saf_alloc(t->bytes, 1, &whole));
    OK(saf_gguf_tensor_read(g, t, 0, t->bytes, whole));
    same_bytes(v, whole + mine.begin, (size_t)(mine.end - mine.begin) * sizeof *v);
    saf_free(&whole);
}

/* Those that a head of the part reads, times their width. */
static saf_span key_rows(const saf_model_params *p, saf_span heads) {
    saf_span rows = {0, 0};
    for (int64_t h = heads.end - 1; h >= heads.begin; h--) {
        int64_t g = h / (p->heads / p->kv_heads);
        rows.begin = g * p->head_width;
        if (rows.end == 0) rows.end = (g + 1) * p->head_width;
    }
    return rows;
}

static void same_matrix(const saf_weight *a, const saf_weight *b) {
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->bytes, b->bytes);
    same_bytes(a->data, b->data, a->bytes);
}

/* l against the file, or its matrices against those of `as`. */
static void check_layer(const pair *m, int64_t layer, saf_slice_range range, const saf__layer *l,
                        const saf__layer *as) {
    static const saf__layer none;
    const saf_span heads = {range.heads.begin * m->p.head_width, range.heads.end * m->p.head_width};
    const saf_span keys = key_rows(&m->p, range.heads);
    const saf__layer *o = as ? as : &none;
    const struct {
        const char *name;
        saf_span span;
        const saf_weight *w, *as;
    } matrices[] = {{"attn_q.weight", heads, &l->q, &o->q},
                    {"attn_k.weight", keys, &l->k, &o->k},
                    {"attn_v.weight", keys, &l->v, &o->v},
                    {"attn_output.weight", range.width, &l->o, &o->o},
                    {"ffn_gate.weight", range.ff, &l->gate, &o->gate},
                    {"ffn_up.weight", range.ff, &l->up, &o->up},
                    {"ffn_down.weight", range.width, &l->down, &o->down}};
    const struct {
        const char *name;
        const saf_span *span;
        const float *v;
    } vectors[] = {
        {"attn_norm.weight", NULL, l->attn_norm}, {"ffn_norm.weight", NULL, l->ffn_norm},
        {"attn_q_norm.weight", NULL, l->q_norm},  {"attn_k_norm.weight", NULL, l->k_norm},
        {"attn_q.bias", &heads, l->q_bias},       {"attn_k.bias", &keys, l->k_bias},
        {"attn_v.bias", &keys, l->v_bias}};
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", (int)layer, matrices[i].name);
        if (as)
            same_matrix(matrices[i].w, matrices[i].as);
        else
            check_matrix(m->g, name, matrices[i].span, matrices[i].w);
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", (int)layer, vectors[i].name);
        if (saf_gguf_tensor_find(m->g, name))
            check_vector(m->g, name, vectors[i].span, vectors[i].v);
        else
            assert_null(vectors[i].v);
    }
}

static void check_slice(const pair *m, saf_slice_range range, const saf_slice *s) {
    if (range.embedding || m->p.tied)
        check_matrix(m->g, "token_embd.weight", range.vocab, &s->embedding);
    else
        assert_null(s->embedding.data);
    if (range.head && !m->p.tied)
        check_matrix(m->g, "output.weight", range.vocab, &s->head);
    else
        assert_null(s->head.data);
    if (range.head) check_vector(m->g, "output_norm.weight", NULL, s->output_norm);
    for (int64_t i = range.layer0; i < range.layer1; i++)
        check_layer(m, i, range, &s->layers[i - range.layer0], NULL);
}

static void same_slice(const pair *m, saf_slice_range range, const saf_slice *s,
                       const saf_slice *as) {
    same_matrix(&s->embedding, &as->embedding);
    same_matrix(&s->head, &as->head);
    if (range.head) check_vector(m->g, "output_norm.weight", NULL, s->output_norm);
    for (int64_t i = 0; i < range.layer1 - range.layer0; i++)
        check_layer(m, range.layer0 + i, range, &s->layers[i], &as->layers[i]);
    assert_int_equal(saf_slice_memory_bytes(s), saf_slice_memory_bytes(as));
}

/* Read, with what was read counted, and given block by block, the last one first. */
static void check_part(const pair *m, saf_slice_range range, size_t file_bytes) {
    saf_slice *read = NULL, *given = NULL;
    saf_blocks *here = NULL, *there = NULL;
    char *bytes = NULL;
    size_t before = bytes_read;
    OK(saf_slice_load(m->g, &m->p, range, &read));
    assert_int_equal(bytes_read - before, file_bytes);
    check_slice(m, range, read);
    OK(saf_blocks_new(m->g, &m->p, range, &here));
    OK(saf_blocks_new(m->headless, &m->q, range, &there));
    OK(saf_slice_new(m->headless, &m->q, range, &given));
    OK(saf_alloc(saf_blocks_largest(here), 1, &bytes));
    assert_int_equal(saf_blocks_count(here), saf_blocks_count(there));
    for (int64_t i = saf_blocks_count(here); i-- > 0;) {
        assert_int_equal(saf_blocks_bytes(here, i), saf_blocks_bytes(there, i));
        assert_in_range(saf_blocks_bytes(here, i), 1, saf_blocks_largest(there));
        OK(saf_blocks_read(here, i, bytes));
        saf_slice_put(given, there, i, bytes);
    }
    same_slice(m, range, given, read);
    saf_free(&bytes);
    saf_blocks_free(&here);
    saf_blocks_free(&there);
    saf_slice_free(&read);
    saf_slice_free(&given);
}

static void test_slice_parts_hold_each_row_once(void **state) {
    static const int counts[] = {1, 2, 3, 5, 8};
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        pair m = {0};
        size_t all = 0;
        open_model(i, &m);
        for (int64_t t = 0; t < saf_gguf_tensor_count(m.g); t++)
            all += saf_gguf_tensor_at(m.g, t)->bytes;
        for (int n = 0; n < 5; n++) {
            for (cut how = 0; how < CUTS; how++) {
                size_t sum = 0, replicated;
                for (int j = 0; j < 2 * counts[n]; j++) {
                    saf_slice_range range = range_of(&m.p, how, counts[n], j / 2, j % 2);
                    size_t bytes = saf_slice_file_bytes(m.g, &m.p, range, &replicated);
                    check_part(&m, range, bytes);
                    assert_true(replicated <= bytes);
                    sum += bytes - replicated;
                }
                assert_int_equal(sum, all);
            }
        }
        close_model(&m);
    }
}

/* The first part of a stage with rows of the width counts the norms, the first with a head that
 * reads a key head its keys. */
static void test_slice_names_what_is_replicated(void **state) {
    static const struct {
        int model, parts, part, stage;
        cut how;
        const char *names;
    } cases[] = {
        {0, 1, 0, 0, EVEN, ""},
        {0, 1, 0, 1, EVEN, "token_embd.weight"},
        /* heads 2 and 3 of 6, of which 0 to 2 read key head 0; without tile 0 of the width */
        {0, 3, 1, 0, EVEN,
         "blk.*.attn_norm.weight, blk.*.attn_k.weight (rows 0-63), blk.*.attn_v.weight (rows "
         "0-63), blk.*.attn_q_norm.weight, blk.*.attn_k_norm.weight, blk.*.ffn_norm.weight"},
        {0, 2, 1, 1, EVEN,
         "token_embd.weight (rows 2496-5000), output_norm.weight, blk.*.attn_norm.weight, "
         "blk.*.attn_q_norm.weight, blk.*.attn_k_norm.weight, blk.*.ffn_norm.weight"},
        /* one head a part, the second of a pair */
        {1, 8, 5, 1, EVEN,
         "output_norm.weight, blk.*.attn_norm.weight, blk.*.attn_k.weight (rows 64-95), "
         "blk.*.attn_v.weight (rows 64-95), blk.*.attn_k.bias (entries 64-95), "
         "blk.*.attn_v.bias (entries 64-95), blk.*.ffn_norm.weight"},
        /* everything is in the last part, the others have nothing but norms to hold */
        {1, 3, 0, 0, LAST, "blk.*.attn_norm.weight, blk.*.ffn_norm.weight"},
        {1, 3, 2, 0, LAST, ""},
        /* heads in part 0, the width in part 1 */
        {2, 2, 0, 0, APART, "blk.*.attn_norm.weight, blk.*.ffn_norm.weight"},
        {2, 2, 1, 0, APART, ""},
    };
    saf_buf names = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pair m = {0};
        size_t replicated;
        open_model(cases[i].model, &m);
        saf_slice_range range =
            range_of(&m.p, cases[i].how, cases[i].parts, cases[i].part, cases[i].stage);
        OK(saf_slice_replicated_names(m.g, &m.p, range, &names));
        assert_string_equal(names.data, cases[i].names);
        (void)saf_slice_file_bytes(m.g, &m.p, range, &replicated);
        assert_int_equal(replicated > 0, cases[i].names[0] != 0);
        close_model(&m);
    }
    saf_buf_free(&names);
}

/* The cache has the key heads that the part reads; 300 positions take two segments. */
static void test_kv_cache_holds_the_key_heads_of_its_part(void **state) {
    pair m = {0};
    saf_kv_cache *kv = NULL;
    (void)state;
    open_model(2, &m);
    for (int parts = 1; parts <= 9; parts++) {
        for (cut how = 0; how < CUTS; how++) {
            for (int part = 0; part < parts; part++) {
                saf_slice_range range = range_of(&m.p, how, parts, part, 1);
                saf_span rows = key_rows(&m.p, range.heads);
                size_t values = (size_t)(rows.end - rows.begin) * 512;
                OK(saf_kv_cache_new(&m.p, range, SAF_KV_F32, 2, 300, &kv));
                assert_int_equal(saf_kv_cache_bytes(kv),
                                 2 * 2 * (size_t)(m.p.layers - 1) * values * sizeof(float));
                assert_int_equal(2 * saf_kv_cache_slot_bytes(&m.p, range, SAF_KV_F32, 300),
                                 saf_kv_cache_bytes(kv));
                saf_kv_cache_free(&kv);
            }
        }
    }
    saf_slice_range whole = range_of(&m.p, EVEN, 1, 0, 1);
    assert_true(saf_kv_cache_slot_bytes(&m.p, whole, SAF_KV_F32, INT64_MAX / 2) == SIZE_MAX);
    assert_int_equal(saf_kv_cache_new(&m.p, whole, SAF_KV_F32, 2, INT64_MAX / 2, &kv),
                     SAF_NO_MEMORY);
    assert_null(kv);
    close_model(&m);
}

static void test_slice_refuses_rows_that_are_not_there(void **state) {
    pair m = {0};
    saf_slice *s = NULL;
    (void)state;
    open_model(2, &m);
    saf_slice_range range = saf_slice_range_whole(&m.p, 0, 1, true, false);
    saf_span *const spans[] = {&range.heads, &range.width, &range.ff, &range.vocab};
    for (int i = 0; i < 4; i++) {
        const saf_span good = *spans[i];
        const saf_span bad[] = {{good.begin, good.end + 1}, {-1, good.end}, {good.end, 0}};
        for (int k = 0; k < 3; k++) {
            *spans[i] = bad[k];
            assert_int_equal(saf_slice_load(m.g, &m.p, range, &s), SAF_DEFECT);
            assert_null(s);
        }
        *spans[i] = good;
    }
    close_model(&m);
}

static int start(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/saf-parts-%d.gguf", (int)getpid());
    return saf_kernels_init(NULL) == SAF_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_parts_hold_each_row_once),
        cmocka_unit_test(test_slice_names_what_is_replicated),
        cmocka_unit_test(test_kv_cache_holds_the_key_heads_of_its_part),
        cmocka_unit_test(test_slice_refuses_rows_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
