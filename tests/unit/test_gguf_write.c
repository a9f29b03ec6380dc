/* What the writer writes, the reader reads; split files, and what is wrong with bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char folder[] = "/tmp/saf-gguf-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* Path of a file in the folder; a few at a time. */
static const char *in_folder(const char *name) {
    static char paths[4][160];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", folder, name);
    return paths[next];
}

static void expect_refused(const char *path, saf_status expected, const char *piece) {
    saf_gguf *g = NULL;
    saf_status st = saf_gguf_open(path, &g);
    if (st != expected || !strstr(saf_error_text(), piece))
        fail_msg("%s: status %d, expected %d; message \"%s\", expected \"%s\"", path, st, expected,
                 saf_error_text(), piece);
    assert_null(g);
}

static void test_gguf_writer_round_trip(void **state) {
    const char *path = in_folder("round.gguf");
    const int64_t vector[1] = {5}, matrix[2] = {64, 3}, cube[4] = {2, 3, 4, 5};
    const char strings[] = "\3\0\0\0\0\0\0\0abc\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\xFF";
    const double doubles[3] = {1.5, -2.5, 1e300};
    uint8_t quants[204], bytes[480];
    float five[5] = {1, 2, 3, 4, 5}, back[5];
    saf_gguf_writer *w = NULL;
    saf_gguf *g = NULL;
    bool found, flag;
    int64_t v;
    double x;
    const char *text;
    size_t len;
    saf_gguf_kind kind, element;
    (void)state;
    for (size_t i = 0; i < sizeof quants; i++) quants[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 13);
    OK(saf_gguf_writer_open(path, &w));
    OK(saf_gguf_write_string(w, "general.name", "caf\xC3\xA9"));
    OK(saf_gguf_declare(w, "a", SAF_DTYPE_F32, 1, vector));
    OK(saf_gguf_write_int(w, "i8", SAF_GGUF_I8, -128));
    OK(saf_gguf_write_int(w, "u16", SAF_GGUF_U16, 65535));
    OK(saf_gguf_write_int(w, "i64", SAF_GGUF_I64, INT64_MIN));
    OK(saf_gguf_write_int(w, "u64", SAF_GGUF_U64, INT64_MAX));
    OK(saf_gguf_write_u32(w, "u32", UINT32_MAX));
    OK(saf_gguf_write_f32(w, "f32", 0.1f));
    OK(saf_gguf_write_bool(w, "yes", true));
    OK(saf_gguf_write_array(w, "strings", SAF_GGUF_STRING, 3, strings, sizeof strings - 1));
    OK(saf_gguf_write_array(w, "doubles", SAF_GGUF_F64, 3, doubles, sizeof doubles));
    OK(saf_gguf_write_array(w, "none", SAF_GGUF_STRING, 0, "", 0));
    OK(saf_gguf_declare(w, "b", SAF_DTYPE_Q8_0, 2, matrix));
    OK(saf_gguf_declare(w, "c", SAF_DTYPE_I32, 4, cube));
    OK(saf_gguf_write_data(w, five, sizeof five));
    OK(saf_gguf_write_data(w, quants, 100));
    OK(saf_gguf_write_data(w, quants + 100, 104));
    OK(saf_gguf_write_data(w, bytes, 480));
    assert_int_equal(access(path, F_OK), -1);
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
    assert_int_equal(access(in_folder("round.gguf.part"), F_OK), -1);

    OK(saf_gguf_open(path, &g));
    assert_int_equal(saf_gguf_version(g), 3);
    assert_int_equal(saf_gguf_key_count(g), 11);
    OK(saf_gguf_get_string(g, "general.name", &found, &text, &len));
    assert_true(found && len == 5 && memcmp(text, "caf\xC3\xA9", 5) == 0);
    OK(saf_gguf_get_i64(g, "i8", &found, &v));
    assert_int_equal(v, -128);
    OK(saf_gguf_get_i64(g, "u16", &found, &v));
    assert_int_equal(v, 65535);
    OK(saf_gguf_get_i64(g, "i64", &found, &v));
    assert_true(v == INT64_MIN);
    OK(saf_gguf_get_i64(g, "u64", &found, &v));
    assert_true(v == INT64_MAX);
    OK(saf_gguf_get_i64(g, "u32", &found, &v));
    assert_true(v == UINT32_MAX);
    OK(saf_gguf_get_f64(g, "f32", &found, &x));
    assert_true(x == (double)0.1f);
    OK(saf_gguf_get_bool(g, "yes", &found, &flag));
    assert_true(flag);
    OK(saf_gguf_get_array(g, "strings", &found, &element, &v));
    assert_true(element == SAF_GGUF_STRING && v == 3);
    saf_gguf_array_string(g, "strings", 0, &text, &len);
    assert_true(len == 3 && memcmp(text, "abc", 3) == 0);
    saf_gguf_array_string(g, "strings", 1, &text, &len);
    assert_int_equal(len, 0);
    saf_gguf_array_string(g, "strings", 2, &text, &len);
    assert_true(len == 1 && text[0] == '\xFF');
    assert_true(saf_gguf_array_f64(g, "doubles", 2) == 1e300);
    assert_true(saf_gguf_array_i64(g, "doubles", 2) == 0);
    OK(saf_gguf_get_array(g, "none", &found, &element, &v));
    assert_true(found && v == 0);
    assert_string_equal(saf_gguf_key(g, 9, &kind, &element, &v), "doubles");
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, "a");
    assert_int_equal(t->offset % 32, 0);
    OK(saf_gguf_tensor_read(g, t, 0, sizeof back, back));
    assert_memory_equal(back, five, sizeof five);
    t = saf_gguf_tensor_find(g, "b");
    assert_true(t->dtype == SAF_DTYPE_Q8_0 && t->bytes == 204 && t->ndim == 2);
    uint8_t got[480];
    OK(saf_gguf_tensor_read(g, t, 0, 204, got));
    assert_memory_equal(got, quants, 204);
    t = saf_gguf_tensor_find(g, "c");
    assert_true(t->ndim == 4 && t->shape[3] == 5);
    OK(saf_gguf_tensor_read(g, t, 80, 400, got));
    assert_memory_equal(got, bytes + 80, 400);
    saf_gguf_close(&g);
}

