/* The blocks of a slice, and the header for ranks that have no file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/slice.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char path[64];

/* Of several blocks, one tensor of them larger than a block; tied, with norms of q and k. */
static int make_model(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/saf-slice-%d.gguf", (int)getpid());
    saf_model_make_options o = {.arch = "qwen3",
                                .layers = 3,
                                .width = 320,
                                .heads = 5,
                                .kv_heads = 1,
                                .head_width = 64,
                                .ff_width = 1120,
                                .context = 128,
                                .vocab_size = 7001,
                                .dtype = SAF_DTYPE_Q8_0,
                                .tied = true,
                                .seed = 1};
    if (saf_kernels_init(NULL) != SAF_OK) return -1;
    return saf_model_make(path, &o) == SAF_OK ? 0 : -1;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

static void same_weight(const saf_gguf *g, const char *name, const saf_weight *w) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    saf_weight whole;
    char *raw = NULL;
    assert_non_null(t);
    OK(saf_weight_plan(t->dtype, t->shape[1], t->shape[0], &whole));
    OK(saf_alloc(t->bytes, 1, &raw));
    OK(saf_alloc(whole.bytes, 1, &whole.data));
    OK(saf_gguf_tensor_read(g, t, 0, t->bytes, raw));
    saf_weight_pack(&whole, 0, whole.rows, raw);
    assert_int_equal(w->bytes, whole.bytes);
    assert_memory_equal(w->data, whole.data, whole.bytes);
    saf_free(&whole.data);
    saf_free(&raw);
}

static void same_vector(const saf_gguf *g, const char *name, const float *v) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    float *whole = NULL;
    assert_non_null(t);
    assert_int_equal(t->dtype, SAF_DTYPE_F32);
    OK(saf_alloc(t->bytes, 1, &whole));
    OK(saf_gguf_tensor_read(g, t, 0, t->bytes, whole));
    assert_memory_equal(v, whole, t->bytes);
    saf_free(&whole);
}

/* Against every tensor read and packed as a whole. */
static void check_slice(const saf_gguf *g, const saf_slice *s, saf_slice_range range) {
    char name[64];
    if (range.embedding || range.head) same_weight(g, "token_embd.weight", &s->embedding);
    if (range.head) same_vector(g, "output_norm.weight", s->output_norm);
    for (int64_t i = range.layer0; i < range.layer1; i++) {
        const saf__layer *l = &s->layers[i - range.layer0];
        const struct {
            const char *name;
            const saf_weight *w;
            const float *v;
        } all[] = {
            {"attn_norm", NULL, l->attn_norm}, {"ffn_norm", NULL, l->ffn_norm},
            {"attn_q_norm", NULL, l->q_norm},  {"attn_k_norm", NULL, l->k_norm},
            {"attn_q", &l->q, NULL},           {"attn_k", &l->k, NULL},
            {"attn_v", &l->v, NULL},           {"attn_output", &l->o, NULL},
            {"ffn_gate", &l->gate, NULL},      {"ffn_up", &l->up, NULL},
            {"ffn_down", &l->down, NULL},
        };
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", (int)i, all[k].name);
            if (all[k].w)
                same_weight(g, name, all[k].w);
            else
                same_vector(g, name, all[k].v);
        }
    }
}

static void make_image(const saf_gguf *g, saf_buf *image) {
    OK(saf_gguf_image_write(g, image));
    assert_true(image->len > 100);
}

enum { RANGES = 4 };
static saf_slice_range range_at(const saf_model_params *p, int i) {
    static const struct {
        int64_t layer0, layer1;
        bool embedding, head;
    } of[RANGES] = {
        {0, 3, true, true}, {0, 1, true, false}, {1, 2, false, false}, {2, 3, false, true}};
    return saf_slice_range_whole(p, of[i].layer0, of[i].layer1, of[i].embedding, of[i].head);
}

