/* Caches are kept: every rank writes what its slots hold, then rank 0 the file that joins them. */
#include <assert.h>

#include "job/caches.h"
#include "job/fields.h"

/* What a head knows of a slot. */
typedef struct {
    int32_t request, slot, positions;
} held;

saf_status saf__caches_held(void *ctx, int32_t request, int32_t slot, int32_t positions) {
    saf__session *s = ctx;
    const held one = {request, slot, positions};
    if (!s->settings.kv) return SAF_OK;
    return saf_buf_append(&s->held, &one, sizeof one);
}

/* A slow disk of a file system that many ranks share; at most a quarter of the job's time. */
double saf__caches_take_s(const saf__session *s) {
    static const double bytes_per_s = 200e6;
    if (!s->settings.kv || !s->kv) return 0;
    double seconds = (double)saf_kv_cache_bytes(s->kv) / bytes_per_s;
    return seconds < s->stop.limit_s / 4 ? seconds : s->stop.limit_s / 4;
}

/* ---- what there is ---- */

static saf_status add_sequences(saf__session *s, const saf_buf *of_rank) {
    saf_status st = SAF_OK;
    saf_kv_saved *saved = &s->caches.saved;
    size_t n = 0;
    for (int r = 0; r < s->ranks; r++) n += of_rank[r].len / sizeof(held);
    SAF_TRY(saf_alloc(n, sizeof *saved->sequences, &saved->sequences));
    SAF_TRY(saf_alloc(n, sizeof *s->caches.of, &s->caches.of));
    for (int r = 0; r < s->ranks; r++) {
        const held *h = (const held *)(const void *)of_rank[r].data;
        for (size_t i = 0; i < of_rank[r].len / sizeof *h; i++) {
            const saf__live *l = &s->live[h[i].request];
            if (l->done) continue;
            s->caches.of[saved->n_sequences] = h[i].slot;
            saved->sequences[saved->n_sequences++] =
                (saf_kv_sequence){l->row, saf_layout_place(&s->layout, r).replica, h[i].positions};
        }
    }
out:
    return st;
}

static bool has_sequences(const saf_kv_saved *saved, int64_t set) {
    for (int64_t i = 0; i < saved->n_sequences; i++)
        if (saved->sequences[i].set == set) return true;
    return false;
}

/* Of key heads that several ranks of a stage hold, the first writes. */
static saf_status add_sources(saf__session *s) {
    saf_status st = SAF_OK;
    saf_kv_saved *saved = &s->caches.saved;
    int64_t written = 0;
    SAF_TRY(saf_alloc((size_t)s->ranks, sizeof *saved->sources, &saved->sources));
    for (int r = 0; r < s->ranks; r++) {
        saf_place place = saf_layout_place(&s->layout, r);
        saf_slice_range range = saf_layout_range(&s->layout, r);
        saf_span heads = saf_slice_kv_heads(&s->params, range);
        if (place.part == 0) written = 0;
        int64_t head0 = saf_i64_max(heads.begin, written);
        if (head0 >= heads.end || range.layer1 <= range.layer0) continue;
        written = heads.end;
        if (!has_sequences(saved, place.replica)) continue;
        saved->sources[saved->n_sources++] = (saf_kv_source){.rank = r,
                                                             .set = place.replica,
                                                             .layer0 = range.layer0,
                                                             .layers = range.layer1 - range.layer0,
                                                             .head0 = head0,
                                                             .heads = heads.end - head0};
    }
out:
    return st;
}

static saf_status describe(saf__session *s, const saf_buf *of_rank) {
    saf_status st = SAF_OK;
    saf_kv_saved *saved = &s->caches.saved;
    saf__caches_free(&s->caches);
    saved->layers = s->params.layers;
    saved->heads = s->params.kv_heads;
    saved->row_bytes = (int64_t)saf_kv_cache_row_bytes(s->kv);
    SAF_TRY(saf_strdup(saf__kv_type_name(s->settings.kv_type), &saved->type));
    SAF_TRY(add_sequences(s, of_rank));
    SAF_TRY(add_sources(s));
out:
    return st;
}

saf_status saf__caches_gather(saf__session *s, bool *any) {
    saf_status st = SAF_OK;
    saf_buf *of_rank = NULL;
    *any = false;
    if (!s->settings.kv) return SAF_OK;
    SAF_TRY(saf_comm_agree(s->world, saf_alloc((size_t)s->ranks, sizeof *of_rank, &of_rank)));
    assert(of_rank); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(s->world, 0, &s->held, of_rank));
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? describe(s, of_rank) : SAF_OK));
    *any = s->rank == 0 && s->caches.saved.n_sequences > 0;
out:
    for (int r = 0; of_rank && r < s->ranks; r++) saf_buf_free(&of_rank[r]);
    saf_free(&of_rank);
    return st;
}

/* ---- writing ---- */

