/* Texts to learn from, and those held out, as tokens. */
#include "job/train/train.h"

enum { TEXT_MAX = 1 << 30 };

typedef struct {
    saf_gguf *gguf;
    saf_tokenizer *tokenizer;
    int32_t *bytes;           /* [V] that each token stands for */
    saf_sha256 *learn, *held; /* of the texts' bytes */
} reader;

/* ---- reading, rank 0 ---- */

static saf_status add_count(saf_sha256 *sha, int64_t n) {
    return saf_sha256_add(sha, &n, sizeof n);
}

/* Of what is learnt or held out, or of a vocabulary: how many follow, each with its length. */
static saf_status begin_part(int64_t n, saf_sha256 **sha) {
    saf_status st = saf_sha256_new(sha);
    return st == SAF_OK ? add_count(*sha, n) : st;
}

static saf_status end_part(saf_sha256 *sha, char hex[65]) {
    uint8_t digest[32];
    saf_status st = saf_sha256_final(sha, digest);
    if (st == SAF_OK) saf_hex(digest, sizeof digest, hex);
    return st;
}

/* What makes it another vocabulary: its tokens, and its ways with these texts (merges and all else
 * that splits them), which show in what they have become. */
static saf_status hash_vocab(const saf__training *x, const reader *r, char hex[65]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    saf_buf piece = {0};
    const saf_buf *parts[] = {&x->texts.learn, &x->texts.held};
    SAF_TRY(begin_part(saf_tokenizer_vocab(r->tokenizer), &sha));
    SAF_TRY(add_count(sha, x->texts.bos));
    SAF_TRY(add_count(sha, saf_tokenizer_eos(r->tokenizer)));
    for (int32_t id = 0; id < saf_tokenizer_vocab(r->tokenizer); id++) {
        saf_buf_clear(&piece);
        SAF_TRY(saf_tokenizer_piece(r->tokenizer, id, false, true, &piece));
        SAF_TRY(saf_sha256_add_prefixed(sha, piece.data ? piece.data : "", piece.len));
    }
    for (int i = 0; i < 2; i++)
        SAF_TRY(saf_sha256_add_prefixed(sha, parts[i]->data ? parts[i]->data : "", parts[i]->len));
    st = end_part(sha, hex);
out:
    saf_buf_free(&piece);
    saf_sha256_free(&sha);
    return st;
}

static saf_status open_vocab(saf__training *x, reader *r) {
    saf_status st = SAF_OK;
    saf_buf piece = {0};
    SAF_TRY(saf_gguf_open(x->job->train.vocab, &r->gguf));
    SAF_TRY(saf_gguf_header_sha256(r->gguf, x->vocab_header));
    SAF_TRY(saf_tokenizer_new(r->gguf, &r->tokenizer));
    int32_t n = saf_tokenizer_vocab(r->tokenizer);
    SAF_TRY(saf_alloc((size_t)n, sizeof *r->bytes, &r->bytes));
    for (int32_t id = 0; id < n; id++) {
        saf_buf_clear(&piece);
        SAF_TRY(saf_tokenizer_piece(r->tokenizer, id, false, false, &piece));
        r->bytes[id] = (int32_t)piece.len;
    }
    x->shape.vocab = n;
    x->texts.bos = saf_tokenizer_adds_bos(r->tokenizer) ? saf_tokenizer_bos(r->tokenizer) : -1;
out:
    saf_buf_free(&piece);
    return st;
}

saf_status saf__vocab_check(const saf__training *x) {
    saf_status st = SAF_OK;
    saf_gguf *gguf = NULL;
    uint8_t header[32];
    SAF_TRY(saf_gguf_open(x->job->train.vocab, &gguf));
    SAF_TRY(saf_gguf_header_sha256(gguf, header));
    if (memcmp(header, x->vocab_header, sizeof header) != 0)
        st = saf_fail(SAF_BAD_INPUT,
                      "%s has changed since its texts were read: expected train.vocab "
                      "as it was, for the model",
                      x->job->train.vocab);
out:
    saf_gguf_close(&gguf);
    return st;
}

