/* A checkpoint and the caches kept beside it, behind their checksums. The input is no file but
 * changes of one that is good: a byte of flags, then records of h5_edit.h. They are made by HDF5's
 * own means and everything is sealed again, so that what is read is a file that passes its checksum
 * and that libhdf5 can read, but which no saf wrote. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_resume.h"
#include "checkpoint_set.h"
#include "fuzz.h"
#include "store/checkpoint.h"

enum { RECORDS_MAX = 16 };
/* The first byte. */
enum {
    FLAG_SCORE = 1,
    FLAG_LOGITS = 2,
    FLAG_ALONE = 4,    /* what vouches for a changed file does not know of the change */
    FLAG_UNSEALED = 8, /* the last record changes a byte behind the seal */
    FLAG_NEWEST = 16,  /* opened by the name of its results */
    FLAG_JOIN = 32     /* what was read is joined once more */
};

static const char *checkpoint; /* paths */
static char output[300];

/* ---- the files ---- */

static void seal(const char *path, int64_t *bytes, uint8_t sha256[32]) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(saf__seal_write(fd, path) == SAF_OK);
    FUZZ_CHECK(saf__seal_read(fd, path, bytes, sha256) == SAF_OK);
    close(fd);
}

static void harm(const char *path, uint64_t at) {
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat s;
    FUZZ_CHECK(fd >= 0 && fstat(fd, &s) == 0);
    off_t place = (off_t)(at % (uint64_t)s.st_size);
    FUZZ_CHECK(pread(fd, &byte, 1, place) == 1);
    byte ^= (uint8_t)(1 << (at >> 61));
    FUZZ_CHECK(pwrite(fd, &byte, 1, place) == 1);
    close(fd);
}

/* What the file that joins the others says of them, and where in the good one it does. */
enum { DIGESTS = 3 };
typedef struct {
    int64_t bytes[2];
    uint8_t sources[2][32], checkpoint[32];
} digests;
static haddr_t digests_at[DIGESTS];

static void put_digests(uint8_t *joined, const digests *d) {
    memcpy(joined + digests_at[0], d->bytes, sizeof d->bytes);
    memcpy(joined + digests_at[1], d->sources, sizeof d->sources);
    memcpy(joined + digests_at[2], d->checkpoint, sizeof d->checkpoint);
}

static void find_digests(const char *joined) {
    static const char *const names[DIGESTS] = {"/state/source_bytes", "/state/source_sha256",
                                               "/state/checkpoint_sha256"};
    hid_t f = H5Fopen(joined, H5F_ACC_RDONLY, H5P_DEFAULT);
    FUZZ_CHECK(f >= 0);
    for (int i = 0; i < DIGESTS; i++) {
        hid_t data = H5Dopen2(f, names[i], H5P_DEFAULT);
        digests_at[i] = H5Dget_offset(data);
        FUZZ_CHECK(digests_at[i] != HADDR_UNDEF);
        H5Dclose(data);
    }
    H5Fclose(f);
}

static bool is_changed(set_file file, const fuzz_h5_record *records, int n) {
    for (int i = 0; i < n; i++)
        if (records[i].file % SET_FILES == file) return true;
    return false;
}

static const char *put_file(set_file file, const saf_buf *content) {
    char name[64];
    (void)snprintf(name, sizeof name, "g.h5.ckpt-1%s", set_endings[file]);
    return fuzz_file(name, content->data, content->len);
}

static const char *edit(set_file file, const fuzz_h5_record *records, int n, const saf_buf *content,
                        int64_t *bytes, uint8_t sha256[32]) {
    const char *path = put_file(file, content);
    if (is_changed(file, records, n)) {
        hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        FUZZ_CHECK(f >= 0);
        for (int i = 0; i < n; i++)
            if (records[i].file % SET_FILES == file) fuzz_h5_edit(f, set_names(file), &records[i]);
        FUZZ_CHECK(H5Fclose(f) >= 0);
    }
    seal(path, bytes, sha256);
    return path;
}

/* All files, each after those that it vouches for; their sizes together. */
static size_t edit_all(const fuzz_h5_record *records, int n, uint8_t flags) {
    digests d = {{0}, {{0}}, {0}};
    uint8_t own[32];
    int64_t bytes[2];
    saf_buf joined = {0};
    const saf_buf *good = set_bytes(SET_JOINED);
    saf__h5_enter();
    checkpoint =
        edit(SET_CHECKPOINT, records, n, set_bytes(SET_CHECKPOINT), &bytes[0], d.checkpoint);
    for (int i = 0; i < 2; i++) {
        set_file file = i ? SET_SOURCE_1 : SET_SOURCE_0;
        (void)edit(file, records, n, set_bytes(file), &d.bytes[i], d.sources[i]);
    }
    FUZZ_CHECK(saf_buf_append(&joined, good->data, good->len) == SAF_OK);
    if (!(flags & FLAG_ALONE)) put_digests((uint8_t *)joined.data, &d);
    (void)edit(SET_JOINED, records, n, &joined, &bytes[1], own);
    saf__h5_leave();
    saf_buf_free(&joined);
    return (size_t)(bytes[0] + bytes[1] + d.bytes[0] + d.bytes[1]);
}

