/* Results files: what is written reads back the same, and what cannot be written or read says so.
 */
#include <fcntl.h>
#include <hdf5.h>
#include <sys/wait.h>

#include "results_fixture.h"

static char folder[256], file[300], part[320];

static int set_up(void **state) {
    (void)state;
    strcpy(folder, fixture_folder());
    snprintf(file, sizeof file, "%s/r.h5", folder);
    snprintf(part, sizeof part, "%s.part", file);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    unlink(part);
    return rmdir(folder); /* fails when a test leaves something behind */
}

static void round_trip(int64_t n_ranks, int64_t n_requests, int64_t rows_each) {
    saf_results r, back = {0};
    fixture_make(&r, n_ranks, n_requests);
    fixture_ok(fixture_write(file, &r, rows_each));
    assert_false(fixture_exists(part));
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

static void test_results_round_trip(void **state) {
    (void)state;
    round_trip(3, 17, 0);
}

static void test_results_round_trip_logits(void **state) {
    (void)state;
    round_trip(2, 9, 40);
}

static void test_results_round_trip_many(void **state) {
    (void)state;
    round_trip(1, 3000, 0); /* more than a block of rows */
}

static void test_results_round_trip_nothing(void **state) {
    (void)state;
    saf_results r = {0}, back = {0};
    saf_results_writer *w = NULL;
    fixture_text(&r.version, SAF_VERSION);
    fixture_ok(saf_results_create(file, &w));
    fixture_ok(saf_results_hash(w, &r));
    fixture_ok(saf_results_finish(w, &r));
    saf_results_writer_free(&w);
    /* SHA-256 of no bytes */
    assert_string_equal(r.tokens_sha256,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    fixture_ok(saf_results_read(file, &back));
    assert_int_equal(back.n_requests, 0);
    assert_int_equal(back.n_ranks, 0);
    assert_null(back.kind);
    assert_null(back.logits_sha256);
    saf_results_free(&back);
    saf_results_free(&r);
    round_trip(2, 0, 0);
}

static void test_results_round_trip_score(void **state) {
    (void)state;
    saf_results r, back = {0};
    fixture_make(&r, 1, 2);
    saf_free(&r.kind);
    fixture_text(&r.kind, "score");
    for (int i = 0; i < 2; i++) {
        saf_result_request *q = &r.requests[i];
        saf_free(&q->logprobs);
        saf_free(&q->top_ids);
        saf_free(&q->top_logprobs);
        saf_free(&q->completion);
        saf_free(&q->completion_ids);
        q->n_top = 0;
        q->completion_tokens = 0;
        fixture_ok(saf_alloc((size_t)q->prompt_tokens, sizeof(float), &q->logprobs));
        q->logprobs[0] = NAN;
        q->log_likelihood = -12.5 - i;
        q->perplexity = 3.25;
    }
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

/* Requests without alternatives between others that have them. */
static void test_results_round_trip_some_alternatives(void **state) {
    (void)state;
    saf_results r, back = {0};
    fixture_make(&r, 1, 4);
    saf_result_request *q = &r.requests[1];
    saf_free(&q->top_ids);
    saf_free(&q->top_logprobs);
    q->n_top = 0;
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

static void test_results_long_text(void **state) {
    (void)state;
    enum { LONG = 3000000 };
    saf_results r, back = {0};
    fixture_make(&r, 1, 1);
    saf_result_request *q = &r.requests[0];
    saf_free(&q->prompt);
    fixture_ok(saf_alloc(LONG + 1, 1, &q->prompt));
    for (int i = 0; i < LONG; i++) q->prompt[i] = (char)('a' + i % 26);
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

/* The file promises UTF-8, whatever a model says. */
static void test_results_invalid_utf8(void **state) {
    (void)state;
    saf_results r, back = {0};
    fixture_make(&r, 1, 1);
    saf_free(&r.requests[0].completion);
    fixture_text(&r.requests[0].completion, "a\xFF\xC3");
    memset(r.ranks[0].host, 'x', sizeof r.ranks[0].host);
    memcpy(r.ranks[0].host + 62, "\xC3\xA9", 2); /* no closing zero, half a character in place */
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_results_read(file, &back));
    assert_string_equal(back.requests[0].completion, "a\xEF\xBF\xBD\xEF\xBF\xBD");
    assert_int_equal(strlen(back.ranks[0].host), 62);
    saf_results_free(&back);
    saf_results_free(&r);
}

/* ---- hashes, computed here from the definition ---- */

static void test_results_tokens_hash(void **state) {
    (void)state;
    saf_results r;
    saf_buf bytes = {0};
    uint8_t digest[32];
    char hex[65];
    fixture_make(&r, 1, 6);
    fixture_ok(fixture_write(file, &r, 0));
    for (int i = 0; i < 6; i++) {
        saf_result_request *q = &r.requests[i];
        uint64_t n = strlen(q->id);
        saf_buf_append(&bytes, &n, 8);
        saf_buf_append(&bytes, q->id, n);
        n = 4 * (uint64_t)q->prompt_tokens;
        saf_buf_append(&bytes, &n, 8);
        saf_buf_append(&bytes, q->prompt_ids, n);
        n = 4 * (uint64_t)q->completion_tokens;
        saf_buf_append(&bytes, &n, 8);
        saf_buf_append(&bytes, q->completion_ids, n);
    }
    fixture_ok(saf_sha256_of(bytes.data, bytes.len, digest));
    saf_hex(digest, 32, hex);
    assert_string_equal(r.tokens_sha256, hex);
    assert_null(r.logits_sha256);
    saf_buf_free(&bytes);
    saf_results_free(&r);
}

static void test_results_logits_hash(void **state) {
    (void)state;
    saf_results r;
    saf_buf bytes = {0};
    uint8_t digest[32];
    char hex[65];
    fixture_make(&r, 1, 7);
    /* some 10 MB: several chunks and several blocks of reading back */
    fixture_ok(fixture_write(file, &r, 1200));
    for (int i = 0; i < 7; i++) {
        saf_result_request *q = &r.requests[i];
        uint64_t n = strlen(q->id);
        saf_buf_append(&bytes, &n, 8);
        saf_buf_append(&bytes, q->id, n);
        n = 4 * FIXTURE_VOCAB * (uint64_t)q->logits_rows;
        saf_buf_append(&bytes, &n, 8);
        for (int64_t row = q->logits_row0; row < q->logits_row0 + q->logits_rows; row++)
            for (int64_t c = 0; c < FIXTURE_VOCAB; c++) {
                float v = fixture_logit(row, c);
                saf_buf_append(&bytes, &v, 4);
            }
    }
    fixture_ok(saf_sha256_of(bytes.data, bytes.len, digest));
    saf_hex(digest, 32, hex);
    assert_string_equal(r.logits_sha256, hex);
    saf_buf_free(&bytes);
    saf_results_free(&r);
}

/* ---- creating ---- */

static void test_results_missing_folder(void **state) {
    (void)state;
    saf_results_writer *w = NULL;
    char path[400];
    snprintf(path, sizeof path, "%s/none/r.h5", folder);
    assert_int_equal(saf_results_create(path, &w), SAF_CANNOT_CREATE);
    assert_non_null(strstr(saf_error_text(), path));
    assert_null(w);
    assert_int_equal(saf_results_create(folder, &w), SAF_CANNOT_CREATE);
    assert_int_equal(saf_results_create("/dev/null", &w), SAF_CANNOT_CREATE);
    assert_int_equal(saf_results_create("", &w), SAF_CANNOT_CREATE);
    snprintf(path, sizeof path, "%s/", folder);
    assert_int_equal(saf_results_create(path, &w), SAF_CANNOT_CREATE);
}

static void test_results_unfinished_leaves_nothing(void **state) {
    (void)state;
    saf_results_writer *w = NULL;
    fixture_ok(saf_results_create(file, &w));
    assert_true(fixture_exists(part));
    assert_false(fixture_exists(file));
    saf_results_writer_free(&w);
    assert_null(w);
    assert_false(fixture_exists(part));
    saf_results_writer_free(&w);
}

static void test_results_replaces_previous(void **state) {
    (void)state;
    round_trip(1, 3, 0);
    round_trip(2, 8, 5);
}

/* Another job writes the same output: the second says so, and the first is not disturbed. */
static void test_results_two_writers(void **state) {
    (void)state;
    saf_results r, back = {0};
    saf_results_writer *first = NULL;
    int status;
    fixture_make(&r, 1, 3);
    fixture_ok(saf_results_create(file, &first));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        saf_results_writer *second = NULL;
        saf_status st = saf_results_create(file, &second);
        _exit(st == SAF_CANNOT_CREATE && strstr(saf_error_text(), part) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    saf_results_writer *same_process = NULL;
    assert_int_equal(saf_results_create(file, &same_process), SAF_CANNOT_CREATE);
    assert_true(fixture_exists(part));
    fixture_ok(saf_results_hash(first, &r));
    fixture_ok(saf_results_finish(first, &r));
    saf_results_writer_free(&first);
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

static void test_results_takes_over_stale_part(void **state) {
    (void)state;
    pid_t child = fork();
    int status;
    assert_true(child >= 0);
    if (child == 0) {
        saf_results_writer *w = NULL;
        _exit(saf_results_create(file, &w) == SAF_OK ? 0 : 1); /* dies without freeing */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(fixture_exists(part));
    round_trip(1, 3, 2);
}

static void test_results_wrong_rows(void **state) {
    (void)state;
    saf_results r;
    saf_results_writer *w = NULL;
    float row[4] = {0};
    fixture_make(&r, 1, 2);
    fixture_ok(saf_results_create(file, &w));
    fixture_ok(saf_results_logits(w, 4, 0, 1, row));
    assert_int_equal(saf_results_logits(w, 3, 1, 1, row), SAF_DEFECT);
    assert_int_equal(saf_results_logits(w, 4, 1, -1, row), SAF_DEFECT);
    assert_int_equal(saf_results_logits(w, 4, -1, 1, row), SAF_DEFECT);
    r.requests[0].logits_rows = 2;
    assert_int_equal(saf_results_hash(w, &r), SAF_DEFECT);
    assert_int_equal(saf_results_finish(w, &r), SAF_DEFECT);
    assert_false(fixture_exists(part));
    assert_false(fixture_exists(file));
    saf_results_writer_free(&w);
    saf_results_free(&r);
}

/* Rows that nobody wrote, whole chunks of them too, are NaN. */
static void test_results_logits_with_holes(void **state) {
    (void)state;
    enum { V = 1000, FAR = 5000 };
    saf_results r, back = {0};
    saf_results_writer *w = NULL;
    float *row = NULL;
    fixture_make(&r, 1, 3);
    fixture_ok(saf_alloc((size_t)(FAR + 1) * V, sizeof *row, &row));
    for (int i = 0; i < V; i++) row[i] = (float)i;
    fixture_ok(saf_results_create(file, &w));
    fixture_ok(saf_results_logits(w, V, FAR, 1, row));
    fixture_ok(saf_results_logits(w, V, 3, 1, row));
    r.requests[0].logits_row0 = FAR;
    r.requests[0].logits_rows = 1;
    fixture_ok(saf_results_hash(w, &r));
    fixture_ok(saf_results_finish(w, &r));
    saf_results_writer_free(&w);
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    hid_t id = H5Fopen(file, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t data = H5Dopen2(id, "/logits", H5P_DEFAULT);
    assert_true(H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, row) >= 0);
    H5Dclose(data);
    H5Fclose(id);
    for (int64_t i = 0; i <= FAR; i++)
        for (int c = 0; c < V; c++) {
            float v = row[i * V + c];
            if (i == 3 || i == FAR ? v != (float)c : !isnan(v))
                fail_msg("row %d, column %d: %g", (int)i, c, (double)v);
        }
    saf_free(&row);
    saf_results_free(&back);
    saf_results_free(&r);
}

/* ---- reading ---- */

static void test_results_read_missing(void **state) {
    (void)state;
    saf_results r = {0};
    assert_int_equal(saf_results_read(file, &r), SAF_NO_INPUT);
    assert_int_equal(saf_results_read(folder, &r), SAF_NO_INPUT);
}

static void test_results_read_no_hdf5(void **state) {
    (void)state;
    saf_results r = {0};
    int fd = open(file, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "not HDF5\n", 9), 9);
    close(fd);
    assert_int_equal(saf_results_read(file, &r), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), file));
    assert_int_equal(truncate(file, 0), 0);
    assert_int_equal(saf_results_read(file, &r), SAF_BAD_INPUT);
}

static void test_results_read_truncated(void **state) {
    (void)state;
    saf_results r, back = {0};
    struct stat st;
    fixture_make(&r, 2, 40);
    fixture_ok(fixture_write(file, &r, 0));
    assert_int_equal(stat(file, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size -= size > 4096 ? 997 : 61) {
        assert_int_equal(truncate(file, size), 0);
        assert_int_equal(saf_results_read(file, &back), SAF_BAD_INPUT);
    }
    saf_results_free(&r);
}

static void test_results_read_other_hdf5(void **state) {
    (void)state;
    saf_results r = {0};
    hid_t id = H5Fcreate(file, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0);
    H5Fclose(id);
    assert_int_equal(saf_results_read(file, &r), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "no results file"));
}

static void expect_bad(const char *words) {
    saf_results r = {0};
    assert_int_equal(saf_results_read(file, &r), SAF_BAD_INPUT);
    if (!strstr(saf_error_text(), words))
        fail_msg("\"%s\" without \"%s\"", saf_error_text(), words);
}

static hid_t reopen(void) {
    hid_t id = H5Fopen(file, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(id >= 0);
    return id;
}

static void test_results_read_newer_schema(void **state) {
    (void)state;
    int64_t newer = SAF_RESULTS_SCHEMA + 1;
    round_trip(1, 2, 0);
    hid_t id = reopen();
    hid_t attr = H5Aopen(id, "schema_version", H5P_DEFAULT);
    assert_true(H5Awrite(attr, H5T_NATIVE_INT64, &newer) >= 0);
    H5Aclose(attr);
    H5Fclose(id);
    expect_bad("schema");
}

/* Every dataset in turn goes missing, and is then of the wrong type and shape. */
static void test_results_read_wrong_datasets(void **state) {
    (void)state;
    static const char *const names[] = {"/ranks",
                                        "/calls",
                                        "/requests",
                                        "/text/prompt",
                                        "/text/completion",
                                        "/tokens/prompt",
                                        "/tokens/prompt_offsets",
                                        "/tokens/completion",
                                        "/tokens/completion_offsets",
                                        "/logprobs/offsets",
                                        "/logprobs/top_values"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        round_trip(1, 4, 0);
        hid_t id = reopen();
        assert_true(H5Ldelete(id, names[i], H5P_DEFAULT) >= 0);
        H5Fclose(id);
        expect_bad(names[i]);
        id = reopen();
        hsize_t dims[3] = {5, 1, 1};
        hid_t space = H5Screate_simple(3, dims, NULL);
        hid_t data =
            H5Dcreate2(id, names[i], H5T_STD_B8LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(data >= 0);
        H5Dclose(data);
        H5Sclose(space);
        H5Fclose(id);
        expect_bad(names[i]);
    }
}

/* A shape that the stored bytes do not bear out must not become an allocation. */
static void test_results_read_hollow_dataset(void **state) {
    (void)state;
    round_trip(1, 4, 0);
    hid_t id = reopen();
    hid_t data = H5Dopen2(id, "/requests", H5P_DEFAULT);
    hsize_t dims = (hsize_t)1 << 44;
    assert_true(H5Dset_extent(data, &dims) >= 0);
    H5Dclose(data);
    H5Fclose(id);
    expect_bad("/requests");
}

static void test_results_read_bad_offsets(void **state) {
    (void)state;
    static const int64_t bad[][4] = {
        {0, 3, 2, 12}, {1, 3, 7, 12}, {0, 3, 7, INT64_MAX}, {0, -1, 7, 12}, {0, 4, 7, 12}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        round_trip(1, 3, 0); /* prompts of 3, 4 and 5 tokens */
        hid_t id = reopen();
        hid_t data = H5Dopen2(id, "/tokens/prompt_offsets", H5P_DEFAULT);
        assert_true(H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, bad[i]) >= 0);
        H5Dclose(data);
        H5Fclose(id);
        expect_bad("/tokens/prompt");
    }
}

static void test_results_read_flipped_bits(void **state) {
    (void)state;
    saf_results r, back = {0};
    saf_buf bytes = {0};
    fixture_make(&r, 1, 40);
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_file_read(file, 1 << 24, &bytes));
    /* the token ids of request 30, wherever they are in the file */
    char *at = memmem(bytes.data, bytes.len, r.requests[30].prompt_ids,
                      (size_t)r.requests[30].prompt_tokens * 4);
    assert_non_null(at);
    *at ^= 1;
    int fd = open(file, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, bytes.data, bytes.len), (ssize_t)bytes.len);
    close(fd);
    assert_int_equal(saf_results_read(file, &back), SAF_BAD_INPUT);
    saf_buf_free(&bytes);
    saf_results_free(&r);
}

static void test_results_read_strings(void **state) {
    (void)state;
    char **texts = NULL;
    int64_t n = 0;
    saf_results r;
    fixture_make(&r, 1, 7);
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_store_read_strings(file, "/text/prompt", &texts, &n));
    assert_int_equal(n, 7);
    for (int64_t i = 0; i < n; i++) {
        assert_string_equal(texts[i], r.requests[i].prompt);
        saf_free(&texts[i]);
    }
    saf_free(&texts);
    assert_int_equal(saf_store_read_strings(file, "/text/none", &texts, &n), SAF_BAD_INPUT);
    assert_int_equal(saf_store_read_strings(file, "", &texts, &n), SAF_BAD_INPUT);
    assert_int_equal(saf_store_read_strings(file, "/tokens/prompt", &texts, &n), SAF_BAD_INPUT);
    assert_int_equal(saf_store_read_strings(part, "/text/prompt", &texts, &n), SAF_NO_INPUT);
    saf_results_free(&r);
}

/* Fixed length, no closing zero, ASCII: as other programs store strings. */
static void test_results_read_fixed_strings(void **state) {
    (void)state;
    char **texts = NULL;
    int64_t n = 0;
    hsize_t dim = 2;
    hid_t id = H5Fcreate(file, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &dim, NULL);
    H5Tset_size(type, 4);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    hid_t data = H5Dcreate2(id, "s", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, "fourabc") >= 0);
    H5Dclose(data);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(id);
    fixture_ok(saf_store_read_strings(file, "/s", &texts, &n));
    assert_int_equal(n, 2);
    assert_string_equal(texts[0], "four");
    assert_string_equal(texts[1], "abc");
    saf_free(&texts[0]);
    saf_free(&texts[1]);
    saf_free(&texts);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void test_results_of_a_bench_job_come_back(void **state) {
    (void)state;
    saf_results a, back = {0};
    char path[300];
    snprintf(path, sizeof path, "%s/bench.h5", fixture_folder());
    fixture_make(&a, 1, 0);
    saf_result_bench *b = &a.bench;
    b->n_phases = 2;
    b->n_samples = 3;
    b->n_steps = 4;
    fixture_ok(saf_alloc(2, sizeof *b->phases, &b->phases));
    fixture_ok(saf_alloc(3, sizeof *b->samples, &b->samples));
    fixture_ok(saf_alloc(4, sizeof *b->steps, &b->steps));
    for (int i = 0; i < 2; i++) {
        saf_result_phase *p = &b->phases[i];
        snprintf(p->phase, sizeof p->phase, "phase %d", i);
        strcpy(p->peaks, "avx512-vnni");
        p->repeats = 9;
        p->weight_bytes = (INT64_C(5) << 40) + i;
        p->of_read = 0.875 + i;
        p->copies = NAN;
    }
    for (int i = 0; i < 3; i++) b->samples[i].repetition = 1 + i;
    for (int i = 0; i < 4; i++) b->steps[i].limit_s = 0.5 * i;
    fixture_ok(fixture_write(path, &a, 0));
    fixture_ok(saf_results_read(path, &back));
    fixture_same(&a, &back);
    assert_int_equal(back.bench.n_phases, 2);
    assert_int_equal(back.bench.n_samples, 3);
    assert_int_equal(back.bench.n_steps, 4);
    fixture_same_array(b->phases, back.bench.phases, 2, sizeof *b->phases);
    fixture_same_array(b->samples, back.bench.samples, 3, sizeof *b->samples);
    fixture_same_array(b->steps, back.bench.steps, 4, sizeof *b->steps);
    saf_results_free(&a);
    saf_results_free(&back);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_results_round_trip),
        TEST(test_results_round_trip_logits),
        TEST(test_results_round_trip_many),
        TEST(test_results_round_trip_nothing),
        TEST(test_results_round_trip_score),
        TEST(test_results_round_trip_some_alternatives),
        TEST(test_results_of_a_bench_job_come_back),
        TEST(test_results_long_text),
        TEST(test_results_invalid_utf8),
        TEST(test_results_tokens_hash),
        TEST(test_results_logits_hash),
        TEST(test_results_missing_folder),
        TEST(test_results_unfinished_leaves_nothing),
        TEST(test_results_replaces_previous),
        TEST(test_results_two_writers),
        TEST(test_results_takes_over_stale_part),
        TEST(test_results_wrong_rows),
        TEST(test_results_logits_with_holes),
        TEST(test_results_read_missing),
        TEST(test_results_read_no_hdf5),
        TEST(test_results_read_truncated),
        TEST(test_results_read_other_hdf5),
        TEST(test_results_read_newer_schema),
        TEST(test_results_read_wrong_datasets),
        TEST(test_results_read_hollow_dataset),
        TEST(test_results_read_bad_offsets),
        TEST(test_results_read_flipped_bits),
        TEST(test_results_read_strings),
        TEST(test_results_read_fixed_strings),
    };
    return cmocka_run_group_tests_name("results", tests, NULL, NULL);
}
