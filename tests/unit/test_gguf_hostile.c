/* Bad model files: each is refused with the right status and a message that tells what and where;
 * nothing crashes, and no claim of a file takes memory that its bytes do not back. */
#include <fcntl.h>
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

#define STORIES "jobs/models/stories260K.gguf"

static char path[] = "/tmp/saf-hostile-XXXXXX";
static int file = -1;

static int make_file(void **state) {
    (void)state;
    file = mkstemp(path);
    return file < 0;
}

static int remove_file(void **state) {
    (void)state;
    close(file);
    return unlink(path);
}

static void set_file(const void *bytes, size_t len) {
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(pwrite(file, bytes, len, 0), len);
}

/* ---- files written down as words --------------------------------------------------------------
 *   G        the magic               bN hN iN qN  N in 1, 2, 4, 8 bytes (N may be negative or
 * 0x...) 'text'   its bytes               "text"       its length in 8 bytes, then its bytes zN N
 * zero bytes            pN           zero bytes up to a multiple of N aN       N letters
 */
static void add_word(saf_buf *out, const char *word, size_t len) {
    uint64_t v = 0;
    char *end = NULL;
    if (word[0] == '\'' || word[0] == '"') {
        v = len - 2;
        if (word[0] == '"') saf_buf_append(out, &v, 8);
        saf_buf_append(out, word + 1, len - 2);
        return;
    }
    if (word[0] == 'G') {
        saf_buf_append(out, "GGUF", 4);
        return;
    }
    v = word[1] == '-' ? (uint64_t)strtoll(word + 1, &end, 0) : strtoull(word + 1, &end, 0);
    if (end != word + len) fail_msg("bad word %.*s", (int)len, word);
    size_t fill = word[0] == 'p' ? (size_t)((0 - out->len) & (v - 1)) : (size_t)v;
    switch (word[0]) {
        case 'b':
            saf_buf_append(out, &v, 1);
            break;
        case 'h':
            saf_buf_append(out, &v, 2);
            break;
        case 'i':
            saf_buf_append(out, &v, 4);
            break;
        case 'q':
            saf_buf_append(out, &v, 8);
            break;
        case 'z':
        case 'p':
        case 'a':
            for (size_t i = 0; i < fill; i++) saf_buf_append(out, word[0] == 'a' ? "a" : "\0", 1);
            break;
        default:
            fail_msg("bad word %.*s", (int)len, word);
    }
}

static void add_words(saf_buf *out, const char *words) {
    while (*words) {
        size_t len = strcspn(words, " ");
        if (len) add_word(out, words, len);
        words += len;
        words += strspn(words, " ");
    }
}

#define HEAD(tensors, keys) "G i3 q" #tensors " q" #keys " "
#define ONE(dims, type) HEAD(1, 0) "\"t\" " dims " i" #type " q0 p32 "