static void test_slice_read_and_given(void **state) {
    saf_gguf *g = NULL, *headless = NULL;
    saf_model_params p = {0}, q = {0};
    saf_buf image = {0};
    (void)state;
    OK(saf_gguf_open(path, &g));
    make_image(g, &image);
    OK(saf_gguf_image_open(path, &image, &headless));
    assert_null(image.data);
    OK(saf_model_params_read(g, &p));
    OK(saf_model_params_read(headless, &q));
    for (int r = 0; r < RANGES; r++) {
        saf_slice *read = NULL, *given = NULL;
        saf_blocks *here = NULL, *there = NULL;
        char *bytes = NULL;
        size_t sum = 0, replicated;
        OK(saf_slice_load(g, &p, range_at(&p, r), &read));
        check_slice(g, read, range_at(&p, r));
        OK(saf_blocks_new(g, &p, range_at(&p, r), &here));
        OK(saf_blocks_new(headless, &q, range_at(&p, r), &there));
        OK(saf_slice_new(headless, &q, range_at(&p, r), &given));
        OK(saf_alloc(saf_blocks_largest(here), 1, &bytes));
        assert_int_equal(saf_blocks_count(here), saf_blocks_count(there));
        assert_true(saf_blocks_count(here) > (r == 0));
        for (int64_t i = saf_blocks_count(here); i-- > 0;) {
            assert_int_equal(saf_blocks_bytes(here, i), saf_blocks_bytes(there, i));
            assert_true(saf_blocks_bytes(here, i) <= saf_blocks_largest(there));
            assert_true(saf_blocks_bytes(here, i) < SAF_BLOCK_BYTES + 4096);
            OK(saf_blocks_read(here, i, bytes));
            saf_slice_put(given, there, i, bytes);
            sum += saf_blocks_bytes(here, i);
        }
        assert_int_equal(sum, saf_blocks_total(here));
        size_t file_bytes = saf_slice_file_bytes(g, &p, range_at(&p, r), &replicated);
        assert_in_range(sum, file_bytes, file_bytes + 64 * 14 * 3);
        check_slice(g, given, range_at(&p, r));
        assert_int_equal(saf_slice_memory_bytes(given), saf_slice_memory_bytes(read));
        assert_int_equal(saf_blocks_read(there, 0, bytes), SAF_DEFECT);
        saf_free(&bytes);
        saf_blocks_free(&here);
        saf_blocks_free(&there);
        saf_slice_free(&read);
        saf_slice_free(&given);
    }
    saf_model_params_free(&p);
    saf_model_params_free(&q);
    saf_gguf_close(&g);
    saf_gguf_close(&headless);
}

typedef struct {
    size_t last;
    int calls, fail_at;
} ticks;

static saf_status count_tick(void *ctx, size_t bytes) {
    ticks *t = ctx;
    assert_true(bytes > t->last);
    t->last = bytes;
    return ++t->calls == t->fail_at ? saf_fail(SAF_FAILED, "enough") : SAF_OK;
}

static void test_slice_read_tells_how_far_it_is(void **state) {
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    saf_blocks *b = NULL;
    saf_slice *s = NULL;
    ticks all = {0}, some = {.fail_at = 1};
    (void)state;
    OK(saf_gguf_open(path, &g));
    OK(saf_model_params_read(g, &p));
    OK(saf_blocks_new(g, &p, range_at(&p, 0), &b));
    OK(saf_slice_new(g, &p, range_at(&p, 0), &s));
    OK(saf_slice_read(s, b, count_tick, &all));
    assert_in_range(all.calls, 0, saf_blocks_count(b));
    if (all.calls == saf_blocks_count(b)) assert_int_equal(all.last, saf_blocks_total(b));
    /* With several threads the first may get no block at all. */
    saf_status st = saf_slice_read(s, b, count_tick, &some);
    assert_int_equal(st, some.calls > 0 ? SAF_FAILED : SAF_OK);
    saf_blocks_free(&b);
    saf_slice_free(&s);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
}