/* A text and its end. */
static saf_status add_text(const saf__training *x, const reader *r, const char *text, size_t len,
                           saf_sha256 *sha, saf_buf *out) {
    saf_status st = SAF_OK;
    saf_ids ids = {0};
    int32_t end = saf_tokenizer_eos(r->tokenizer);
    SAF_TRY(saf_sha256_add_prefixed(sha, len > 0 ? text : "", len));
    if (len == 0) return SAF_OK;
    SAF_TRY(saf_tokenizer_encode(r->tokenizer, text, len, false, x->job->input.special, &ids));
    if (end >= 0) SAF_TRY(saf_ids_append(&ids, end));
    SAF_TRY(saf_buf_append(out, ids.data, (size_t)ids.len * sizeof *ids.data));
out:
    saf_ids_free(&ids);
    return st;
}

/* A file's share at its end is held out; all of it where it is 1. */
static saf_status add_file(saf__training *x, const reader *r, const char *path, double share) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    SAF_TRY(saf_file_read(path, TEXT_MAX, &text));
    size_t valid = saf_utf8_valid_prefix(text.data, text.len);
    if (valid != text.len) {
        st = saf_fail(SAF_BAD_INPUT, "%s: byte %zu is not UTF-8", path, valid);
        goto out;
    }
    size_t cut = share < 1 ? saf_text_held_out(text.data, text.len, share) : 0;
    if (share < 1) SAF_TRY(add_text(x, r, text.data, cut, r->learn, &x->texts.learn));
    if (share > 0)
        SAF_TRY(add_text(x, r, text.data + cut, text.len - cut, r->held, &x->texts.held));
out:
    saf_buf_free(&text);
    return st;
}

static int64_t count_bytes(const reader *r, const saf_buf *ids, int64_t from) {
    const int32_t *id = (const int32_t *)(const void *)ids->data;
    int64_t sum = 0, n = (int64_t)(ids->len / sizeof *id);
    for (int64_t i = from; i < n; i++) sum += r->bytes[id[i]];
    return sum;
}

static saf_status check_lengths(const saf__training *x) {
    const saf__texts *t = &x->texts;
    int64_t need = t->context + (t->bos < 0);
    if (t->n_learn < need)
        return saf_fail(SAF_BAD_INPUT,
                        "%lld tokens of text to learn from, fewer than a sequence takes: %lld "
                        "(train.context)",
                        (long long)t->n_learn, (long long)need);
    if (t->n_held == 0 && (x->job->input.n_held_out_text > 0 || x->job->input.held_out > 0))
        return saf_fail(SAF_BAD_INPUT,
                        "no text is left to be held out: the texts are too short or have no lines; "
                        "input.held_out = 0 does without");
    return SAF_OK;
}

saf_status saf__texts_read(saf__training *x) {
    saf_status st = SAF_OK;
    saf__texts *t = &x->texts;
    const saf_job *job = x->job;
    reader r = {0};
    double share = job->input.n_held_out_text > 0 ? 0 : job->input.held_out;
    SAF_TRY(saf__train_check_outputs(job));
    SAF_TRY(open_vocab(x, &r));
    SAF_TRY(begin_part(job->input.n_text, &r.learn));
    SAF_TRY(begin_part(share > 0 ? job->input.n_text : job->input.n_held_out_text, &r.held));
    for (int32_t i = 0; i < job->input.n_text; i++)
        SAF_TRY(add_file(x, &r, job->input.text[i], share));
    for (int32_t i = 0; i < job->input.n_held_out_text; i++)
        SAF_TRY(add_file(x, &r, job->input.held_out_text[i], 1));
    SAF_TRY(end_part(r.learn, x->learn_sha256));
    SAF_TRY(end_part(r.held, x->held_sha256));
    SAF_TRY(hash_vocab(x, &r, x->vocab_sha256));
    t->n_learn = (int64_t)(t->learn.len / sizeof(int32_t));
    t->n_held = (int64_t)(t->held.len / sizeof(int32_t));
    t->bytes = count_bytes(&r, &t->learn, 0);
    t->held_bytes = count_bytes(&r, &t->held, t->bos < 0);
    st = check_lengths(x);
out:
    saf_sha256_free(&r.learn);
    saf_sha256_free(&r.held);
    saf_free(&r.bytes);
    saf_tokenizer_free(&r.tokenizer);
    saf_gguf_close(&r.gguf);
    return st;
}