static const struct {
    const char *what, *words, *message;
} bad[] = {
    /* start */
    {"empty", "", "byte 0: the magic \"GGUF\" needs 4 bytes, but the file ends after 0"},
    {"three bytes", "'GGU'", "the file ends after 3"},
    {"other magic", "'GGML' i3 q0 q0", "byte 0: does not start with \"GGUF\""},
    {"no version", "G", "byte 4: the version needs 4 bytes"},
    {"version 0", "G i0 q0 q0", "byte 4: GGUF version 0, expected 2 or 3"},
    {"version 1", "G i1 i0 i0 z8", "GGUF version 1, expected 2 or 3"},
    {"version 4", "G i4 q0 q0", "GGUF version 4, expected 2 or 3"},
    {"big-endian", "G i0x03000000 q0 q0", "looks big-endian"},
    {"no counts", "G i3", "byte 8: the number of tensors needs 8 bytes"},
    {"half a count", "G i3 q0 i0", "byte 16: the number of keys needs 8 bytes"},
    {"2^60 tensors", HEAD(0x1000000000000000, 0), "byte 8: claims 1152921504606846976 tensors"},
    {"2^64 - 1 tensors", HEAD(-1, 0), "claims 18446744073709551615 tensors"},
    {"more tensors than bytes", HEAD(4, 0) "z100", "claims 4 tensors, but only 100 bytes"},
    {"2^60 keys", HEAD(0, 0x1000000000000000), "byte 16: claims 1152921504606846976 keys"},
    {"more keys than bytes", HEAD(0, 2) "z27", "claims 2 keys, but only 27 bytes follow"},
    /* names of keys */
    {"empty key", HEAD(0, 1) "\"\" i0 b0 z20", "byte 24: a key is 0 bytes long"},
    {"long key", HEAD(0, 1) "q65536 a65536 i0 b0", "a key is 65536 bytes long, expected 1 to"},
    {"key past the end", HEAD(0, 1) "q30 'key' i0 b0", "byte 24: a key claims a length of 30"},
    {"key of 2^64 - 1 bytes", HEAD(0, 1) "q-1 'key' i0 b0", "length of 18446744073709551615"},
    {"key of 2^63 bytes", HEAD(0, 1) "q0x8000000000000000 z20", "length of 9223372036854775808"},
    {"zero byte in a key", HEAD(0, 1) "q3 'a' b0 'b' i0 b0",
     "byte 33: a key contains the byte 0x00"},
    {"control byte in a key", HEAD(0, 1) "q3 'ab' b27 i0 b0",
     "byte 34: a key contains the byte 0x1b"},
    {"delete in a key", HEAD(0, 1) "q3 'ab' b127 i0 b0", "a key contains the byte 0x7f"},
    {"key not UTF-8", HEAD(0, 1) "q3 'a' b0xC3 'b' i0 b0", "byte 33: a key is not valid UTF-8"},
    {"overlong UTF-8", HEAD(0, 1) "q2 b0xC0 b0x80 i0 b0", "byte 32: a key is not valid UTF-8"},
    {"surrogate", HEAD(0, 1) "q3 b0xED b0xA0 b0x80 i0 b0", "a key is not valid UTF-8"},
    {"key twice", HEAD(0, 2) "\"k\" i0 b1 \"k\" i0 b2", "byte 47: key \"k\" is there twice"},
    {"key twice, apart", HEAD(0, 3) "\"k\" i0 b1 \"j\" i0 b1 \"k\" i5 i2", "\"k\" is there twice"},
    /* kinds and values */
    {"kind 13", HEAD(0, 1) "\"k\" i13 z9", "byte 33: key \"k\": type 13 is out of range 0 to 12"},
    {"kind 2^32 - 1", HEAD(0, 1) "\"k\" i-1 z9", "type 4294967295 is out of range"},
    {"no kind", HEAD(0, 1) "q5 'abcde' b0", "byte 37: a key's type needs 4 bytes"},
    {"u8 missing", HEAD(0, 1) "\"kk\" i0", "byte 38: a value needs 1 bytes, but the file ends"},
    {"u64 cut", HEAD(0, 1) "\"k\" i10 z7", "a value needs 8 bytes, but the file ends after 7"},
    {"f64 cut", HEAD(0, 1) "\"k\" i12 z7", "a value needs 8 bytes, but the file ends after 7"},
    {"bool 2", HEAD(0, 1) "\"k\" i7 b2", "byte 37: key \"k\": the boolean is 2, expected 0 or 1"},
    {"bool 255", HEAD(0, 1) "\"k\" i7 b255", "the boolean is 255"},
    {"string past the end", HEAD(0, 1) "\"k\" i8 q4 'abc'",
     "byte 37: a string value claims a length"},
    {"string of 2^64 - 1", HEAD(0, 1) "\"k\" i8 q-1 'abc'", "length of 18446744073709551615 bytes"},
    {"string's length cut", HEAD(0, 1) "\"k\" i8 i4", "a string value needs 8 bytes"},
    /* arrays */
    {"array in an array", HEAD(0, 1) "\"k\" i9 i9 q1 i0 q1 b0",
     "byte 37: key \"k\": an array of arrays"},
    {"element kind 13", HEAD(0, 1) "\"k\" i9 i13 q0", "element type 13 is out of range"},
    {"array's kind cut", HEAD(0, 1) "\"k\" i9 h0", "an array's element type needs 4 bytes"},
    {"array's length cut", HEAD(0, 1) "\"k\" i9 i0 i0", "an array's length needs 8 bytes"},
    {"array past the end", HEAD(0, 1) "\"k\" i9 i4 q3 z11", "an array of 3 elements, but only 11"},
    {"array of 2^61 u64", HEAD(0, 1) "\"k\" i9 i10 q0x2000000000000000 z64",
     "byte 41: key \"k\": an"},
    {"array of 2^64 - 1 u8", HEAD(0, 1) "\"k\" i9 i0 q-1 z64", "array of 18446744073709551615"},
    {"array of 2^61 strings", HEAD(0, 1) "\"k\" i9 i8 q0x2000000000000000 z64",
     "of 2305843009213693952"},
    {"too many strings", HEAD(0, 1) "\"k\" i9 i8 q3 z23", "an array of 3 elements, but only 23"},
    {"string of an array past the end", HEAD(0, 1) "\"k\" i9 i8 q2 \"a\" q2 'b'",
     "byte 58: a string of an array claims a length of 2 bytes, but only 1"},
    {"string of an array of 2^64 - 1", HEAD(0, 1) "\"k\" i9 i8 q1 q-1 z9", "18446744073709551615"},
    {"array with bool 3", HEAD(0, 1) "\"k\" i9 i7 q3 b0 b1 b3",
     "byte 51: key \"k\": the boolean is 3"},
    {"more keys than there are", HEAD(0, 2) "\"k\" i8 \"0123456789\"", "a key needs 8 bytes"},
    /* alignment */
    {"alignment 0", HEAD(0, 1) "\"general.alignment\" i4 i0", "byte 53: general.alignment is 0"},
    {"alignment 24", HEAD(0, 1) "\"general.alignment\" i4 i24", "is 24, expected a power of two"},
    {"alignment u64", HEAD(0, 1) "\"general.alignment\" i10 q32", "general.alignment is u64"},
    {"alignment string", HEAD(0, 1) "\"general.alignment\" i8 \"32\"", "is string, expected u32"},
    {"alignment 2^31", HEAD(1, 1) "\"general.alignment\" i4 i0x80000000 \"t\" i1 q1 i0 q0 z4096",
     "go past the end of the file (0 bytes of data)"},
    /* tensors */
    {"tensor without a name", HEAD(1, 0) "\"\" i1 q1 i0 q0 p32 z32",
     "byte 24: a tensor's name is 0"},
    {"long tensor name", HEAD(1, 0) "q65 a65 i1 q1 i0 q0 p32 z32",
     "65 bytes long, expected 1 to 64"},
    {"zero byte in a tensor's name", HEAD(1, 0) "q2 'a' b0 i1 q1 i0 q0 p32 z32", "the byte 0x00"},
    {"tensor's name not UTF-8", HEAD(1, 0) "q1 b0xFF i1 q1 i0 q0 p32 z32",
     "name is not valid UTF-8"},
    {"tensor twice", HEAD(2, 0) "\"t\" i1 q1 i0 q0 \"t\" i1 q1 i0 q32 p32 z64",
     "\"t\" is there twice"},
    {"no dimensions", ONE("i0", 0) "z32",
     "byte 33: tensor \"t\" has 0 dimensions, expected 1 to 4"},
    {"five dimensions", ONE("i5 q1 q1 q1 q1 q1", 0) "z32", "has 5 dimensions"},
    {"2^32 - 1 dimensions", ONE("i-1 q1", 0) "z32", "has 4294967295 dimensions"},
    {"dimension 0", ONE("i2 q4 q0", 0) "z32", "byte 45: tensor \"t\": dimension 1 is 0"},
    {"dimension 2^63", ONE("i1 q0x8000000000000000", 0) "z32",
     "dimension 0 is 9223372036854775808"},
    {"dimensions overflow", ONE("i2 q0x100000000 q0x100000000", 0) "z32",
     "dimension 1 is 4294967296"},
    {"dimensions overflow to 0", ONE("i4 q65536 q65536 q65536 q65536", 0) "z32",
     "dimension 3 is 65536"},
    {"bytes overflow", ONE("i1 q0x2000000000000000", 28) "z32", "its size in bytes overflows"},
    {"no type", HEAD(1, 0) "q12 a12 i1 q1 h0", "byte 56: a tensor's type needs 4 bytes"},
    {"type 99", ONE("i1 q32", 99) "z32", "byte 45: tensor \"t\" has type number 99 (unknown)"},
    {"type IQ4_XS", ONE("i1 q256", 23) "z256",
     "\"t\" has type number 23 (IQ4_XS), which saf does not"},
    {"type MXFP4", ONE("i1 q32", 39) "z32", "type number 39 (MXFP4)"},
    {"a removed type", ONE("i1 q32", 4) "z32", "type number 4 (Q4_2)"},
    {"type 2^32 - 1", ONE("i1 q32", -1) "z32", "type number 4294967295 (unknown)"},
    {"ragged Q8_0", ONE("i2 q48 q2", 8) "z128",
     "rows of 48 elements are no multiple of Q8_0's block"},
    {"ragged Q4_K", ONE("i2 q128 q2", 12) "z288", "rows of 128 elements are no multiple of Q4_K's"},
    {"offset not aligned", HEAD(1, 0) "\"t\" i1 q1 i0 q4 p32 z32",
     "byte 49: tensor \"t\": offset 4 is"},
    {"offset not aligned to 64",
     HEAD(1, 1) "\"general.alignment\" i4 i64 \"t\" i1 q1 i0 q32 p64 z64",
     "offset 32 is no multiple of the alignment 64"},
    {"offset past the end", HEAD(1, 0) "\"t\" i1 q1 i0 q64 p32 z32",
     "4 bytes at offset 64 of the data"},
    {"offset 2^64 - 32", HEAD(1, 0) "\"t\" i1 q8 i0 q-32 p32 z32",
     "32 bytes at offset 184467440737"},
    {"data missing", ONE("i1 q8", 0), "32 bytes at offset 0 of the data go past the end"},
    {"data one byte short", ONE("i1 q8", 0) "z31",
     "go past the end of the file (31 bytes of data)"},
    {"data of 2^62 bytes", ONE("i1 q0x1000000000000000", 0) "z32", "go past the end of the file"},
    {"same place", HEAD(2, 0) "\"a\" i1 q1 i0 q0 \"b\" i1 q1 i0 q0 p32 z64", "overlap"},
    {"overlap by one byte", HEAD(2, 0) "\"b\" i1 q1 i0 q32 \"a\" i1 q33 i24 q0 p32 z64",
     "tensors \"a\" and \"b\" overlap"},
    {"info cut at the name", HEAD(1, 0) "q40 z25", "a tensor's name claims a length of 40"},
    {"info cut at the dimensions", HEAD(1, 0) "q10 a10 i2 q1 z4",
     "a tensor's dimension needs 8 bytes"},
    {"info cut at the offset", HEAD(1, 0) "\"abcde\" i1 q1 i0 i0",
     "a tensor's offset needs 8 bytes"},
    {"second info missing", HEAD(2, 0) "\"t\" i1 q1 i0 q0 p32 z32",
     "a tensor's name is 0 bytes long"},
    /* keys of split files */
    {"split.count a string", HEAD(0, 1) "\"split.count\" i8 \"3\"", "\"split.count\" is string"},
    {"split.count 0", HEAD(0, 2) "\"split.no\" i2 h0 \"split.count\" i2 h0", "out of range"},
    {"split.no beyond", HEAD(0, 2) "\"split.no\" i2 h3 \"split.count\" i2 h3", "out of range"},
    {"split.count of 2^64 - 1", HEAD(0, 1) "\"split.count\" i10 q-1", "is larger than 2^63 - 1"},
    {"split.tensors.count", HEAD(0, 1) "\"split.tensors.count\" i5 i1", "but the parts hold 0"},
};