/* The file becomes shorter after it was opened: whoever reads says so. */
static void test_slice_of_a_file_cut_short(void **state) {
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    saf_slice *s = NULL;
    char copy[80], command[200];
    (void)state;
    snprintf(copy, sizeof copy, "%s.copy", path);
    snprintf(command, sizeof command, "cp '%s' '%s'", path, copy);
    assert_int_equal(system(command), 0);
    OK(saf_gguf_open(copy, &g));
    OK(saf_model_params_read(g, &p));
    assert_int_equal(truncate(copy, (off_t)saf_gguf_file_bytes(g) - 1000), 0);
    assert_int_equal(saf_slice_load(g, &p, range_at(&p, 0), &s), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "has become shorter"));
    assert_null(s);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
    assert_int_equal(unlink(copy), 0);
}

/* Copies tensors [first, last) of g; `factors`: and rotary factors. */
static void write_part(const saf_gguf *g, const char *to, int no, int64_t first, int64_t last,
                       bool factors) {
    saf_gguf_writer *w = NULL;
    char *raw = NULL;
    float ones[32];
    const int64_t n = 32;
    for (int i = 0; i < 32; i++) ones[i] = 1.0f + (float)i / 64;
    OK(saf_gguf_writer_open(to, &w));
    for (int64_t i = 0; no == 0 && i < saf_gguf_key_count(g); i++) {
        saf_gguf_kind kind, element;
        int64_t length;
        OK(saf_gguf_write_copy(w, g, saf_gguf_key(g, i, &kind, &element, &length)));
    }
    OK(saf_gguf_write_int(w, "split.no", SAF_GGUF_U16, no));
    OK(saf_gguf_write_int(w, "split.count", SAF_GGUF_U16, 2));
    OK(saf_gguf_write_int(w, "split.tensors.count", SAF_GGUF_I32, saf_gguf_tensor_count(g) + 1));
    for (int64_t i = first; i < last; i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        OK(saf_gguf_declare(w, t->name, t->dtype, t->ndim, t->shape));
    }
    if (factors) OK(saf_gguf_declare(w, "rope_freqs.weight", SAF_DTYPE_F32, 1, &n));
    for (int64_t i = first; i < last; i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        OK(saf_alloc(t->bytes, 1, &raw));
        OK(saf_gguf_tensor_read(g, t, 0, t->bytes, raw));
        OK(saf_gguf_write_data(w, raw, t->bytes));
        saf_free(&raw);
    }
    if (factors) OK(saf_gguf_write_data(w, ones, sizeof ones));
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
}

/* One of three parts of the first layer, or of all others: the second one has but heads. */
static saf_slice_range part_at(const saf_model_params *p, int part, bool first) {
    static const saf_span heads[] = {{0, 2}, {2, 4}, {4, 5}};
    const int64_t width[] = {0, 96, 96, p->width}, ff[] = {0, 1088, 1088, p->ff_width},
                  vocab[] = {0, 3200, 3200, p->vocab};
    saf_slice_range range = range_at(p, first ? 1 : 3);
    range.layer0 = first ? 0 : 1;
    range.heads = heads[part];
    range.width = (saf_span){width[part], width[part + 1]};
    range.ff = (saf_span){ff[part], ff[part + 1]};
    range.vocab = (saf_span){vocab[part], vocab[part + 1]};
    return range;
}

/* Parts from both files are those from the one; *sum is what they count. */
static void same_parts(const saf_gguf *g, const saf_gguf *split, const saf_model_params *p,
                       size_t *sum) {
    *sum = 0;
    for (int i = 0; i < 6; i++) {
        saf_slice_range range = part_at(p, i / 2, i % 2 == 0);
        saf_slice *a = NULL, *b = NULL;
        size_t replicated, bytes = saf_slice_file_bytes(split, p, range, &replicated);
        *sum += bytes - replicated;
        OK(saf_slice_load(g, p, range, &a));
        OK(saf_slice_load(split, p, range, &b));
        assert_int_equal(saf_slice_memory_bytes(a), saf_slice_memory_bytes(b));
        /* all matrices lie side by side, that of down in the last layer at the end */
        const saf_weight *last = &a->layers[range.layer1 - range.layer0 - 1].down;
        size_t all = (size_t)((char *)last->data - a->matrices) + last->bytes;
        assert_true(all > 0);
        assert_memory_equal(a->matrices, b->matrices, all);
        saf_slice_free(&a);
        saf_slice_free(&b);
    }
}