static void make_once(void) {
    if (output[0]) return;
    const char *path = fuzz_file("g.h5", "", 0);
    FUZZ_CHECK(strlen(path) < sizeof output);
    memcpy(output, path, strlen(path) + 1);
    (void)unlink(output);
    saf_log_setup(SAF_LOG_ERROR, -1);
    set_make(output, resume_make(fuzz_file("m.gguf", "", 0)));
    find_digests(put_file(SET_JOINED, set_bytes(SET_JOINED)));
}

/* ---- reading ---- */

static bool accepted(saf_status st) {
    return fuzz_accepted(st == SAF_NO_INPUT ? SAF_BAD_INPUT : st, SAF_BAD_INPUT);
}

static bool is_text(const char *text) {
    return text && saf_utf8_valid_prefix(text, strlen(text)) == strlen(text);
}

static void check_head(const saf_checkpoint_head *h) {
    saf_checkpoint_head good;
    FUZZ_CHECK(h->kind && h->version && h->start_time && h->written);
    FUZZ_CHECK(h->done >= 0 && h->done <= h->total && h->tokens >= 0 && h->resumes >= 0);
    FUZZ_CHECK(h->seconds >= 0 && h->seconds <= 1e308);
    for (int32_t i = 0; i < h->identity.n; i++)
        FUZZ_CHECK(is_text(h->identity.items[i].name) && is_text(h->identity.items[i].value));
    set_head(&good);
    (void)fuzz_accepted(saf_identity_check(&good.identity, &h->identity, "x"), SAF_BAD_INPUT);
    (void)fuzz_accepted(saf_identity_check(&h->identity, &good.identity, "x"), SAF_BAD_INPUT);
    saf_identity_free(&good.identity);
}

/* Whatever type it has: as each of three. */
static void read_state(const saf_checkpoint *c) {
    static const char *const names[] = {"row", "end", "text", "logprobs", "logits", "none"};
    static const saf_dtype types[] = {SAF_DTYPE_I64, SAF_DTYPE_I32, SAF_DTYPE_U8, SAF_DTYPE_F32};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            void *values = NULL;
            int64_t n = -1, one;
            if (!fuzz_accepted(saf_checkpoint_get(c, names[i], types[t], 4096, &n, &values),
                               SAF_BAD_INPUT))
                continue;
            FUZZ_CHECK(n >= 0 && n <= 4096 && values);
            saf_free(&values);
            saf_status st = saf_checkpoint_get_some(c, names[i], types[t], n - 1, 1, &one);
            FUZZ_CHECK(st == (n > 0 ? SAF_OK : SAF_BAD_INPUT));
        }
}

static void read_checkpoint(uint8_t flags, bool changed) {
    saf_checkpoint *c = NULL;
    saf_status st = flags & FLAG_NEWEST ? saf_checkpoint_open_newest(output, &c)
                                        : saf_checkpoint_open(checkpoint, &c);
    if (!accepted(st)) {
        FUZZ_CHECK(changed && !c);
        return;
    }
    check_head(saf_checkpoint_head_of(c));
    read_state(c);
    bool score = flags & FLAG_SCORE, logits = flags & FLAG_LOGITS;
    st = resume_from(c, score, logits);
    (void)fuzz_accepted(st, SAF_BAD_INPUT);
    if (!changed && !score && logits) FUZZ_CHECK(st == SAF_OK);
    saf_checkpoint_free(&c);
}

static void read_source(const saf_kv_saved *saved, const saf_kv_source *source, bool changed) {
    enum { ROWS = 4, MOST_ROW = 4096 };
    static uint8_t rows[ROWS * MOST_ROW];
    saf_kv_file *f = NULL;
    if (!accepted(saf_kv_open(checkpoint, saved, source, &f))) {
        FUZZ_CHECK(changed && !f);
        return;
    }
    for (int64_t q = 0; q < saved->n_sequences && q < 8; q++) {
        int64_t positions = saved->sequences[q].positions;
        saf_kv_place p = {
            q, source->layer0 + source->layers - 1, source->head0 + source->heads - 1, false, 0, 0};
        p.n = positions < ROWS ? positions : ROWS;
        p.pos0 = positions - p.n;
        bool here = saved->sequences[q].set == source->set;
        if (saved->row_bytes <= MOST_ROW)
            FUZZ_CHECK(saf_kv_get(f, &p, rows) == (here ? SAF_OK : SAF_DEFECT));
        p.pos0++;
        FUZZ_CHECK(saf_kv_get(f, &p, rows) == SAF_DEFECT);
    }
    saf_kv_close(&f);
}