static void test_gguf_hostile_headers(void **state) {
    int failures = 0;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        saf_buf bytes = {0};
        saf_gguf *g = NULL;
        add_words(&bytes, bad[i].words);
        set_file(bytes.data ? bytes.data : "", bytes.len);
        saf_fail(SAF_FAILED, "no message");
        saf_status st = saf_gguf_open(path, &g);
        const char *text = saf_error_text();
        if (st != SAF_BAD_INPUT || g || !strstr(text, bad[i].message) || !strstr(text, path)) {
            print_error("%s: status %d, message \"%s\", expected \"%s\"\n", bad[i].what, st, text,
                        bad[i].message);
            failures++;
        }
        saf_gguf_close(&g);
        saf_buf_free(&bytes);
    }
    assert_int_equal(failures, 0);
}

/* What is unusual but right: the checks above refuse no more than they should. */
static void test_gguf_unusual_but_right(void **state) {
    static const char *const good[] = {
        HEAD(0, 0),
        "G i2 q0 q0",
        HEAD(0, 1) "\"k\" i8 \"\"",
        HEAD(0, 1) "\"k\" i9 i8 q0",
        HEAD(0, 1) "\"k\" i9 i12 q0",
        HEAD(0, 1) "\"k\" i9 i7 q2 b0 b1",
        HEAD(0, 1) "\"caf\xC3\xA9\" i0 b1",
        HEAD(0, 1) "q65535 a65535 i0 b0",
        HEAD(0, 1) "\"general.alignment\" i4 i1",
        HEAD(1, 0) "q64 a64 i1 q1 i0 q0 p32 z4",
        HEAD(1, 1) "\"general.alignment\" i4 i1 \"t\" i1 q1 i0 q0 z4",
        HEAD(2, 0) "\"b\" i1 q1 i0 q32 \"a\" i1 q32 i24 q0 p32 z36",
        HEAD(1, 0) "\"t\" i4 q1 q1 q1 q1 i0 q64 p32 z68",
        ONE("i2 q256 q2", 12) "z288",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        saf_buf bytes = {0};
        saf_gguf *g = NULL;
        add_words(&bytes, good[i]);
        set_file(bytes.data, bytes.len);
        if (saf_gguf_open(path, &g) != SAF_OK) fail_msg("%s: %s", good[i], saf_error_text());
        saf_gguf_close(&g);
        saf_buf_free(&bytes);
    }
}

