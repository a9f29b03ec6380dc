#include "job/caches.h"

/* What travels as it is: the ranks run one program. */
typedef struct {
    int64_t layers, heads, row_bytes, n_sequences, n_sources, path_bytes, type_bytes;
} wire;

void saf__caches_free(saf__caches *c) {
    saf_free(&c->checkpoint);
    saf_free(&c->of);
    saf_kv_saved_free(&c->saved);
}

int64_t saf__caches_step(const saf__session *s) {
    enum { PIECE_BYTES = 4 << 20 };
    return saf_i64_max(1, PIECE_BYTES / (int64_t)saf_kv_cache_row_bytes(s->kv));
}

static saf_status pack(const saf__caches *c, saf_buf *out) {
    saf_status st = SAF_OK;
    const saf_kv_saved *s = &c->saved;
    if (!c->checkpoint) return SAF_OK;
    const wire w = {s->layers,
                    s->heads,
                    s->row_bytes,
                    s->n_sequences,
                    s->n_sources,
                    (int64_t)strlen(c->checkpoint) + 1,
                    (int64_t)strlen(s->type) + 1};
    SAF_TRY(saf_buf_append(out, &w, sizeof w));
    SAF_TRY(saf_buf_append(out, s->sequences, (size_t)s->n_sequences * sizeof *s->sequences));
    SAF_TRY(saf_buf_append(out, s->sources, (size_t)s->n_sources * sizeof *s->sources));
    SAF_TRY(saf_buf_append(out, c->of, (size_t)s->n_sequences * sizeof *c->of));
    SAF_TRY(saf_buf_append(out, c->checkpoint, (size_t)w.path_bytes));
    SAF_TRY(saf_buf_append(out, s->type, (size_t)w.type_bytes));
out:
    return st;
}

static saf_status take(const saf_buf *buf, size_t *at, size_t len, void *out) {
    char *copy = NULL;
    saf_status st = saf_alloc(len, 1, &copy);
    if (st != SAF_OK) return st;
    if (len > 0) memcpy(copy, buf->data + *at, len);
    *at += len;
    memcpy(out, &copy, sizeof copy);
    return SAF_OK;
}

/* The sender's lengths are of this very message. */
static saf_status unpack(const saf_buf *buf, saf__caches *c) {
    saf_status st = SAF_OK;
    wire w;
    size_t at = sizeof w;
    saf_kv_saved *s = &c->saved;
    if (buf->len == 0) return SAF_OK;
    memcpy(&w, buf->data, sizeof w);
    s->layers = w.layers;
    s->heads = w.heads;
    s->row_bytes = w.row_bytes;
    s->n_sequences = w.n_sequences;
    s->n_sources = w.n_sources;
    SAF_TRY(take(buf, &at, (size_t)w.n_sequences * sizeof *s->sequences, &s->sequences));
    SAF_TRY(take(buf, &at, (size_t)w.n_sources * sizeof *s->sources, &s->sources));
    SAF_TRY(take(buf, &at, (size_t)w.n_sequences * sizeof *c->of, &c->of));
    SAF_TRY(take(buf, &at, (size_t)w.path_bytes, &c->checkpoint));
    SAF_TRY(take(buf, &at, (size_t)w.type_bytes, &s->type));
out:
    return st;
}

saf_status saf__caches_bcast(saf_comm *world, saf__caches *c) {
    saf_status st = SAF_OK;
    saf_buf bytes = {0};
    bool mine = saf_comm_rank(world) == 0;
    SAF_TRY(saf_comm_agree(world, mine ? pack(c, &bytes) : SAF_OK));
    SAF_TRY(saf_comm_bcast_buf(world, 0, &bytes));
    st = saf_comm_agree(world, mine ? SAF_OK : unpack(&bytes, c));
out:
    saf_buf_free(&bytes);
    return st;
}