/* A model in two files, the second with the rotary factors that all ranks read. */
static void test_slice_of_split_files(void **state) {
    saf_gguf *g = NULL, *split = NULL, *headless = NULL;
    saf_model_params p = {0}, q = {0};
    saf_buf image = {0};
    char parts[2][96];
    (void)state;
    OK(saf_gguf_open(path, &g));
    for (int i = 0; i < 2; i++) {
        int64_t n = saf_gguf_tensor_count(g), half = n / 2;
        snprintf(parts[i], sizeof parts[i], "%s-0000%d-of-00002.gguf", path, i + 1);
        write_part(g, parts[i], i, i ? half : 0, i ? n : half, i == 1);
    }
    OK(saf_gguf_open(parts[0], &split));
    make_image(split, &image);
    OK(saf_gguf_image_open(parts[0], &image, &headless));
    assert_int_equal(saf_gguf_parts(headless), 2);
    OK(saf_model_params_read(split, &p));
    OK(saf_model_params_read(headless, &q));
    assert_true(p.inv_freq[5] > 0 && p.inv_freq[5] < 1);
    assert_memory_equal(p.inv_freq, q.inv_freq, (size_t)p.rope_half * sizeof *p.inv_freq);
    size_t sum, whole = 0;
    for (int64_t t = 0; t < saf_gguf_tensor_count(split); t++)
        whole += saf_gguf_tensor_at(split, t)->bytes;
    same_parts(g, split, &p, &sum);
    assert_int_equal(sum, whole);
    for (int r = 0; r < RANGES; r++) {
        saf_blocks *b = NULL;
        saf_slice *s = NULL;
        char *bytes = NULL;
        OK(saf_blocks_new(split, &p, range_at(&p, r), &b));
        OK(saf_slice_new(headless, &q, range_at(&p, r), &s));
        OK(saf_alloc(saf_blocks_largest(b), 1, &bytes));
        for (int64_t i = 0; i < saf_blocks_count(b); i++) {
            OK(saf_blocks_read(b, i, bytes));
            saf_slice_put(s, b, i, bytes);
        }
        check_slice(g, s, range_at(&p, r));
        saf_free(&bytes);
        saf_blocks_free(&b);
        saf_slice_free(&s);
    }
    saf_model_params_free(&p);
    saf_model_params_free(&q);
    saf_gguf_close(&headless);
    saf_gguf_close(&split);
    saf_gguf_close(&g);
    /* Where one of the files is missing, all are. */
    assert_int_equal(unlink(parts[1]), 0);
    assert_int_equal(saf_gguf_open(parts[0], &split), SAF_NO_INPUT);
    assert_int_equal(unlink(parts[0]), 0);
}

/* An image of two parts, each of them the whole model, whose header knows of one. */
static void test_image_has_more_parts_than_the_header(void **state) {
    saf_gguf *g = NULL, *other = NULL;
    saf_buf image = {0}, two = {0};
    uint64_t start[3], bytes, extent[3];
    (void)state;
    OK(saf_gguf_open(path, &g));
    make_image(g, &image);
    memcpy(start, image.data, sizeof start);
    memcpy(&bytes, image.data + 24, sizeof bytes);
    memcpy(extent, image.data + 32, sizeof extent);
    assert_int_equal(start[1], 1);
    for (uint64_t parts = 1; parts <= 2; parts++) {
        OK(saf_buf_append(&two, (uint64_t[]){start[0], parts, parts}, sizeof start));
        for (uint64_t i = 0; i < parts; i++) OK(saf_buf_append(&two, &bytes, sizeof bytes));
        for (uint64_t i = 0; i < parts; i++)
            OK(saf_buf_append(&two, (uint64_t[]){i, 0, extent[2]}, sizeof extent));
        for (uint64_t i = 0; i < parts; i++)
            OK(saf_buf_append(&two, image.data + 32 + 24 * start[2], extent[2]));
        saf_status st = saf_gguf_image_open(path, &two, &other);
        assert_int_equal(st, parts == 1 ? SAF_OK : SAF_BAD_INPUT);
        if (parts == 2) assert_non_null(strstr(saf_error_text(), "2 files"));
        saf_gguf_close(&other);
    }
    saf_buf_free(&image);
    saf_gguf_close(&g);
}