/* A file of 64 GiB that is almost all hole: its size backs any claim, its bytes do not. */
static void test_gguf_hostile_claims_take_no_memory(void **state) {
    static const char *const claims[] = {
        "G i3 q0x70000000 q0 ",
        "G i3 q0 q0x70000000 ",
        "G i3 q0 q1 \"k\" i9 i0 q0xF00000000 ",
        "G i3 q0 q1 \"k\" i9 i8 q0x100000000 ",
        "G i3 q0 q1 q0xF00000000 ",
        "G i3 q0 q1 \"k\" i8 q0xF00000000 ",
    };
    size_t before = saf_peak_memory_bytes();
    (void)state;
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        saf_buf bytes = {0};
        saf_gguf *g = NULL;
        add_words(&bytes, claims[i]);
        set_file(bytes.data, bytes.len);
        if (ftruncate(file, (off_t)64 << 30) != 0) {
            print_message("# the file system holds no file of 64 GiB\n");
            saf_buf_free(&bytes);
            skip();
        }
        assert_int_equal(saf_gguf_open(path, &g), SAF_BAD_INPUT);
        saf_buf_free(&bytes);
    }
    assert_true(saf_peak_memory_bytes() - before < 64 << 20);
}

/* Uses what an opened file offers, as the tokenizer and the loader would. */
static void walk(const saf_gguf *g) {
    saf_gguf_kind kind, element;
    int64_t length, sum = 0;
    const char *text;
    size_t len;
    uint8_t bytes[64];
    for (int64_t i = 0; i < saf_gguf_key_count(g); i++) {
        const char *key = saf_gguf_key(g, i, &kind, &element, &length);
        assert_true(saf_gguf_has(g, key));
        for (int64_t j = 0; kind == SAF_GGUF_ARRAY && j < length; j++) {
            saf_gguf_array_string(g, key, j, &text, &len);
            if (len) sum += text[0] + text[len - 1];
            sum += saf_gguf_array_i64(g, key, j) & 1;
        }
    }
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        size_t n = t->bytes < sizeof bytes ? t->bytes : sizeof bytes;
        assert_int_equal(saf_gguf_tensor_read(g, t, t->bytes - n, n, bytes), SAF_OK);
    }
    assert_true(sum != INT64_MIN);
}

