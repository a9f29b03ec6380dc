/* Caches kept beside a checkpoint: what every rank wrote comes back, in any other division; what is
 * cut, changed, missing or of another checkpoint is refused; and they go when their checkpoint
 * goes. */
#include <fcntl.h>
#include <hdf5.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint_folder.h"
#include "saf/store_kv.h"
#include "store/kv_room.h"

enum { LAYERS = 5, HEADS = 3, ROW = 6, SEQUENCES = 3, SOURCES = 4 };

static char checkpoint[320];

static int set_up(void **state) {
    if (checkpoint_set_up(state) != 0) return -1;
    snprintf(checkpoint, sizeof checkpoint, "%s.ckpt-1", output);
    return 0;
}

static const char *beside(const char *ending) {
    static char path[4][400];
    static int at = 0;
    at = (at + 1) % 4;
    snprintf(path[at], sizeof path[at], "%s%s", checkpoint, ending);
    return path[at];
}

/* Two sets: one of a rank alone, one of three with ragged parts. */
static saf_kv_sequence sequences[SEQUENCES] = {{7, 0, 11}, {2, 1, 300}, {30, 1, 1}};
static saf_kv_source sources[SOURCES] = {
    {.rank = 0, .set = 0, .layers = LAYERS, .heads = HEADS},
    {.rank = 1, .set = 1, .layers = 2, .heads = HEADS},
    {.rank = 2, .set = 1, .layer0 = 2, .layers = 3, .heads = 1},
    {.rank = 5, .set = 1, .layer0 = 2, .layers = 3, .head0 = 1, .heads = 2}};
static char type[] = "f16";
static saf_kv_saved saved = {type, LAYERS, HEADS, ROW, SEQUENCES, SOURCES, sequences, sources};

static uint8_t value(int64_t row, int64_t layer, int64_t head, bool keys, int64_t position,
                     int64_t byte) {
    return (uint8_t)(row * 31 + layer * 7 + head * 77 + keys * 101 + position * 13 +
                     (position >> 8) + byte);
}

static void fill(const saf_kv_place *p, uint8_t *rows) {
    for (int64_t i = 0; i < p->n * ROW; i++)
        rows[i] = value(sequences[p->sequence].row, p->layer, p->head, p->keys, p->pos0 + i / ROW,
                        i % ROW);
}

static void write_source(saf_kv_source *s) {
    saf_kv_writer *w = NULL;
    uint8_t rows[300 * ROW];
    fixture_ok(saf_kv_create(checkpoint, &saved, s, &w));
    for (int64_t q = 0; q < SEQUENCES; q++)
        for (int64_t i = 0; i < 2 * s->layers * s->heads && sequences[q].set == s->set; i++) {
            saf_kv_place p = {
                q, s->layer0 + i / 2 / s->heads, s->head0 + i / 2 % s->heads, i % 2 == 0, 0, 0};
            p.n = sequences[q].positions / 2;
            fill(&p, rows);
            fixture_ok(saf_kv_put(w, &p, rows));
            p.pos0 = p.n;
            p.n = sequences[q].positions - p.pos0;
            fill(&p, rows);
            fixture_ok(saf_kv_put(w, &p, rows));
        }
    fixture_ok(saf_kv_commit(w, &s->bytes, s->sha256));
    saf_kv_writer_free(&w);
}

static void write_all(void) {
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    for (int i = 0; i < SOURCES; i++) write_source(&sources[i]);
    fixture_ok(saf_kv_join(checkpoint, &saved));
}

/* The first failure of reading the tables and then all sources. */
static saf_status read_all(void) {
    saf_kv_saved back = {0};
    bool there = false;
    uint8_t rows[300 * ROW], expected[300 * ROW];
    saf_status st = saf_kv_saved_read(checkpoint, &back, &there);
    if (st == SAF_OK) assert_true(there);
    for (int64_t i = 0; st == SAF_OK && i < back.n_sources; i++) {
        saf_kv_file *f = NULL;
        const saf_kv_source *s = &back.sources[i];
        st = saf_kv_open(checkpoint, &back, s, &f);
        if (st != SAF_OK) break;
        for (int64_t q = 0; q < SEQUENCES; q++)
            for (int64_t k = 0; k < 2 * s->layers * s->heads && sequences[q].set == s->set; k++) {
                saf_kv_place p = {
                    q, s->layer0 + k / 2 / s->heads, s->head0 + k / 2 % s->heads, k % 2 == 1, 0, 0};
                p.pos0 = sequences[q].positions / 3;
                p.n = sequences[q].positions - p.pos0;
                fill(&p, expected);
                fixture_ok(saf_kv_get(f, &p, rows));
                assert_memory_equal(rows, expected, (size_t)(p.n * ROW));
            }
        saf_kv_place outside = {s->set == 0 ? 0 : 1, s->layer0 + s->layers, s->head0, true, 0, 1};
        assert_int_equal(saf_kv_get(f, &outside, rows), SAF_DEFECT);
        saf_kv_close(&f);
    }
    if (st == SAF_OK) {
        assert_string_equal(back.type, "f16");
        assert_int_equal(back.n_sequences, SEQUENCES);
        assert_memory_equal(back.sequences, sequences, sizeof sequences);
        assert_memory_equal(back.sources, sources, sizeof sources);
    }
    saf_kv_saved_free(&back);
    return st;
}

