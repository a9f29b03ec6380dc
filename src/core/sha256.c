#include <openssl/evp.h>

#include "saf/core.h"

struct saf_sha256 {
    EVP_MD_CTX *ctx;
};

saf_status saf_sha256_new(saf_sha256 **out) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    SAF_TRY(saf_alloc(1, sizeof *sha, &sha));
    sha->ctx = EVP_MD_CTX_new();
    if (!sha->ctx || !EVP_DigestInit_ex(sha->ctx, EVP_sha256(), NULL)) {
        st = saf_fail(SAF_FAILED, "libcrypto offers no SHA-256");
        goto out;
    }
    *out = sha;
    sha = NULL;
out:
    saf_sha256_free(&sha);
    return st;
}

saf_status saf_sha256_add(saf_sha256 *sha, const void *bytes, size_t len) {
    if (len > 0 && !EVP_DigestUpdate(sha->ctx, bytes, len))
        return saf_fail(SAF_FAILED, "SHA-256 failed in libcrypto");
    return SAF_OK;
}

saf_status saf_sha256_add_prefixed(saf_sha256 *sha, const void *bytes, size_t len) {
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (uint8_t)((uint64_t)len >> (8 * i));
    saf_status st = saf_sha256_add(sha, prefix, sizeof prefix);
    return st == SAF_OK ? saf_sha256_add(sha, bytes, len) : st;
}

saf_status saf_sha256_final(saf_sha256 *sha, uint8_t out[32]) {
    if (!EVP_DigestFinal_ex(sha->ctx, out, NULL))
        return saf_fail(SAF_FAILED, "SHA-256 failed in libcrypto");
    return SAF_OK;
}

void saf_sha256_free(saf_sha256 **sha) {
    if (*sha) EVP_MD_CTX_free((*sha)->ctx);
    saf_free(sha);
}

saf_status saf_sha256_of(const void *bytes, size_t len, uint8_t out[32]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    SAF_TRY(saf_sha256_new(&sha));
    SAF_TRY(saf_sha256_add(sha, bytes, len));
    SAF_TRY(saf_sha256_final(sha, out));
out:
    saf_sha256_free(&sha);
    return st;
}

void saf_hex(const uint8_t *bytes, size_t len, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = 0;
}