/* ---- on every rank ---- */

saf_status saf__texts_share(saf__training *x) {
    saf_status st = SAF_OK;
    saf__texts *t = &x->texts;
    int64_t words[] = {t->n_learn, t->n_held, t->bytes, t->held_bytes, t->bos, x->shape.vocab};
    saf_tensor w = saf_tensor_1d(SAF_DTYPE_I64, words, sizeof words / sizeof *words);
    SAF_TRY(saf_comm_bcast(x->world, 0, &w));
    t->n_learn = words[0];
    t->n_held = words[1];
    t->bytes = words[2];
    t->held_bytes = words[3];
    t->bos = (int32_t)words[4];
    x->shape.vocab = words[5];
    SAF_TRY(saf_comm_bcast_buf(x->world, 0, &t->learn));
    SAF_TRY(saf_comm_bcast_buf(x->world, 0, &t->held));
out:
    return st;
}

void saf__texts_free(saf__texts *t) {
    saf_buf_free(&t->learn);
    saf_buf_free(&t->held);
}

/* ids[context + 1] from place `at` on, of which n tokens are there to be foretold. */
static void take(const saf__texts *t, const saf_buf *from, int64_t at, int64_t n, int32_t *ids) {
    const int32_t *all = (const int32_t *)(const void *)from->data;
    bool with_bos = t->bos >= 0;
    memset(ids, 0, (size_t)(t->context + 1) * sizeof *ids);
    if (with_bos) ids[0] = t->bos;
    memcpy(ids + with_bos, all + at, (size_t)(n + !with_bos) * sizeof *ids);
}

/* Anywhere in the text, as the seed has it for this step and sequence. */
saf_status saf__texts_learn(void *texts, int64_t step, int64_t sequence, int32_t *ids,
                            int64_t *counted) {
    static const uint64_t order = UINT64_C(0x7465787473); /* apart from the first weights */
    const saf__texts *t = texts;
    uint64_t places = (uint64_t)(t->n_learn - t->context - (t->bos < 0) + 1);
    uint32_t r[4];
    saf_philox(t->seed ^ order, (uint64_t)step, (uint64_t)sequence, r);
    uint64_t bits = (uint64_t)r[0] << 32 | r[1];
    __extension__ typedef unsigned __int128 wide;
    uint64_t at = (uint64_t)((wide)bits * places >> 64);
    take(t, &t->learn, (int64_t)at, t->context, ids);
    *counted = t->context;
    return SAF_OK;
}

/* Predictions in the held-out text. */
static int64_t foretold(const saf__texts *t) {
    return saf_i64_max(0, t->n_held - (t->bos < 0));
}

/* A sequence of the held-out text has as many tokens as the context in all, the first included, so
 * that a score job can be given the same. */
int64_t saf__texts_held_sequences(const saf__texts *t) {
    return saf_ceil_div(foretold(t), t->context - 1);
}

saf_status saf__texts_held(void *texts, int64_t step, int64_t sequence, int32_t *ids,
                           int64_t *counted) {
    const saf__texts *t = texts;
    int64_t at = sequence * (t->context - 1);
    (void)step;
    *counted = saf_i64_min(t->context - 1, foretold(t) - at);
    take(t, &t->held, at, *counted, ids);
    return SAF_OK;
}