static void test_gguf_truncated_anywhere(void **state) {
    saf_buf whole = {0};
    int refused = 0;
    (void)state;
    assert_int_equal(saf_file_read(STORIES, 1 << 24, &whole), SAF_OK);
    for (int i = 0; i < 400; i++) {
        /* half within the header (14242 bytes), half anywhere */
        size_t len = i < 200 ? (size_t)i * 14242 / 200 : (size_t)(i - 200) * whole.len / 200;
        saf_gguf *g = NULL;
        set_file(whole.data, len);
        saf_status st = saf_gguf_open(path, &g);
        if (st != SAF_BAD_INPUT || !strstr(saf_error_text(), ": byte "))
            fail_msg("cut at %zu: status %d, \"%s\"", len, st, saf_error_text());
        refused++;
    }
    assert_int_equal(refused, 400);
    saf_buf_free(&whole);
}

static void test_gguf_random_byte_flips(void **state) {
    enum { HEADER = 14242, ROUNDS = 20000 };
    saf_buf whole = {0};
    int opened = 0, refused = 0;
    (void)state;
    assert_int_equal(saf_file_read(STORIES, 1 << 24, &whole), SAF_OK);
    set_file(whole.data, whole.len);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint32_t r[4];
        saf_gguf *g = NULL;
        saf_philox(1, 0, i, r);
        /* every other time where lengths, kinds and counts lie thickest */
        size_t at = i % 2 ? r[0] % HEADER : r[0] % 1100;
        uint8_t original = (uint8_t)whole.data[at],
                changed = (uint8_t)(original ^ (1 + r[1] % 255));
        assert_int_equal(pwrite(file, &changed, 1, (off_t)at), 1);
        saf_status st = saf_gguf_open(path, &g);
        if (st == SAF_OK) {
            walk(g);
            opened++;
        } else {
            assert_int_equal(st, SAF_BAD_INPUT);
            refused++;
        }
        saf_gguf_close(&g);
        assert_int_equal(pwrite(file, &original, 1, (off_t)at), 1);
    }
    assert_true(opened > 500 && refused > 500);
    saf_buf_free(&whole);
}