static void test_gguf_writer_copies_bit_for_bit(void **state) {
    const char *model = "../shared/vocab/llama-spm.gguf";
    saf_gguf *a = NULL, *b = NULL;
    saf_gguf_writer *w = NULL;
    saf_buf x = {0}, y = {0};
    saf_gguf_kind kind, element;
    int64_t length;
    (void)state;
    if (access(model, R_OK)) {
        print_message("# no %s on this machine\n", model);
        skip();
    }
    OK(saf_gguf_open(model, &a));
    OK(saf_gguf_writer_open(in_folder("copy.gguf"), &w));
    for (int64_t i = 0; i < saf_gguf_key_count(a); i++)
        OK(saf_gguf_write_copy(w, a, saf_gguf_key(a, i, &kind, &element, &length)));
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
    OK(saf_file_read(model, 1 << 24, &x));
    OK(saf_file_read(in_folder("copy.gguf"), 1 << 24, &y));
    assert_true(y.len >= x.len); /* padded to the alignment */
    assert_memory_equal(x.data, y.data, x.len);
    OK(saf_gguf_open(in_folder("copy.gguf"), &b));
    saf_gguf_close(&b);
    saf_gguf_close(&a);
    saf_buf_free(&x);
    saf_buf_free(&y);
}

static void test_gguf_writer_honours_alignment(void **state) {
    const int64_t one[1] = {1};
    float v = 3;
    saf_gguf_writer *w = NULL;
    saf_gguf *g = NULL;
    (void)state;
    OK(saf_gguf_writer_open(in_folder("aligned.gguf"), &w));
    OK(saf_gguf_declare(w, "a", SAF_DTYPE_F32, 1, one));
    OK(saf_gguf_declare(w, "b", SAF_DTYPE_F32, 1, one));
    OK(saf_gguf_write_u32(w, "general.alignment", 8192));
    OK(saf_gguf_write_data(w, &v, 4));
    OK(saf_gguf_write_data(w, &v, 4));
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
    OK(saf_gguf_open(in_folder("aligned.gguf"), &g));
    assert_int_equal(saf_gguf_tensor_at(g, 0)->offset, 8192);
    assert_int_equal(saf_gguf_tensor_at(g, 1)->offset, 16384);
    saf_gguf_close(&g);
}