/* Rows of one key head of a layer, a piece after the other. */
static saf_status write_rows(const saf__session *s, saf_kv_writer *w, saf_kv_place p, int32_t slot,
                             char *piece) {
    saf_status st = SAF_OK;
    int64_t all = s->caches.saved.sequences[p.sequence].positions, step = saf__caches_step(s);
    for (p.pos0 = 0; p.pos0 < all; p.pos0 += step) {
        p.n = saf_i64_min(step, all - p.pos0);
        const saf_kv_rows rows = {slot, p.layer, p.head, p.keys, p.pos0, p.n};
        SAF_TRY(saf_kv_cache_get(s->kv, &rows, piece));
        SAF_TRY(saf_kv_put(w, &p, piece));
    }
out:
    return st;
}

static saf_status write_source(const saf__session *s, saf_kv_source *source) {
    saf_status st = SAF_OK;
    const saf__caches *c = &s->caches;
    saf_kv_writer *w = NULL;
    char *piece = NULL;
    SAF_TRY(saf_alloc((size_t)saf__caches_step(s), (size_t)c->saved.row_bytes, &piece));
    SAF_TRY(saf_kv_create(c->checkpoint, &c->saved, source, &w));
    for (int64_t q = 0; q < c->saved.n_sequences; q++) {
        if (c->saved.sequences[q].set != source->set) continue;
        for (int64_t l = source->layer0; l < source->layer0 + source->layers; l++)
            for (int64_t h = source->head0; h < source->head0 + source->heads; h++)
                for (int keys = 1; keys >= 0; keys--)
                    SAF_TRY(write_rows(s, w, (saf_kv_place){q, l, h, keys, 0, 0}, c->of[q], piece));
    }
    SAF_TRY(saf_kv_commit(w, &source->bytes, source->sha256));
out:
    saf_kv_writer_free(&w);
    saf_free(&piece);
    return st;
}

static saf_kv_source *source_of(saf_kv_saved *saved, int rank) {
    for (int64_t i = 0; i < saved->n_sources; i++)
        if (saved->sources[i].rank == rank) return &saved->sources[i];
    return NULL;
}

/* What each rank wrote, to rank 0, and there the file that joins them. */
static saf_status join(saf__session *s, const saf_kv_source *mine) {
    saf_status st = SAF_OK;
    saf_buf said = {0}, *of_rank = NULL;
    saf_kv_saved *saved = &s->caches.saved;
    if (mine) st = saf_buf_append(&said, mine, sizeof *mine);
    if (st == SAF_OK) st = saf_alloc((size_t)s->ranks, sizeof *of_rank, &of_rank);
    SAF_TRY(saf_comm_agree(s->world, st));
    assert(of_rank); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(s->world, 0, &said, of_rank));
    for (int r = 0; s->rank == 0 && r < s->ranks; r++) {
        saf_kv_source *source = source_of(saved, r);
        if (source && of_rank[r].len == sizeof *source)
            memcpy(source, of_rank[r].data, sizeof *source);
    }
    if (s->rank == 0) st = saf_kv_join(s->caches.checkpoint, saved);
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    for (int r = 0; of_rank && r < s->ranks; r++) saf_buf_free(&of_rank[r]);
    saf_free(&of_rank);
    saf_buf_free(&said);
    return st;
}

static void say_kept(const saf__session *s, double seconds) {
    const saf_kv_saved *saved = &s->caches.saved;
    int64_t bytes = 0;
    if (s->rank != 0 || s->options->quiet) return;
    for (int64_t i = 0; i < saved->n_sources; i++) bytes += saved->sources[i].bytes;
    saf_log(SAF_LOG_INFO, "kept the caches of %lld request%s: %.1f MB in %.2f s",
            (long long)saved->n_sequences, saved->n_sequences == 1 ? "" : "s", (double)bytes / 1e6,
            seconds);
}

/* Only a communication that fails is an error: the checkpoint itself is there already. */
saf_status saf__caches_save(saf__session *s) {
    saf_status st = SAF_OK;
    saf__caches *c = &s->caches;
    double start = saf_clock_s();
    if (!s->settings.kv) return SAF_OK;
    if (s->rank == 0 && c->saved.n_sequences > 0)
        st = saf_checkpoint_newest(s->job->output.file, &c->checkpoint);
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(saf__caches_bcast(s->world, c));
    if (!c->checkpoint) return SAF_OK;
    saf_comm_watch_phase("keeping caches");
    saf_kv_source *mine = source_of(&c->saved, s->rank);
    st = saf_comm_agree(s->world, mine ? write_source(s, mine) : SAF_OK);
    if (st == SAF_OK) st = join(s, mine);
    if (st == SAF_OK) {
        say_kept(s, saf_clock_s() - start);
        return SAF_OK;
    }
    if (mine) saf_kv_remove(c->checkpoint, s->rank);
    if (s->rank == 0) {
        saf_log(SAF_LOG_WARNING, "caches are not kept: %s", saf_error_text());
        saf_kv_remove(c->checkpoint, -1);
    }
    if (st != SAF_COMM) st = SAF_OK;
out:
    return st;
}