static bool same_tables(const saf_kv_saved *a, const saf_kv_saved *b) {
    return a->layers == b->layers && a->heads == b->heads && a->row_bytes == b->row_bytes &&
           a->n_sequences == b->n_sequences && a->n_sources == b->n_sources &&
           memcmp(a->sequences, b->sequences, (size_t)a->n_sequences * sizeof *a->sequences) == 0 &&
           memcmp(a->sources, b->sources, (size_t)a->n_sources * sizeof *a->sources) == 0;
}

/* What was read is joined once more, and reads back as it was. */
static void join_again(const saf_kv_saved *saved) {
    saf_kv_saved back = {0};
    bool there = false;
    if (saved->n_sequences * saved->n_sources > 64) return;
    if (!accepted(saf_kv_join(checkpoint, saved))) return;
    FUZZ_CHECK(saf_kv_saved_read(checkpoint, &back, &there) == SAF_OK && there);
    FUZZ_CHECK(same_tables(saved, &back));
    saf_kv_saved_free(&back);
}

static void read_caches(bool changed, bool again) {
    saf_kv_saved saved = {0};
    bool there = false;
    int64_t places = 0;
    if (!accepted(saf_kv_saved_read(checkpoint, &saved, &there))) {
        FUZZ_CHECK(changed && !there);
        return;
    }
    FUZZ_CHECK(there && saved.type);
    for (int64_t i = 0; i < saved.n_sources; i++) {
        const saf_kv_source *s = &saved.sources[i];
        FUZZ_CHECK(s->layer0 >= 0 && s->layers > 0 && s->layer0 + s->layers <= saved.layers);
        FUZZ_CHECK(s->head0 >= 0 && s->heads > 0 && s->head0 + s->heads <= saved.heads);
        if (saved.n_sequences > 0 && s->set == saved.sequences[0].set)
            places += s->layers * s->heads;
        if (i < 4) read_source(&saved, s, changed);
    }
    FUZZ_CHECK(saved.n_sequences == 0 || places == saved.layers * saved.heads);
    if (!changed) FUZZ_CHECK(same_tables(&saved, &set_saved) || saved.n_sources == 2);
    if (again) join_again(&saved);
    saf_kv_saved_free(&saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_h5_record records[RECORDS_MAX];
    int n = 0;
    if (size < 1) return -1;
    for (size_t at = 1; n < RECORDS_MAX && at + FUZZ_H5_RECORD <= size; at += FUZZ_H5_RECORD)
        records[n++] = fuzz_h5_record_of(data + at);
    make_once();
    size_t bytes = edit_all(records, n, data[0]);
    bool harmed = (data[0] & FLAG_UNSEALED) && n > 0;
    if (harmed) harm(checkpoint, records[n - 1].value);
    fuzz_begin(bytes);
    if (harmed) {
        saf_checkpoint *c = NULL;
        FUZZ_CHECK(!fuzz_accepted(saf_checkpoint_open(checkpoint, &c), SAF_BAD_INPUT));
    } else {
        bool others = n == 0, alone = data[0] & FLAG_ALONE, again = data[0] & FLAG_JOIN;
        for (int i = SET_SOURCE_0; i < SET_FILES; i++)
            others |= is_changed((set_file)i, records, n);
        bool own = n == 0 || is_changed(SET_CHECKPOINT, records, n);
        if (own) read_checkpoint(data[0], n > 0);
        if (others || alone || again) read_caches(n > 0 || alone, again);
    }
    fuzz_end();
    return 0;
}

/* Mostly whole records: one more, one less, one changed in a field. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    fuzz_random r = {seed};
    size_t n = size > 0 ? (size - 1) / FUZZ_H5_RECORD : 0;
    uint32_t way = fuzz_below(&r, 8);
    uint8_t *at = data + 1 + fuzz_below(&r, (uint32_t)n) * FUZZ_H5_RECORD;
    if (size == 0 || way == 0) return LLVMFuzzerMutate(data, size, max_size);
    if (way == 1) {
        data[0] = (uint8_t)fuzz_below(&r, 64);
        return size;
    }
    if (n == 0 || (way < 4 && n < RECORDS_MAX && size + FUZZ_H5_RECORD <= max_size)) {
        if (1 + (n + 1) * FUZZ_H5_RECORD > max_size) return size;
        at = data + 1 + n * FUZZ_H5_RECORD;
        for (int i = 0; i < FUZZ_H5_RECORD; i++)
            at[i] = i < 6 || fuzz_below(&r, 4) == 0 ? (uint8_t)fuzz_below(&r, 256) : 0;
        if (fuzz_below(&r, 8) == 0) memset(at + 4, 0xFF, 8);
        return 1 + (n + 1) * FUZZ_H5_RECORD;
    }
    if (way == 4 && n > 1) {
        memmove(at, data + 1 + (n - 1) * FUZZ_H5_RECORD, FUZZ_H5_RECORD);
        return 1 + (n - 1) * FUZZ_H5_RECORD;
    }
    if (way == 5)
        (void)LLVMFuzzerMutate(at + 4, 8, 8);
    else
        at[fuzz_below(&r, 4)] = (uint8_t)fuzz_below(&r, 256);
    return size;
}
