/* The model on every rank, as far as its header goes. Rank 0 has the file; another rank that has
 * none is sent the header and, later, the tensors of its slice (src/parallel/load.c). */
#include "job/session.h"

/* Not having the file is no error but on rank 0: s->gguf stays NULL. `hash` is 65 bytes. */
static saf_status open_here(saf__session *s, char *hash) {
    saf_status st = SAF_OK;
    uint8_t digest[32];
    SAF_TRY(saf_kernels_init(NULL));
    SAF_TRY(saf_kernels_check_float_state());
    st = saf_gguf_open(s->model_path, &s->gguf);
    if (st == SAF_NO_INPUT && s->rank != 0) return SAF_OK;
    if (st != SAF_OK) goto out;
    SAF_TRY(saf_gguf_header_sha256(s->gguf, digest));
    saf_hex(digest, sizeof digest, hash);
out:
    return st;
}

/* Those who read the file must all see the same one. */
static saf_status check_same_model(saf__session *s, const char *mine) {
    saf_status st = SAF_OK;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, s->model_sha256, 65);
    if (s->rank == 0) memcpy(s->model_sha256, mine, 65);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    if (s->gguf && strcmp(mine, s->model_sha256) != 0)
        st =
            saf_fail(SAF_BAD_INPUT,
                     "%s: another file than rank 0's: the SHA-256 of its header is %s, of rank 0's "
                     "%s",
                     s->model_path, mine, s->model_sha256);
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    return st;
}

/* From rank 0 to each host with ranks that take it, once, and there to all of these. */
static saf_status send_image(saf__session *s, bool takes_part, saf_buf *image) {
    saf_status st = SAF_OK;
    saf_comm *host = NULL, *firsts = NULL;
    SAF_TRY(saf_comm_split(s->world, takes_part ? s->host[s->rank] : -1, s->rank, &host));
    bool first = takes_part && saf_comm_rank(host) == 0;
    SAF_TRY(saf_comm_split(s->world, first ? 0 : -1, s->rank, &firsts));
    if (first) st = saf_comm_bcast_buf(firsts, 0, image);
    SAF_TRY(saf_comm_agree(s->world, st));
    if (takes_part) st = saf_comm_bcast_buf(host, 0, image);
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    saf_comm_free(&firsts);
    saf_comm_free(&host);
    return st;
}

/* The header goes to the ranks that have no file. */
static saf_status share_header(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf image = {0};
    int32_t missing = !s->has_file;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &missing, 1);
    SAF_TRY(saf_comm_allreduce(s->world, SAF_OP_SUM, &t));
    if (missing == 0) goto out;
    if (s->rank == 0 && !s->options->quiet)
        saf_log(SAF_LOG_INFO,
                "%d of %d ranks without %s: their layers come from those that have it", missing,
                s->ranks, s->model_path);
    if (s->rank == 0) st = saf_gguf_image_write(s->gguf, &image);
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(send_image(s, s->rank == 0 || !s->has_file, &image));
    if (!s->has_file) st = saf_gguf_image_open(s->model_path, &image, &s->gguf);
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    saf_buf_free(&image);
    return st;
}

/* ---- the layout ---- */

saf_status saf__shares_spread(const double *given, int32_t n, const int32_t *host, int32_t ranks,
                              double *share) {
    int32_t hosts = 0;
    for (int32_t r = 0; r < ranks; r++) hosts = (int32_t)saf_i64_max(hosts, host[r] + 1);
    if (n != hosts && n != ranks)
        return saf_fail(
            SAF_USAGE,
            "layout.share has %d entries, expected %d, one for each host, or %d, one for each rank",
            n, hosts, ranks);
    for (int32_t r = 0; r < ranks; r++) {
        int32_t neighbours = 0;
        for (int32_t i = 0; i < ranks; i++) neighbours += host[i] == host[r];
        share[r] = n == hosts ? given[host[r]] / neighbours : given[r];
    }
    return SAF_OK;
}

saf_layout_wish saf__layout_wish(const saf__session *s) {
    const saf__settings *c = &s->settings;
    const saf__planned *p = &s->planned;
    bool planned = p->replicas > 0;
    return (saf_layout_wish){.ranks = s->ranks,
                             .host = s->host,
                             .replicas = planned ? p->replicas : c->replicas,
                             .stages = planned ? p->pipeline : c->pipeline,
                             .tensor = planned ? p->tensor : c->tensor,
                             .layers = c->n_stages > 0 ? s->given_stages : NULL,
                             .n_layers = c->n_stages,
                             .share = s->share,
                             .mix = s->mix};
}

static saf_status take_shares(saf__session *s) {
    saf_status st = SAF_OK;
    if (s->settings.n_share == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)s->ranks, sizeof *s->share, &s->share));
    st = saf__shares_spread(s->given_share, s->settings.n_share, s->host, s->ranks, s->share);
out:
    return st;
}

static saf_status lay_out(saf__session *s) {
    saf_status st = SAF_OK;
    saf_layout_wish wish = saf__layout_wish(s);
    SAF_TRY(saf_layout_choose(s->gguf, &s->params, &wish, &s->layout));
    s->range = saf_layout_range(&s->layout, s->rank);
    SAF_TRY(saf_alloc((size_t)s->ranks, sizeof *s->giver, &s->giver));
out:
    return st;
}

saf_status saf__model_open(saf__session *s) {
    saf_status st = SAF_OK;
    char hash[65] = "";
    st = open_here(s, hash);
    if (st == SAF_OK) st = saf_alloc(65, 1, &s->model_sha256);
    SAF_TRY(saf_comm_agree(s->world, st));
    s->has_file = s->gguf != NULL;
    SAF_TRY(check_same_model(s, hash));
    SAF_TRY(share_header(s));
    st = saf_comm_agree(s->world, saf_model_params_read(s->gguf, &s->params));
out:
    return st;
}

saf_status saf__layout_make(saf__session *s) {
    saf_status st = SAF_OK;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &s->mix, sizeof s->mix);
    if (s->rank == 0) saf__mix_guess(s, &s->mix);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    SAF_TRY(saf_comm_agree(s->world, take_shares(s)));
    SAF_TRY(saf__follow_plan(s));
    SAF_TRY(saf_comm_agree(s->world, lay_out(s)));
    SAF_TRY(saf_givers_choose(s->world, s->gguf, &s->params, &s->layout, s->has_file, s->giver));
out:
    return st;
}