static void flip(const char *path, off_t at) {
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* ---- cases ---- */

static void test_kv_file_round_trip(void **state) {
    (void)state;
    saf_kv_saved none = {0};
    bool there = true;
    struct stat s;
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    fixture_ok(saf_kv_saved_read(checkpoint, &none, &there));
    assert_false(there);
    saf_checkpoints_remove(output);
    write_all();
    assert_int_equal(read_all(), SAF_OK);
    assert_int_equal(stat(beside(".kv-5"), &s), 0);
    assert_int_equal(s.st_size, sources[3].bytes);
    assert_int_equal(s.st_mode & 07777, 0600);
    assert_int_equal(stat(beside(".kv"), &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
}

static void test_kv_file_damaged(void **state) {
    (void)state;
    static const char *const files[] = {".kv", ".kv-0", ".kv-2"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat s;
        write_all();
        const char *path = beside(files[i]);
        assert_int_equal(stat(path, &s), 0);
        for (off_t at = 1; at < s.st_size; at += 1 + s.st_size / 40) {
            flip(path, at);
            assert_int_equal(read_all(), SAF_BAD_INPUT);
            flip(path, at);
        }
        assert_int_equal(read_all(), SAF_OK);
        for (int k = 3; k >= 0; k--) {
            assert_int_equal(truncate(path, k * s.st_size / 4 - (k > 0)), 0);
            assert_int_equal(read_all(), SAF_BAD_INPUT);
        }
        unlink(path);
        if (i > 0) assert_int_equal(read_all(), SAF_NO_INPUT);
        fixture_ok(saf_checkpoints_remove(output));
    }
}

/* A source of another run that is whole in itself, and tables of another checkpoint. */
static void test_kv_file_of_another(void **state) {
    (void)state;
    write_all();
    saf_kv_source other = sources[2];
    sequences[1].row = 3;
    write_source(&other);
    sequences[1].row = 2;
    assert_int_equal(read_all(), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "another file"));
    write_source(&sources[2]);
    assert_int_equal(read_all(), SAF_OK);
    char command[700];
    fixture_ok(checkpoint_write(output, 2, 3, NULL));
    snprintf(command, sizeof command, "mv '%s.ckpt-2' '%s'", output, checkpoint);
    assert_int_equal(system(command), 0);
    assert_int_equal(read_all(), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "is not of"));
}

/* Tables that leave a gap, overlap, or name what is not there. */
static void test_kv_file_gaps(void **state) {
    (void)state;
    write_all();
    saf_kv_source good = sources[3];
    sources[3].heads = 1;
    assert_int_equal(saf_kv_join(checkpoint, &saved), SAF_DEFECT);
    sources[3] = good;
    sources[3].head0 = 0;
    assert_int_equal(saf_kv_join(checkpoint, &saved), SAF_DEFECT);
    sources[3] = good;
    saved.n_sources = 3;
    assert_int_equal(saf_kv_join(checkpoint, &saved), SAF_DEFECT);
    saved.n_sources = SOURCES;
    unlink(beside(".kv-5"));
    assert_int_equal(saf_kv_join(checkpoint, &saved), SAF_NO_INPUT);
    saf_kv_source changed = sources[3];
    sequences[1].row = 3;
    write_source(&changed);
    sequences[1].row = 2;
    assert_int_equal(saf_kv_join(checkpoint, &saved), SAF_BAD_INPUT);
}

/* Sealed and named as it should be, but its rows are in a file that nothing vouches for. */
static void test_kv_file_leads_elsewhere(void **state) {
    (void)state;
    char command[900];
    write_all();
    snprintf(command, sizeof command, "cp '%s' '%s'", beside(".kv-0"), beside(".copy"));
    assert_int_equal(system(command), 0);
    hid_t f = H5Fopen(beside(".kv-0"), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(f >= 0 && H5Ldelete(f, "/kv", H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_external(beside(".copy"), "/kv", f, "/kv", H5P_DEFAULT, H5P_DEFAULT) >=
                0);
    assert_true(H5Fclose(f) >= 0);
    int fd = open(beside(".kv-0"), O_RDWR);
    fixture_ok(saf__seal_write(fd, beside(".kv-0")));
    fixture_ok(saf__seal_read(fd, beside(".kv-0"), &sources[0].bytes, sources[0].sha256));
    close(fd);
    fixture_ok(saf_kv_join(checkpoint, &saved));
    assert_int_equal(read_all(), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "/kv is a link"));
}

static bool is_there(const char *ending) {
    return access(beside(ending), F_OK) == 0;
}

/* They go with their checkpoint, but while somebody reads them. */
static void test_kv_file_pruned(void **state) {
    (void)state;
    saf_kv_file *f = NULL;
    char *newest = NULL;
    write_all();
    assert_int_equal(creat(beside(".kv-9.part"), 0600) >= 0, 1);
    assert_int_equal(creat(beside(".kv-x"), 0600) >= 0, 1); /* not ours */
    assert_int_equal(creat(beside(".kv-01"), 0600) >= 0, 1);
    fixture_ok(saf_checkpoint_newest(output, &newest));
    assert_string_equal(newest, checkpoint);
    saf_free(&newest);
    fixture_ok(checkpoint_write(output, 2, 3, NULL));
    assert_false(is_there(".kv-9.part"));
    assert_true(is_there("") && is_there(".kv") && is_there(".kv-0") && is_there(".kv-5"));
    fixture_ok(saf_kv_open(checkpoint, &saved, &sources[3], &f));
    fixture_ok(checkpoint_write(output, 3, 3, NULL));
    assert_false(is_there("") || is_there(".kv") || is_there(".kv-0"));
    assert_true(is_there(".kv-5"));
    saf_kv_close(&f);
    fixture_ok(checkpoint_write(output, 4, 3, NULL));
    assert_false(is_there(".kv-5"));
    snprintf(checkpoint, sizeof checkpoint, "%s.ckpt-4", output);
    write_source(&sources[0]);
    fixture_ok(saf_checkpoints_remove(output));
    assert_false(is_there("") || is_there(".kv-0"));
    snprintf(checkpoint, sizeof checkpoint, "%s.ckpt-1", output);
    assert_true(is_there(".kv-x") && is_there(".kv-01"));
}

/* ---- tables alone ---- */

enum { MOST_SPLIT = 24, GRID = 6 };

/* What the check promises, by painting each place: the slow and plain way. */
static bool fits_by_painting(const saf_kv_saved *t) {
    bool has_set[3] = {false};
    int painted[3][GRID][GRID] = {{{0}}};
    for (int64_t i = 0; i < t->n_sources; i++) {
        const saf_kv_source *s = &t->sources[i];
        has_set[s->set] = true;
        for (int64_t k = 0; k < i; k++)
            if (t->sources[k].rank == s->rank) return false;
        if (s->layers <= 0 || s->heads <= 0 || s->layer0 < 0 || s->head0 < 0 ||
            s->layer0 + s->layers > t->layers || s->head0 + s->heads > t->heads)
            return false;
        for (int64_t l = 0; l < s->layers; l++)
            for (int64_t h = 0; h < s->heads; h++) painted[s->set][s->layer0 + l][s->head0 + h]++;
    }
    for (int set = 0; set < 3; set++)
        for (int64_t i = 0; has_set[set] && i < t->layers * t->heads; i++)
            if (painted[set][i / t->heads][i % t->heads] != 1) return false;
    for (int64_t i = 0; i < t->n_sequences; i++)
        if (!has_set[t->sequences[i].set]) return false;
    return true;
}

static uint64_t drawn = 88172645463325252u;
static int64_t draw(int64_t below) {
    drawn ^= drawn << 13, drawn ^= drawn >> 7, drawn ^= drawn << 17;
    return (int64_t)(drawn % (uint64_t)below);
}

/* One of them is cut in two, along layers or heads. */
static void split(saf_kv_source *list, int64_t *n) {
    saf_kv_source *s = &list[draw(*n)];
    bool by_layer = draw(2) == 0;
    int64_t size = by_layer ? s->layers : s->heads;
    if (size < 2) return;
    int64_t cut = 1 + draw(size - 1);
    saf_kv_source rest = *s;
    rest.rank = 100 + *n;
    if (by_layer) {
        s->layers = cut;
        rest.layer0 += cut;
        rest.layers -= cut;
    } else {
        s->heads = cut;
        rest.head0 += cut;
        rest.heads -= cut;
    }
    list[(*n)++] = rest;
}

/* Parts of sets in any order, some of them changed in one number. */
static void test_kv_tables_random(void **state) {
    (void)state;
    int fit = 0, trials = 20000;
    for (int trial = 0; trial < trials; trial++) {
        saf_kv_source list[MOST_SPLIT + 4];
        saf_kv_sequence q[2] = {{1, 0, 5}, {2, draw(3), 6}};
        saf_kv_saved t = {type, 1 + draw(GRID), 1 + draw(GRID), ROW, 2, 0, q, list};
        for (int64_t set = 0; set < 3; set++)
            if (draw(4) > 0)
                list[t.n_sources++] =
                    (saf_kv_source){.rank = set, .set = set, .layers = t.layers, .heads = t.heads};
        for (int64_t k = draw(12); t.n_sources > 0 && k > 0; k--) split(list, &t.n_sources);
        for (int64_t k = draw(3); t.n_sources > 0 && k > 0; k--) {
            saf_kv_source *s = &list[draw(t.n_sources)];
            int64_t *numbers[] = {&s->layer0, &s->layers, &s->head0, &s->heads, &s->set, &s->rank};
            int which = (int)draw(6);
            *numbers[which] = which == 4   ? draw(3)
                              : which == 5 ? list[draw(t.n_sources)].rank
                                           : draw(GRID);
        }
        for (int64_t i = t.n_sources - 1; i > 0; i--) {
            int64_t k = draw(i + 1);
            saf_kv_source other = list[k];
            list[k] = list[i];
            list[i] = other;
        }
        bool expected = fits_by_painting(&t);
        fit += expected;
        assert_int_equal(saf__kv_check(&t, "x", SAF_BAD_INPUT), expected ? SAF_OK : SAF_BAD_INPUT);
    }
    assert_true(fit > trials / 8 && fit < trials - trials / 8); /* both were tried */
}

/* As many as a file may name, in the order that is worst: no slower than a fraction of a second. */
static void test_kv_tables_many(void **state) {
    (void)state;
    enum { MANY_SOURCES = 1 << 14, MANY_SEQUENCES = 1 << 16 };
    saf_kv_saved t = {.type = type, .layers = 2, .heads = MANY_SOURCES / 2, .row_bytes = ROW};
    fixture_ok(saf_alloc(MANY_SOURCES, sizeof *t.sources, &t.sources));
    fixture_ok(saf_alloc(MANY_SEQUENCES, sizeof *t.sequences, &t.sequences));
    t.n_sources = MANY_SOURCES;
    t.n_sequences = MANY_SEQUENCES;
    for (int64_t i = 0; i < MANY_SOURCES; i++)
        t.sources[i] = (saf_kv_source){
            .rank = MANY_SOURCES - i, .layer0 = i % 2, .layers = 1, .head0 = i / 2, .heads = 1};
    for (int64_t i = 0; i < MANY_SEQUENCES; i++)
        t.sequences[i] = (saf_kv_sequence){MANY_SEQUENCES - i, 0, 1};
    clock_t start = clock();
    fixture_ok(saf__kv_check(&t, "x", SAF_BAD_INPUT));
    t.sequences[0].row = 1; /* that of the last one */
    assert_int_equal(saf__kv_check(&t, "x", SAF_BAD_INPUT), SAF_BAD_INPUT);
    t.sequences[0].row = 0;
    t.sources[MANY_SOURCES - 1].head0--;
    assert_int_equal(saf__kv_check(&t, "x", SAF_BAD_INPUT), SAF_BAD_INPUT);
    assert_true(clock() - start < CLOCKS_PER_SEC / 2);
    saf_free(&t.sources);
    saf_free(&t.sequences);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, checkpoint_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_kv_file_round_trip),           CASE(test_kv_file_damaged),
        CASE(test_kv_file_of_another),           CASE(test_kv_file_gaps),
        CASE(test_kv_file_leads_elsewhere),      CASE(test_kv_file_pruned),
        cmocka_unit_test(test_kv_tables_random), cmocka_unit_test(test_kv_tables_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