/* The file shrinks after it was opened. */
static void test_gguf_file_becomes_shorter(void **state) {
    saf_buf bytes = {0};
    saf_gguf *g = NULL;
    float v[8];
    (void)state;
    add_words(&bytes, ONE("i1 q8", 0) "z32");
    set_file(bytes.data, bytes.len);
    assert_int_equal(saf_gguf_open(path, &g), SAF_OK);
    assert_int_equal(saf_gguf_tensor_read(g, saf_gguf_tensor_at(g, 0), 0, 32, v), SAF_OK);
    assert_int_equal(ftruncate(file, (off_t)bytes.len - 1), 0);
    assert_int_equal(saf_gguf_tensor_read(g, saf_gguf_tensor_at(g, 0), 0, 32, v), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "has become shorter"));
    saf_gguf_close(&g);
    saf_buf_free(&bytes);
}

/* A named pipe is refused, not waited for. */
static void test_gguf_pipe_is_refused(void **state) {
    char pipe_path[64];
    saf_gguf *g = NULL;
    (void)state;
    snprintf(pipe_path, sizeof pipe_path, "%s.pipe", path);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    saf_status st = saf_gguf_open(pipe_path, &g);
    unlink(pipe_path);
    assert_int_equal(st, SAF_NO_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_hostile_headers),
        cmocka_unit_test(test_gguf_unusual_but_right),
        cmocka_unit_test(test_gguf_hostile_claims_take_no_memory),
        cmocka_unit_test(test_gguf_truncated_anywhere),
        cmocka_unit_test(test_gguf_random_byte_flips),
        cmocka_unit_test(test_gguf_file_becomes_shorter),
        cmocka_unit_test(test_gguf_pipe_is_refused),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
