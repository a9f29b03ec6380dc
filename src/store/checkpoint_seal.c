/* The user block in front of a checkpoint: 8 bytes that say what the file is, version and zero
 * (32 bits each), the number of bytes that follow the block (64 bits), their SHA-256, and zeros.
 * Numbers are little-endian. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/checkpoint.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers of the seal are as in memory");

enum { SEAL_VERSION = 1, PIECE_BYTES = 1 << 20 };

typedef struct {
    char magic[8];
    uint32_t version, zero;
    uint64_t bytes;
    uint8_t digest[32];
    uint8_t zeros[SAF__SEAL_BYTES - 56];
} seal;
_Static_assert(sizeof(seal) == SAF__SEAL_BYTES, "the seal is the user block");

static const char magic[8] = {'s', 'a', 'f', '-', 'c', 'k', 'p', 't'};

/* All of [at, at + len). Errors: IO; BAD_INPUT where the file ends early. */
static saf_status read_exactly(int fd, const char *path, void *out, size_t len, int64_t at) {
    size_t have = 0;
    while (have < len) {
        ssize_t n = pread(fd, (char *)out + have, len - have, (off_t)(at + (int64_t)have));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return saf_fail(SAF_IO, "cannot read %s: %s", path, strerror(errno));
        if (n == 0)
            return saf_fail(SAF_BAD_INPUT, "%s ends after %lld bytes", path,
                            (long long)at + (long long)have);
        have += (size_t)n;
    }
    return SAF_OK;
}

static saf_status hash_rest(int fd, const char *path, int64_t bytes, uint8_t digest[32]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    char *piece = NULL;
    SAF_TRY(saf_alloc(1, PIECE_BYTES, &piece));
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t len = (size_t)saf_i64_min(PIECE_BYTES, bytes - at);
        saf_alive();
        SAF_TRY(read_exactly(fd, path, piece, len, SAF__SEAL_BYTES + at));
        SAF_TRY(saf_sha256_add(sha, piece, len));
    }
    SAF_TRY(saf_sha256_final(sha, digest));
out:
    saf_sha256_free(&sha);
    saf_free(&piece);
    return st;
}

saf_status saf__seal_write(int fd, const char *path) {
    saf_status st = SAF_OK;
    struct stat s;
    seal block = {.version = SEAL_VERSION};
    memcpy(block.magic, magic, sizeof magic);
    if (fstat(fd, &s) != 0 || s.st_size < SAF__SEAL_BYTES)
        return saf_fail(SAF_IO, "%s was cut while it was written", path);
    int64_t bytes = (int64_t)s.st_size - SAF__SEAL_BYTES;
    block.bytes = (uint64_t)bytes;
    SAF_TRY(hash_rest(fd, path, bytes, block.digest));
    for (size_t done = 0; done < sizeof block;) {
        ssize_t n = pwrite(fd, (char *)&block + done, sizeof block - done, (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return saf_fail(SAF_IO, "cannot write %s, all of its %lld bytes: %s", path,
                            (long long)s.st_size, strerror(errno));
        done += (size_t)n;
    }
out:
    return st;
}

saf_status saf__seal_read(int fd, const char *path, int64_t *out_bytes, uint8_t sha256[32]) {
    saf_status st = SAF_OK;
    struct stat s;
    seal block;
    static const uint8_t zeros[sizeof block.zeros];
    if (fstat(fd, &s) != 0) return saf_fail(SAF_IO, "cannot look at %s: %s", path, strerror(errno));
    SAF_TRY(read_exactly(fd, path, &block, sizeof block, 0));
    if (memcmp(block.magic, magic, sizeof magic) != 0 || block.version != SEAL_VERSION ||
        block.zero != 0 || memcmp(block.zeros, zeros, sizeof zeros) != 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s does not begin as a checkpoint of saf does", path);
        goto out;
    }
    int64_t bytes = (int64_t)s.st_size - SAF__SEAL_BYTES;
    if (block.bytes != (uint64_t)bytes) {
        st = saf_fail(SAF_BAD_INPUT, "%s is %lld bytes long, and was written with %llu", path,
                      (long long)s.st_size, (unsigned long long)block.bytes + SAF__SEAL_BYTES);
        goto out;
    }
    *out_bytes = (int64_t)s.st_size;
    memcpy(sha256, block.digest, sizeof block.digest);
out:
    return st;
}

saf_status saf__seal_check(int fd, const char *path) {
    saf_status st = SAF_OK;
    int64_t bytes = 0;
    uint8_t digest[32], sealed[32];
    SAF_TRY(saf__seal_read(fd, path, &bytes, sealed));
    SAF_TRY(hash_rest(fd, path, bytes - SAF__SEAL_BYTES, digest));
    if (memcmp(digest, sealed, sizeof digest) != 0)
        st =
            saf_fail(SAF_BAD_INPUT, "%s does not have the checksum that it was written with", path);
out:
    return st;
}
