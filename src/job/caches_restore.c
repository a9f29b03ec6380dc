/* Caches are taken up: every rank looks at the files that have something of its layers and heads.
 */
#include "job/caches.h"
#include "job/fields.h"

/* ---- which requests, rank 0 ---- */

static saf_status misfit(const saf__session *s, const char *what) {
    return saf_fail(SAF_BAD_INPUT, "%s.kv: %s", s->caches.checkpoint, what);
}

/* The last known token at least is computed: the next one is picked from its logits. */
static saf_status find_requests(saf__session *s) {
    saf_status st = SAF_OK;
    saf__caches *c = &s->caches;
    const saf_kv_saved *saved = &c->saved;
    int32_t *of_row = NULL;
    if (saved->layers != s->params.layers || saved->heads != s->params.kv_heads ||
        saved->row_bytes != (int64_t)saf_kv_cache_row_bytes(s->kv) ||
        strcmp(saved->type, saf__kv_type_name(s->settings.kv_type)) != 0)
        return misfit(s, "its caches are of another model");
    SAF_TRY(saf_alloc((size_t)s->n_prompts, sizeof *of_row, &of_row));
    SAF_TRY(saf_alloc((size_t)saved->n_sequences, sizeof *c->of, &c->of));
    for (int32_t i = 0; i < s->work.n_requests; i++) of_row[s->live[i].row] = i + 1;
    for (int64_t q = 0; q < saved->n_sequences; q++) {
        saf_kv_sequence *sequence = &saved->sequences[q];
        if (sequence->row >= s->n_prompts)
            SAF_TRY(misfit(s, "it has requests that the job has not"));
        c->of[q] = of_row[sequence->row] - 1;
        of_row[sequence->row] = 0;
    }
out:
    saf_free(&of_row);
    return st;
}

/* Nothing there, or nothing that can be used, leaves no path. */
static void look(saf__session *s) {
    saf__caches *c = &s->caches;
    bool there = false;
    if (!c->checkpoint) return;
    saf_status st = saf_kv_saved_read(c->checkpoint, &c->saved, &there);
    if (st == SAF_OK && there) st = find_requests(s);
    if (st != SAF_OK) saf_log(SAF_LOG_WARNING, "caches are computed again: %s", saf_error_text());
    if (st != SAF_OK || !there) saf__caches_free(c);
}

/* ---- files ---- */

static bool is_mine(const saf__session *s, const saf_kv_source *source) {
    saf_span heads = saf_slice_kv_heads(&s->params, s->range);
    return source->layer0 < s->range.layer1 && s->range.layer0 < source->layer0 + source->layers &&
           source->head0 < heads.end && heads.begin < source->head0 + source->heads;
}

static saf_status open_files(saf__session *s) {
    saf_status st = SAF_OK;
    const saf_kv_saved *saved = &s->caches.saved;
    SAF_TRY(saf_alloc((size_t)saved->n_sources, sizeof *s->cache_files, &s->cache_files));
    SAF_TRY(saf_alloc((size_t)saf__caches_step(s), (size_t)saved->row_bytes, &s->cache_rows));
    SAF_TRY(saf_alloc((size_t)saved->n_sequences, sizeof *s->cache_taken, &s->cache_taken));
    for (int64_t i = 0; i < saved->n_sources; i++)
        if (is_mine(s, &saved->sources[i]))
            SAF_TRY(
                saf_kv_open(s->caches.checkpoint, saved, &saved->sources[i], &s->cache_files[i]));
out:
    return st;
}

static void set_requests(saf__session *s) {
    const saf__caches *c = &s->caches;
    int64_t n = 0, positions = 0;
    for (int64_t q = 0; q < c->saved.n_sequences; q++) {
        if (c->of[q] < 0) continue;
        saf_request *r = &s->work.requests[c->of[q]];
        r->cached = (int32_t)saf_i64_min(c->saved.sequences[q].positions, r->n_prompt - 1);
        n += r->cached > 0;
        positions += r->cached;
    }
    if (s->rank == 0 && !s->options->quiet)
        saf_log(SAF_LOG_INFO,
                "caches of %lld request%s restored: %lld positions are not computed again",
                (long long)n, n == 1 ? "" : "s", (long long)positions);
}

saf_status saf__caches_open(saf__session *s) {
    saf_status st = SAF_OK;
    if (!s->settings.kv) return SAF_OK;
    saf_comm_watch_phase("reading caches");
    if (s->rank == 0) look(s);
    SAF_TRY(saf__caches_bcast(s->world, &s->caches));
    if (!s->caches.checkpoint) return SAF_OK;
    st = saf_comm_agree(s->world, open_files(s));
    if (st == SAF_OK) {
        set_requests(s);
        return SAF_OK;
    }
    if (s->rank == 0) saf_log(SAF_LOG_WARNING, "caches are computed again: %s", saf_error_text());
    saf__caches_close(s);
    if (st != SAF_COMM) st = SAF_OK;
out:
    return st;
}