static void test_image_damaged(void **state) {
    saf_gguf *g = NULL, *other = NULL;
    saf_buf image = {0}, copy = {0};
    (void)state;
    OK(saf_gguf_open(path, &g));
    make_image(g, &image);
    for (size_t len = 0; len < image.len; len += len < 200 ? 1 : 97) {
        OK(saf_buf_append(&copy, image.data, len));
        assert_int_equal(saf_gguf_image_open(path, &copy, &other), SAF_BAD_INPUT);
        assert_null(other);
        assert_null(copy.data);
    }
    for (size_t at = 0; at < 24 + 8 + 24; at++) { /* numbers of the image itself */
        for (int bit = 0; bit < 8; bit++) {
            OK(saf_buf_append(&copy, image.data, image.len));
            copy.data[at] ^= (char)(1 << bit);
            saf_status st = saf_gguf_image_open(path, &copy, &other);
            if (st != SAF_OK) assert_int_equal(st, SAF_BAD_INPUT);
            saf_gguf_close(&other);
        }
    }
    saf_buf_free(&image);
    saf_gguf_close(&g);
}

/* Made by fuzzing: an array of 16 million strings, of which nothing came. Refused before there is
 * memory for it. */
static void test_image_names_strings_that_did_not_come(void **state) {
    char bytes[256];
    saf_gguf *g = NULL;
    saf_buf image = {0};
    FILE *f = fopen("tests/fuzz/corpus/image/strings-that-did-not-come", "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_true(n > 100 && n < sizeof bytes);
    OK(saf_buf_append(&image, bytes, n));
    assert_int_equal(saf_gguf_image_open("m.gguf", &image, &g), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "an array needs 134217728 bytes"));
    (void)state;
}

static void test_image_keeps_the_header(void **state) {
    saf_gguf *g = NULL, *other = NULL;
    saf_buf image = {0};
    uint8_t a[32], b[32];
    char byte;
    (void)state;
    OK(saf_gguf_open(path, &g));
    make_image(g, &image);
    OK(saf_gguf_image_open(path, &image, &other));
    assert_int_equal(saf_gguf_tensor_count(other), saf_gguf_tensor_count(g));
    assert_int_equal(saf_gguf_file_bytes(other), saf_gguf_file_bytes(g));
    OK(saf_gguf_header_sha256(g, a));
    OK(saf_gguf_header_sha256(other, b));
    assert_memory_equal(a, b, sizeof a);
    const saf_gguf_tensor *t = saf_gguf_tensor_find(other, "token_embd.weight");
    assert_int_equal(saf_gguf_tensor_read(other, t, 0, 1, &byte), SAF_DEFECT);
    saf_gguf_drop_keys(other);
    assert_int_equal(saf_gguf_header_sha256(other, b), SAF_DEFECT);
    saf_gguf_close(&g);
    saf_gguf_close(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_read_and_given),
        cmocka_unit_test(test_slice_read_tells_how_far_it_is),
        cmocka_unit_test(test_slice_of_a_file_cut_short),
        cmocka_unit_test(test_slice_of_split_files),
        cmocka_unit_test(test_image_has_more_parts_than_the_header),
        cmocka_unit_test(test_image_damaged),
        cmocka_unit_test(test_image_names_strings_that_did_not_come),
        cmocka_unit_test(test_image_keeps_the_header),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