static void test_gguf_writer_refuses_misuse(void **state) {
    const int64_t ragged[1] = {33}, zero[1] = {0}, huge[2] = {INT64_MAX, 2}, one[1] = {1};
    saf_gguf_writer *w = NULL;
    char data[8] = {0};
    (void)state;
    assert_int_equal(saf_gguf_writer_open(in_folder("no/such/folder.gguf"), &w), SAF_CANNOT_CREATE);
    assert_null(w);
    OK(saf_gguf_writer_open(in_folder("misuse.gguf"), &w));
    OK(saf_gguf_write_u32(w, "k", 1));
    assert_int_equal(saf_gguf_write_u32(w, "k", 1), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_u32(w, "general.alignment", 24), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_int(w, "v", SAF_GGUF_U8, 256), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_int(w, "v", SAF_GGUF_F32, 1), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_array(w, "v", SAF_GGUF_U32, 2, data, 7), SAF_DEFECT);
    assert_int_equal(saf_gguf_declare(w, "t", SAF_DTYPE_Q8_0, 1, ragged), SAF_DEFECT);
    assert_int_equal(saf_gguf_declare(w, "t", SAF_DTYPE_F32, 1, zero), SAF_DEFECT);
    assert_int_equal(saf_gguf_declare(w, "t", SAF_DTYPE_F32, 2, huge), SAF_DEFECT);
    assert_int_equal(saf_gguf_declare(w, "t", SAF_DTYPE_U8, 1, one), SAF_DEFECT);
    OK(saf_gguf_declare(w, "k", SAF_DTYPE_F32, 1, one)); /* a tensor may be called as a key is */
    assert_int_equal(saf_gguf_declare(w, "k", SAF_DTYPE_F32, 1, one), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_data(w, data, 8), SAF_DEFECT);
    assert_int_equal(saf_gguf_writer_finish(w), SAF_DEFECT);
    assert_int_equal(saf_gguf_write_u32(w, "late", 1), SAF_DEFECT);
    saf_gguf_writer_free(&w);
    assert_int_equal(access(in_folder("misuse.gguf"), F_OK), -1);
    assert_int_equal(access(in_folder("misuse.gguf.part"), F_OK), -1);
}

/* A part with one tensor "t<no>" of one float <no>. A negative number leaves its key out. */
static void write_part(const char *path, int no, int count, int total, const char *tensor) {
    const int64_t one[1] = {1};
    float v = (float)no;
    saf_gguf_writer *w = NULL;
    OK(saf_gguf_writer_open(path, &w));
    if (no == 0) OK(saf_gguf_write_string(w, "general.architecture", "llama"));
    if (no >= 0) OK(saf_gguf_write_int(w, "split.no", SAF_GGUF_U16, no));
    if (count >= 0) OK(saf_gguf_write_int(w, "split.count", SAF_GGUF_U16, count));
    if (total >= 0) OK(saf_gguf_write_int(w, "split.tensors.count", SAF_GGUF_I32, total));
    OK(saf_gguf_declare(w, tensor, SAF_DTYPE_F32, 1, one));
    OK(saf_gguf_write_data(w, &v, sizeof v));
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
}

static void write_parts(void) {
    write_part(in_folder("m-00001-of-00003.gguf"), 0, 3, 3, "t0");
    write_part(in_folder("m-00002-of-00003.gguf"), 1, 3, 3, "t1");
    write_part(in_folder("m-00003-of-00003.gguf"), 2, 3, 3, "t2");
}

