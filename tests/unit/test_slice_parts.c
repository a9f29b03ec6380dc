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
     .layers = 3,
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

/* Row r of a part's weight is row span.begin + r of the matrix packed as a whole; and what fills
 * the last tile is that of a matrix of these rows alone. */
static void check_matrix(const saf_gguf *g, const char *name, saf_span span, const saf_weight *w) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    saf_weight whole, alone;
    char *raw = NULL;
    float *want = NULL, *got = NULL;
    assert_non_null(t);
    size_t row_bytes = t->bytes / (size_t)t->shape[1];
    assert_int_equal(w->rows, span.end - span.begin);
    assert_int_equal(w->cols, t->shape[0]);
    assert_int_equal(w->dtype, t->dtype);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    assert_non_null(w->data);
    OK(saf_weight_plan(t->dtype, t->shape[1], t->shape[0], &whole));
    OK(saf_weight_plan(t->dtype, w->rows, t->shape[0], &alone));
    assert_int_equal(w->bytes, alone.bytes);
    OK(saf_alloc(t->bytes, 1, &raw));
    OK(saf_alloc(whole.bytes, 1, &whole.data));
    OK(saf_alloc(alone.bytes, 1, &alone.data));
    OK(saf_alloc((size_t)t->shape[0], sizeof *want, &want));
    OK(saf_alloc((size_t)t->shape[0], sizeof *got, &got));
    OK(saf_gguf_tensor_read(g, t, 0, t->bytes, raw));
    saf_weight_pack(&whole, 0, whole.rows, raw);
    saf_weight_pack(&alone, 0, alone.rows, raw + (size_t)span.begin * row_bytes);
    if (w->bytes) assert_memory_equal(w->data, alone.data, w->bytes);
    for (int64_t r = 0; r < w->rows; r++) {
        saf_weight_row(&whole, span.begin + r, want);
        saf_weight_row(w, r, got);
        assert_memory_equal(want, got, (size_t)w->cols * sizeof *want);
    }
    saf_free(&want);
    saf_free(&got);
    saf_free(&alone.data);
    saf_free(&whole.data);
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
    if (mine.end > mine.begin)
        assert_memory_equal(v, whole + mine.begin, (size_t)(mine.end - mine.begin) * sizeof *v);
    saf_free(&whole);
}

static void check_layer(const pair *m, int64_t layer, saf_slice_range range, const saf__layer *l) {
    const saf_span heads = {range.heads.begin * m->p.head_width, range.heads.end * m->p.head_width};
    saf_span key_heads = {0, 0};
    /* those that a head of the part reads */
    for (int64_t h = range.heads.end - 1; h >= range.heads.begin; h--) {
        int64_t g = h / (m->p.heads / m->p.kv_heads);
        key_heads.begin = g * m->p.head_width;
        if (key_heads.end == 0) key_heads.end = (g + 1) * m->p.head_width;
    }
    const struct {
        const char *name;
        saf_span span;
        const saf_weight *w;
    } matrices[] = {
        {"attn_q.weight", heads, &l->q},           {"attn_k.weight", key_heads, &l->k},
        {"attn_v.weight", key_heads, &l->v},       {"attn_output.weight", range.width, &l->o},
        {"ffn_gate.weight", range.ff, &l->gate},   {"ffn_up.weight", range.ff, &l->up},
        {"ffn_down.weight", range.width, &l->down}};
    const struct {
        const char *name;
        const saf_span *span;
        const float *v;
    } vectors[] = {
        {"attn_norm.weight", NULL, l->attn_norm}, {"ffn_norm.weight", NULL, l->ffn_norm},
        {"attn_q_norm.weight", NULL, l->q_norm},  {"attn_k_norm.weight", NULL, l->k_norm},
        {"attn_q.bias", &heads, l->q_bias},       {"attn_k.bias", &key_heads, l->k_bias},
        {"attn_v.bias", &key_heads, l->v_bias}};
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", (int)layer, matrices[i].name);
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
    if (range.head && !m->p.tied)
        check_matrix(m->g, "output.weight", range.vocab, &s->head);
    else
        assert_null(s->head.data);
    if (range.head) check_vector(m->g, "output_norm.weight", NULL, s->output_norm);
    for (int64_t i = range.layer0; i < range.layer1; i++)
        check_layer(m, i, range, &s->layers[i - range.layer0]);
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
    check_slice(m, range, given);
    assert_int_equal(saf_slice_memory_bytes(given), saf_slice_memory_bytes(read));
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
        cmocka_unit_test(test_slice_refuses_rows_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