void saf__caches_close(saf__session *s) {
    for (int64_t i = 0; s->cache_files && i < s->caches.saved.n_sources; i++)
        saf_kv_close(&s->cache_files[i]);
    saf_free(&s->cache_files);
    saf_free(&s->cache_rows);
    saf_free(&s->cache_taken);
    saf__caches_free(&s->caches);
}

/* ---- taking up ---- */

static saf_status read_rows(saf__session *s, saf_kv_file *file, saf_kv_place p, int64_t all,
                            int32_t slot) {
    saf_status st = SAF_OK;
    int64_t step = saf__caches_step(s);
    for (p.pos0 = 0; p.pos0 < all; p.pos0 += step) {
        p.n = saf_i64_min(step, all - p.pos0);
        const saf_kv_rows rows = {slot, p.layer, p.head, p.keys, p.pos0, p.n};
        SAF_TRY(saf_kv_get(file, &p, s->cache_rows));
        SAF_TRY(saf_kv_cache_put(s->kv, &rows, s->cache_rows));
    }
out:
    return st;
}

/* What a file has of this rank's layers and heads. */
static saf_status read_source(saf__session *s, int64_t i, int64_t sequence, int64_t all,
                              int32_t slot) {
    saf_status st = SAF_OK;
    const saf_kv_source *f = &s->caches.saved.sources[i];
    saf_span heads = saf_slice_kv_heads(&s->params, s->range);
    int64_t layer0 = saf_i64_max(s->range.layer0, f->layer0);
    int64_t layer1 = saf_i64_min(s->range.layer1, f->layer0 + f->layers);
    int64_t head0 = saf_i64_max(heads.begin, f->head0);
    int64_t head1 = saf_i64_min(heads.end, f->head0 + f->heads);
    for (int64_t l = layer0; l < layer1; l++)
        for (int64_t h = head0; h < head1; h++)
            for (int keys = 1; keys >= 0; keys--)
                SAF_TRY(read_rows(s, s->cache_files[i], (saf_kv_place){sequence, l, h, keys, 0, 0},
                                  all, slot));
out:
    return st;
}

/* Nobody is to take for its cache what the slot has: values that are not finite show on all ranks
 * at the same place, as no message between them could, and the request is begun again. */
static saf_status spoil(saf__session *s, int64_t all, int32_t slot) {
    saf_status st = SAF_OK;
    saf_span heads = saf_slice_kv_heads(&s->params, s->range);
    int64_t step = saf__caches_step(s), n = saf_i64_min(step, all);
    memset(s->cache_rows, 0xFF, (size_t)(n * s->caches.saved.row_bytes)); /* NaN in every type */
    for (int64_t l = s->range.layer0; l < s->range.layer1; l++)
        for (int64_t h = heads.begin; h < heads.end; h++)
            for (int64_t at = 0; at < 2 * all; at += n) {
                int64_t pos0 = at % all;
                n = saf_i64_min(step, all - pos0);
                const saf_kv_rows rows = {slot, l, h, at < all, pos0, n};
                SAF_TRY(saf_kv_cache_put(s->kv, &rows, s->cache_rows));
            }
out:
    return st;
}

static saf_status read_sources(saf__session *s, int64_t q, int64_t all, int32_t slot) {
    saf_status st = SAF_OK;
    const saf__caches *c = &s->caches;
    for (int64_t i = 0; i < c->saved.n_sources; i++)
        if (s->cache_files[i] && c->saved.sources[i].set == c->saved.sequences[q].set)
            SAF_TRY(read_source(s, i, q, all, slot));
out:
    return st;
}

saf_status saf__caches_restore(void *ctx, int32_t request, int32_t slot) {
    saf_status st = SAF_OK;
    saf__session *s = ctx;
    const saf__caches *c = &s->caches;
    int64_t q = 0;
    while (q < c->saved.n_sequences && c->of[q] != request) q++;
    if (q == c->saved.n_sequences)
        return saf_fail(SAF_DEFECT, "request %d has no caches to restore", request);
    if (s->cache_taken[q]) return SAF_OK;
    s->cache_taken[q] = true;
    int64_t all = s->work.requests[request].cached;
    st = read_sources(s, q, all, slot);
    if (st == SAF_OK || st == SAF_DEFECT) return st;
    saf_log(SAF_LOG_WARNING, "the caches of request %lld are computed again: %s",
            (long long)c->saved.sequences[q].row, saf_error_text());
    return spoil(s, all, slot);
}
