/* Checkpoints whose checksum is right and whose content is not: every claim is checked before it is
 * believed. */
#include <fcntl.h>
#include <hdf5.h>

#include "checkpoint_folder.h"
#include "store/checkpoint.h"

static char file[320];

static int set_up(void **state) {
    if (checkpoint_set_up(state) != 0) return -1;
    snprintf(file, sizeof file, "%s.ckpt-1", output);
    return 0;
}

/* ---- what is done to a good one ---- */

static void remove_attribute(hid_t f, const char *name) {
    assert_true(H5Adelete(f, name) >= 0);
}

static void put_attribute(hid_t f, const char *name, hid_t type, int n, const void *value) {
    hsize_t dim = (hsize_t)n;
    hid_t space = n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dim, NULL);
    if (H5Aexists(f, name) > 0) remove_attribute(f, name);
    hid_t a = H5Acreate2(f, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0 && H5Awrite(a, type, value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
}

static void put_i64(hid_t f, const char *name, int64_t value) {
    put_attribute(f, name, H5T_NATIVE_INT64, 1, &value);
}

/* A dataset in place of the one there; of `rank` dimensions of `n`, without values unless given. */
static void put_dataset(hid_t f, const char *name, hid_t type, int rank, hsize_t n, hid_t creation,
                        const void *values) {
    hsize_t dims[2] = {n, n};
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    if (H5Lexists(f, name, H5P_DEFAULT) > 0) assert_true(H5Ldelete(f, name, H5P_DEFAULT) >= 0);
    hid_t d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(d >= 0);
    if (values) assert_true(H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    const char *dtype = "I32";
    put_attribute(d, "dtype", text, 1, &dtype);
    H5Tclose(text);
    H5Dclose(d);
    H5Sclose(space);
}

static hid_t text_type(void) {
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    H5Tset_cset(text, H5T_CSET_UTF8);
    return text;
}

static const int32_t numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static void no_schema(hid_t f) {
    remove_attribute(f, "checkpoint_schema");
}
static void schema_0(hid_t f) {
    put_i64(f, "checkpoint_schema", 0);
}
static void schema_newer(hid_t f) {
    put_i64(f, "checkpoint_schema", 2);
}
static void schema_text(hid_t f) {
    hid_t text = text_type();
    const char *one = "1";
    put_attribute(f, "checkpoint_schema", text, 1, &one);
    H5Tclose(text);
}
static void no_kind(hid_t f) {
    remove_attribute(f, "job_kind");
}
static void kind_number(hid_t f) {
    put_i64(f, "job_kind", 1);
}
static void kind_long(hid_t f) {
    char name[5000];
    const char *value = name;
    hid_t text = text_type();
    memset(name, 'k', sizeof name);
    name[sizeof name - 1] = '\0';
    put_attribute(f, "job_kind", text, 1, &value);
    H5Tclose(text);
}
static void no_done(hid_t f) {
    remove_attribute(f, "done");
}
static void done_negative(hid_t f) {
    put_i64(f, "done", -1);
}
static void done_too_many(hid_t f) {
    put_i64(f, "done", 1000);
}
static void total_negative(hid_t f) {
    put_i64(f, "total", -5);
}
static void resumes_huge(hid_t f) {
    put_i64(f, "resumes", (int64_t)1 << 40);
}
static void done_two(hid_t f) {
    int64_t two[2] = {1, 2};
    put_attribute(f, "done", H5T_NATIVE_INT64, 2, two);
}
static void done_compound(hid_t f) {
    hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    int64_t one = 1;
    H5Tinsert(type, "a", 0, H5T_NATIVE_INT64);
    put_attribute(f, "done", type, 1, &one);
    H5Tclose(type);
}
static void seconds_nan(hid_t f) {
    double nan_s = NAN;
    put_attribute(f, "seconds", H5T_NATIVE_DOUBLE, 1, &nan_s);
}
static void seconds_negative(hid_t f) {
    double s = -1;
    put_attribute(f, "seconds", H5T_NATIVE_DOUBLE, 1, &s);
}
static void names_numbers(hid_t f) {
    put_dataset(f, "/identity/names", H5T_NATIVE_INT32, 1, 4, H5P_DEFAULT, numbers);
}
static void values_missing(hid_t f) {
    assert_true(H5Ldelete(f, "/identity/values", H5P_DEFAULT) >= 0);
}
static void put_texts(hid_t f, const char *name, int n, const char *const *texts) {
    hid_t text = text_type();
    put_dataset(f, name, text, 1, (hsize_t)n, H5P_DEFAULT, texts);
    H5Tclose(text);
}
static void names_fewer(hid_t f) {
    const char *const texts[] = {"a", "b"};
    put_texts(f, "/identity/names", 2, texts);
}
static void names_twice(hid_t f) {
    const char *const texts[] = {"a", "b", "a", "c"};
    put_texts(f, "/identity/names", 4, texts);
}
static void names_too_many(hid_t f) {
    const char *texts[5000];
    for (int i = 0; i < 5000; i++) texts[i] = "a";
    put_texts(f, "/identity/names", 5000, texts);
}
static void values_too_long(hid_t f) {
    char *longest = NULL;
    fixture_ok(saf_alloc(5 << 20, 1, &longest));
    memset(longest, 'x', (5 << 20) - 1);
    const char *const texts[] = {longest, longest, longest, longest};
    put_texts(f, "/identity/values", 4, texts);
    saf_free(&longest);
}

/* Names that lie elsewhere: HDF5 would take any bytes there for lengths and places of texts. */
static void put_names(hid_t f, hid_t creation) {
    hid_t text = text_type();
    put_dataset(f, "/identity/names", text, 1, 4, creation, NULL);
    H5Tclose(text);
}
static void names_in_another_file(hid_t f) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_external(list, "/bin/sh", 0, 64) >= 0);
    put_names(f, list);
    H5Pclose(list);
}
static void names_virtual(hid_t f) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t four = 4;
    hid_t space = H5Screate_simple(1, &four, NULL);
    assert_true(H5Pset_virtual(list, space, ".", "/identity/values", space) >= 0);
    put_names(f, list);
    H5Sclose(space);
    H5Pclose(list);
}
static void names_external_link(hid_t f) {
    assert_true(H5Ldelete(f, "/identity/names", H5P_DEFAULT) >= 0);
    assert_true(
        H5Lcreate_external("other.h5", "/x", f, "/identity/names", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

/* of /state/values_6, which has int32 */
static const char state_name[] = "/state/values_6";

static void state_missing(hid_t f) {
    assert_true(H5Ldelete(f, "/state", H5P_DEFAULT) >= 0);
}
static void value_missing(hid_t f) {
    assert_true(H5Ldelete(f, state_name, H5P_DEFAULT) >= 0);
}
static void value_float(hid_t f) {
    const float x[8] = {0};
    put_dataset(f, state_name, H5T_NATIVE_FLOAT, 1, 8, H5P_DEFAULT, x);
}
static void value_i64(hid_t f) {
    const int64_t x[8] = {0};
    put_dataset(f, state_name, H5T_NATIVE_INT64, 1, 8, H5P_DEFAULT, x);
}
static void value_unsigned(hid_t f) {
    put_dataset(f, state_name, H5T_NATIVE_UINT32, 1, 8, H5P_DEFAULT, numbers);
}
static void value_big_endian(hid_t f) {
    put_dataset(f, state_name, H5T_STD_I32BE, 1, 8, H5P_DEFAULT, numbers);
}
static void value_scalar(hid_t f) {
    put_dataset(f, state_name, H5T_NATIVE_INT32, 0, 1, H5P_DEFAULT, numbers);
}
static void value_square(hid_t f) {
    const int32_t x[16] = {0};
    put_dataset(f, state_name, H5T_NATIVE_INT32, 2, 4, H5P_DEFAULT, x);
}
static void value_compound(hid_t f) {
    hid_t type = H5Tcreate(H5T_COMPOUND, 4);
    H5Tinsert(type, "a", 0, H5T_NATIVE_INT32);
    put_dataset(f, state_name, type, 1, 8, H5P_DEFAULT, numbers);
    H5Tclose(type);
}
static void value_texts(hid_t f) {
    const char *const texts[] = {"a", "b"};
    put_texts(f, state_name, 2, texts);
}
/* a header that claims more than any file has */
static void value_huge(hid_t f) {
    put_dataset(f, state_name, H5T_NATIVE_INT32, 1, (hsize_t)1 << 40, H5P_DEFAULT, NULL);
}
static void value_chunked(hid_t f) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk = 8;
    H5Pset_chunk(list, 1, &chunk);
    put_dataset(f, state_name, H5T_NATIVE_INT32, 1, 8, list, numbers);
    H5Pclose(list);
}
static void value_in_another_file(hid_t f) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_external(list, "/etc/passwd", 0, 32) >= 0);
    put_dataset(f, state_name, H5T_NATIVE_INT32, 1, 8, list, NULL);
    H5Pclose(list);
}
static void value_external_link(hid_t f) {
    value_missing(f);
    assert_true(H5Lcreate_external("other.h5", "/x", f, state_name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void value_soft_link(hid_t f) {
    value_missing(f);
    assert_true(H5Lcreate_soft("/state/values_4", f, state_name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void state_soft_link(hid_t f) {
    assert_true(H5Lmove(f, "/state", f, "/real", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/real", f, "/state", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}
static void value_group(hid_t f) {
    value_missing(f);
    H5Gclose(H5Gcreate2(f, state_name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}
static void value_without_dtype(hid_t f) {
    hid_t d = H5Dopen2(f, state_name, H5P_DEFAULT);
    remove_attribute(d, "dtype");
    H5Dclose(d);
}

/* ---- */

static void harm(void (*what)(hid_t)) {
    (void)unlink(file);
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    hid_t f = H5Fopen(file, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(f >= 0);
    what(f);
    assert_true(H5Fclose(f) >= 0);
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    fixture_ok(saf__seal_write(fd, file));
    close(fd);
}

static void test_checkpoint_hostile_head(void **state) {
    (void)state;
    static const struct {
        void (*what)(hid_t);
        const char *says;
    } cases[] = {
        {no_schema, "is no checkpoint of saf"},
        {schema_0, "has schema 0"},
        {schema_newer, "has schema 2, this saf knows 1 to 1: a newer saf"},
        {schema_text, "checkpoint_schema is not one whole number"},
        {no_kind, "job_kind is missing"},
        {kind_number, "job_kind is not one text"},
        {kind_long, "job_kind is 4999 bytes long"},
        {no_done, "done is missing"},
        {done_negative, "done is -1"},
        {done_too_many, "done is 1000"},
        {total_negative, "total is -5"},
        {resumes_huge, "resumes is"},
        {done_two, "done is not one whole number"},
        {done_compound, "done is not one whole number"},
        {seconds_nan, "seconds is nan"},
        {seconds_negative, "seconds is -1"},
        {names_numbers, "/identity/names has another type"},
        {values_missing, "/identity/values"},
        {names_in_another_file, "/identity/names has its values in another place"},
        {names_virtual, "/identity/names"},
        {names_external_link, "/identity/names is a link"},
        {names_fewer, "2 names, but 4 values"},
        {names_twice, "\"a\" is in /identity/names twice"},
        {names_too_many, "/identity/names has 5000 texts"},
        {values_too_long, "/identity/values has 4 texts of 20971"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        saf_checkpoint *c = NULL;
        harm(cases[i].what);
        saf_status st = saf_checkpoint_open(file, &c);
        if (st != SAF_BAD_INPUT || c || !strstr(saf_error_text(), cases[i].says) ||
            !strstr(saf_error_text(), file))
            fail_msg("%zu: %s: %s; not: %s", i, saf_status_text(st), saf_error_text(),
                     cases[i].says);
        assert_int_equal(saf_checkpoint_open_newest(output, &c), SAF_BAD_INPUT);
        assert_null(c);
    }
    /* A newer one is not passed over for an older one. */
    harm(schema_newer);
    char newer[340];
    snprintf(newer, sizeof newer, "%s.ckpt-5", output);
    assert_int_equal(rename(file, newer), 0);
    fixture_ok(checkpoint_write(output, 2, 3, NULL)); /* number 6: good */
    char last[340];
    snprintf(last, sizeof last, "%s.ckpt-6", output);
    assert_int_equal(rename(last, file), 0);
    saf_checkpoint *c = NULL;
    assert_int_equal(saf_checkpoint_open_newest(output, &c), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "a newer saf"));
}

static void test_checkpoint_hostile_state(void **state) {
    (void)state;
    static const struct {
        void (*what)(hid_t);
        const char *says;
    } cases[] = {
        {state_missing, "has no /state/values_6"},
        {value_missing, "has no /state/values_6"},
        {value_float, "another type"},
        {value_i64, "type I32, expected I32"},
        {value_unsigned, "expected I32"},
        {value_big_endian, "expected I32"},
        {value_scalar, "has not 1 dimension"},
        {value_square, "has not 1 dimension"},
        {value_compound, "another type"},
        {value_texts, "another type"},
        {value_huge, "values, but only"},
        {value_chunked, "not stored in one piece"},
        {value_in_another_file, "not stored in one piece"},
        {value_external_link, "is a link"},
        {value_soft_link, "is a link"},
        {state_soft_link, "/state is a link"},
        {value_group, "/state/values_6"},
        {value_without_dtype, "type unknown, expected I32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        saf_checkpoint *c = NULL;
        int32_t *values = NULL;
        int64_t n = -1;
        harm(cases[i].what);
        fixture_ok(saf_checkpoint_open(file, &c));
        saf_status st = saf_checkpoint_get(c, "values_6", SAF_DTYPE_I32, INT64_MAX, &n, &values);
        if (st != SAF_BAD_INPUT || values || !strstr(saf_error_text(), cases[i].says) ||
            !strstr(saf_error_text(), file))
            fail_msg("%zu: %s: %s; not: %s", i, saf_status_text(st), saf_error_text(),
                     cases[i].says);
        int32_t one;
        assert_int_equal(saf_checkpoint_get_some(c, "values_6", SAF_DTYPE_I32, 0, 1, &one),
                         SAF_BAD_INPUT);
        saf_checkpoint_free(&c);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, checkpoint_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoint_hostile_head),
        TEST(test_checkpoint_hostile_state),
    };
    return cmocka_run_group_tests_name("hostile checkpoints", tests, NULL, NULL);
}
