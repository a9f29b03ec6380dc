/* The hashes that two runs are compared by. */
#include "store/writer.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hashes run over little-endian memory");

static saf_status hash_rows(const saf_results_writer *w, saf_sha256 *sha, int64_t row0,
                            int64_t rows, int64_t block_rows, float *block) {
    saf_status st = SAF_OK;
    for (int64_t i = 0; i < rows; i += block_rows) {
        int64_t n = saf_i64_min(block_rows, rows - i);
        saf_alive();
        SAF_TRY(saf__results_read_rows(w, row0 + i, n, block));
        SAF_TRY(saf_sha256_add(sha, block, (size_t)(n * w->vocab) * sizeof *block));
    }
out:
    return st;
}

static saf_status logits_hash(const saf_results_writer *w, const saf_results *r, char out[65]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    float *block = NULL;
    char *owned = NULL;
    const char *id = NULL;
    uint8_t digest[32];
    int64_t row_bytes = w->vocab * (int64_t)sizeof *block;
    int64_t block_rows = saf__results_block_rows(w);
    SAF_TRY(saf_alloc((size_t)block_rows, (size_t)row_bytes, &block));
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        SAF_TRY(saf__h5_clean(q->id ? q->id : "", &owned, &id));
        SAF_TRY(saf_sha256_add_prefixed(sha, id, strlen(id)));
        saf_free(&owned);
        uint64_t length = (uint64_t)q->logits_rows * (uint64_t)row_bytes;
        SAF_TRY(saf_sha256_add(sha, &length, sizeof length));
        SAF_TRY(hash_rows(w, sha, q->logits_row0, q->logits_rows, block_rows, block));
    }
    SAF_TRY(saf_sha256_final(sha, digest));
    saf_hex(digest, sizeof digest, out);
out:
    saf_free(&owned);
    saf_free(&block);
    saf_sha256_free(&sha);
    return st;
}

saf_status saf__results_tokens_hash(const saf_results *r, char out[65]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    char *owned = NULL;
    const char *id = NULL;
    uint8_t digest[32];
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        size_t prompt = q->prompt_ids ? (size_t)q->prompt_tokens : 0;
        size_t completion = q->completion_ids ? (size_t)q->completion_tokens : 0;
        SAF_TRY(saf__h5_clean(q->id ? q->id : "", &owned, &id));
        SAF_TRY(saf_sha256_add_prefixed(sha, id, strlen(id)));
        saf_free(&owned);
        SAF_TRY(saf_sha256_add_prefixed(sha, q->prompt_ids, prompt * sizeof(int32_t)));
        SAF_TRY(saf_sha256_add_prefixed(sha, q->completion_ids, completion * sizeof(int32_t)));
    }
    SAF_TRY(saf_sha256_final(sha, digest));
    saf_hex(digest, sizeof digest, out);
out:
    saf_free(&owned);
    saf_sha256_free(&sha);
    return st;
}

saf_status saf_results_hash(saf_results_writer *w, saf_results *r) {
    saf_status st = SAF_OK;
    char tokens[65], logits[65];
    bool rows = false;
    SAF_TRY(saf__results_check_usable(w));
    SAF_TRY(saf__results_check_requests(w, r));
    SAF_TRY(saf__results_tokens_hash(r, tokens));
    for (int64_t i = 0; i < r->n_requests; i++) rows |= r->requests[i].logits_rows > 0;
    if (rows) SAF_TRY(logits_hash(w, r, logits));
    saf_free(&r->tokens_sha256);
    saf_free(&r->logits_sha256);
    SAF_TRY(saf_strdup(tokens, &r->tokens_sha256));
    if (rows) SAF_TRY(saf_strdup(logits, &r->logits_sha256));
out:
    return st;
}