static void test_gguf_split_files_are_one_model(void **state) {
    saf_gguf *g = NULL;
    char name[8];
    float v;
    uint64_t bytes = 0;
    uint8_t sha[32];
    (void)state;
    write_parts();
    OK(saf_gguf_open(in_folder("m-00001-of-00003.gguf"), &g));
    assert_int_equal(saf_gguf_parts(g), 3);
    assert_int_equal(saf_gguf_tensor_count(g), 3);
    assert_int_equal(saf_gguf_key_count(g), 4); /* of the first part alone */
    for (int i = 0; i < 3; i++) {
        struct stat info;
        snprintf(name, sizeof name, "t%d", i);
        const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
        assert_non_null(t);
        assert_int_equal(t->part, i);
        OK(saf_gguf_tensor_read(g, t, 0, 4, &v));
        assert_true(v == (float)i);
        char part[32];
        snprintf(part, sizeof part, "m-0000%d-of-00003.gguf", i + 1);
        assert_int_equal(stat(in_folder(part), &info), 0);
        bytes += (uint64_t)info.st_size;
    }
    assert_int_equal(saf_gguf_file_bytes(g), bytes);
    OK(saf_gguf_header_sha256(g, sha));
    saf_gguf_close(&g);
}

static void test_gguf_split_refusals(void **state) {
    const char *first = in_folder("m-00001-of-00003.gguf");
    char copy[160], second[160];
    (void)state;
    snprintf(copy, sizeof copy, "%s", first);
    snprintf(second, sizeof second, "%s", in_folder("m-00002-of-00003.gguf"));
    write_parts();
    expect_refused(second, SAF_BAD_INPUT, "m-00001-of-00003.gguf");
    remove(second);
    expect_refused(copy, SAF_NO_INPUT, "m-00002-of-00003.gguf");
    write_part(second, 1, 4, 3, "t1");
    expect_refused(copy, SAF_BAD_INPUT, "part 2 of 4, expected 2 of 3");
    write_part(second, 2, 3, 3, "t1");
    expect_refused(copy, SAF_BAD_INPUT, "part 3 of 3, expected 2 of 3");
    write_part(second, -1, -1, -1, "t1");
    expect_refused(copy, SAF_BAD_INPUT, "expected 2 of 3");
    write_part(second, 1, 3, 3, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "\"t0\" is there twice");
    write_part(second, 1, 3, 3, "t1");
    write_part(copy, 0, 3, 4, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "split.tensors.count is 4, but the parts hold 3");
    write_part(copy, 0, 2, 3, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "named as part 1 of 3, but split.no says part 1 of 2");
    write_part(copy, -1, -1, -1, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "no key split.count");
    write_part(copy, -1, 3, 3, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "one of split.no and split.count is missing");
    write_part(copy, 0, 0, 3, "t0");
    expect_refused(copy, SAF_BAD_INPUT, "out of range");
    write_part(in_folder("renamed.gguf"), 0, 3, 3, "t0");
    expect_refused(in_folder("renamed.gguf"), SAF_BAD_INPUT, "-00001-of-00003.gguf");
    write_part(in_folder("renamed.gguf"), 1, 3, 3, "t0");
    expect_refused(in_folder("renamed.gguf"), SAF_BAD_INPUT, "part 2 of a model split in 3");
}

static void test_gguf_split_of_one_is_whole(void **state) {
    saf_gguf *g = NULL;
    (void)state;
    write_part(in_folder("whole.gguf"), 0, 1, 1, "t0");
    OK(saf_gguf_open(in_folder("whole.gguf"), &g));
    assert_int_equal(saf_gguf_parts(g), 1);
    saf_gguf_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_writer_round_trip),
        cmocka_unit_test(test_gguf_writer_copies_bit_for_bit),
        cmocka_unit_test(test_gguf_writer_honours_alignment),
        cmocka_unit_test(test_gguf_writer_refuses_misuse),
        cmocka_unit_test(test_gguf_split_files_are_one_model),
        cmocka_unit_test(test_gguf_split_refusals),
        cmocka_unit_test(test_gguf_split_of_one_is_whole),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
