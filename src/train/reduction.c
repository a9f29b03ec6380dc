/* What the ranks' partial sums of gradients add up to. The parameters go in chunks, in the order in
 * which the way back completes their gradients: the head, the layers from the last to the first,
 * the embedding. A chunk is cut into a part for each rank. As soon as a rank has its partial sums
 * of a chunk, it sends every other rank that one's part of them, while it goes on with the layers
 * below; at the end each rank adds up what it was sent for its parts, in the order of the tree:
 *
 *     4 micro-batches, 3 ranks                 part p of a chunk, at rank p
 *     rank 0: 0      rank 1: 1      rank 2: 2 + 3
 *                                               (0 + 1) + (2 + 3)
 *
 * So the additions are those of a single rank, whoever makes them, every value crosses once, and
 * it crosses as often as there are nodes of the tree that a rank could complete by itself: once,
 * where ranks are a power of two. */
#include "train/train.h"

/* A node of the tree that one rank has. */
typedef struct {
    saf__node node;
    int rank, slot; /* whose, and where it keeps it */
    int64_t place;  /* of what this rank is sent of it: the how manieth, -1 where it is its own */
} source;

struct saf__reduction {
    saf_comm *comm;
    int rank, ranks, levels;
    int64_t n_chunks;
    saf_span *chunks; /* [n_chunks] */
    int n_sources, n_own, n_foreign;
    source *sources;      /* [n_sources] ascending */
    int64_t *received_at; /* [n_chunks] where its messages begin in `received` */
    float *received;
    saf_tensor *tensors;      /* [n_chunks, n_foreign] */
    saf_comm_request **recvs; /* [n_chunks, n_foreign] */
    saf_comm_request **sends; /* [n_chunks, n_own, ranks] */
    saf_tensor *parts;        /* [ranks] for a gather */
    int64_t *block0;          /* [n_chunks] number of its first block */
    int64_t n_blocks;
    double *squares; /* [n_blocks] */
};

static int64_t length(saf_span s) {
    return s.end - s.begin;
}

int64_t saf__reduction_chunks(const saf__reduction *x) {
    return x->n_chunks;
}

static saf_span part_of(saf_span chunk, int ranks, int rank) {
    int64_t blocks = saf_ceil_div(length(chunk), SAF_TRAIN_BLOCK);
    saf_span share = saf__rank_share(blocks, ranks, rank);
    return (saf_span){saf_i64_min(chunk.end, chunk.begin + share.begin * SAF_TRAIN_BLOCK),
                      saf_i64_min(chunk.end, chunk.begin + share.end * SAF_TRAIN_BLOCK)};
}

saf_span saf__reduction_part(const saf__reduction *x, int64_t chunk, int rank) {
    return rank < 0 ? x->chunks[chunk] : part_of(x->chunks[chunk], x->ranks, rank);
}

/* ---- who has what ---------------------------------------------------------------------------- */

static saf_span chunk_of(const saf__dims *d, int64_t chunk) {
    if (chunk == 0) return (saf_span){d->out_norm, d->layer0};
    if (chunk > d->layers) return (saf_span){0, d->out_norm};
    int64_t begin = d->layer0 + (d->layers - chunk) * d->layer_values;
    return (saf_span){begin, begin + d->layer_values};
}

static int64_t foreign_nodes(int64_t micro_batches, int ranks, int rank) {
    int64_t n = 0;
    saf__node nodes[SAF__NODES];
    int most;
    for (int r = 0; r < ranks; r++)
        if (r != rank) n += saf__nodes_of(saf__rank_share(micro_batches, ranks, r), nodes, &most);
    return n;
}

int64_t saf__reduction_own(const saf__dims *d, int ranks, int rank) {
    int64_t own = 0;
    for (int64_t c = 0; c < d->layers + 2; c++) own += length(part_of(chunk_of(d, c), ranks, rank));
    return own;
}

int64_t saf__reduction_values(const saf__dims *d, int64_t micro_batches, int ranks, int rank) {
    int64_t values, own = saf__reduction_own(d, ranks, rank);
    return saf_i64_mul(own, foreign_nodes(micro_batches, ranks, rank), &values) ? values : -1;
}

static saf_status list_sources(saf__reduction *x, int64_t micro_batches) {
    saf_status st = SAF_OK;
    saf__node nodes[SAF__NODES];
    int most;
    x->n_foreign = (int)foreign_nodes(micro_batches, x->ranks, x->rank);
    x->n_own = saf__nodes_of(saf__rank_share(micro_batches, x->ranks, x->rank), nodes, &most);
    SAF_TRY(saf_alloc((size_t)(x->n_foreign + x->n_own), sizeof *x->sources, &x->sources));
    int64_t place = 0;
    for (int r = 0; r < x->ranks; r++) {
        int n = saf__nodes_of(saf__rank_share(micro_batches, x->ranks, r), nodes, &most);
        for (int i = 0; i < n; i++)
            x->sources[x->n_sources++] = (source){nodes[i], r, i, r == x->rank ? -1 : place++};
    }
    for (; (int64_t)1 << x->levels < micro_batches; x->levels++) continue;
out:
    return st;
}

static saf_status make_room(saf__reduction *x) {
    saf_status st = SAF_OK;
    size_t chunks = (size_t)x->n_chunks, messages = chunks * (size_t)x->n_foreign;
    int64_t values = 0;
    SAF_TRY(saf_alloc(chunks, sizeof *x->received_at, &x->received_at));
    for (int64_t c = 0; c < x->n_chunks; c++) {
        x->received_at[c] = values;
        values += length(saf__reduction_part(x, c, x->rank)) * x->n_foreign;
    }
    SAF_TRY(saf_alloc_large((size_t)values, sizeof(float), &x->received));
    SAF_TRY(saf_alloc(messages, sizeof *x->tensors, &x->tensors));
    SAF_TRY(saf_alloc(messages, sizeof *x->recvs, &x->recvs));
    SAF_TRY(saf_alloc(chunks * (size_t)x->n_own * (size_t)x->ranks, sizeof *x->sends, &x->sends));
    SAF_TRY(saf_alloc((size_t)x->ranks, sizeof *x->parts, &x->parts));
    SAF_TRY(saf_alloc((size_t)x->n_blocks, sizeof *x->squares, &x->squares));
out:
    return st;
}

/* Blocks are numbered as the parameters lie: embedding, head, layers. */
static saf_status cut(saf__reduction *x, const saf__dims *d) {
    saf_status st = SAF_OK;
    x->n_chunks = d->layers + 2;
    SAF_TRY(saf_alloc((size_t)x->n_chunks, sizeof *x->chunks, &x->chunks));
    SAF_TRY(saf_alloc((size_t)x->n_chunks, sizeof *x->block0, &x->block0));
    for (int64_t c = 0; c < x->n_chunks; c++) x->chunks[c] = chunk_of(d, c);
    for (int64_t i = 0; i < x->n_chunks; i++) {
        int64_t c = i < 2 ? (x->n_chunks - 1) * (1 - i) : x->n_chunks - i;
        x->block0[c] = x->n_blocks;
        x->n_blocks += saf_ceil_div(length(x->chunks[c]), SAF_TRAIN_BLOCK);
    }
out:
    return st;
}

saf_status saf__reduction_new(saf_comm *comm, const saf__dims *d, int64_t micro_batches,
                              saf__reduction **out) {
    saf_status st = SAF_OK;
    saf__reduction *x = NULL;
    SAF_TRY(saf_alloc(1, sizeof *x, &x));
    x->comm = comm;
    x->rank = saf_comm_rank(comm);
    x->ranks = saf_comm_size(comm);
    SAF_TRY(cut(x, d));
    SAF_TRY(list_sources(x, micro_batches));
    SAF_TRY(make_room(x));
    *out = x;
    x = NULL;
out:
    saf__reduction_free(&x);
    return st;
}

void saf__reduction_free(saf__reduction **reduction) {
    saf__reduction *x = *reduction;
    if (x) {
        /* Only after a failure is anything under way. */
        for (int64_t i = 0; x->recvs && i < x->n_chunks * x->n_foreign; i++)
            saf_comm_cancel(&x->recvs[i]);
        for (int64_t i = 0; x->sends && i < x->n_chunks * x->n_own * x->ranks; i++)
            saf_comm_cancel(&x->sends[i]);
        saf_free(&x->chunks);
        saf_free(&x->sources);
        saf_free(&x->received_at);
        saf_free(&x->received);
        saf_free(&x->tensors);
        saf_free(&x->recvs);
        saf_free(&x->sends);
        saf_free(&x->parts);
        saf_free(&x->block0);
        saf_free(&x->squares);
    }
    saf_free(reduction);
}

/* ---- messages -------------------------------------------------------------------------------- */

static float *received(const saf__reduction *x, int64_t chunk, int64_t place) {
    return x->received + x->received_at[chunk] +
           place * length(saf__reduction_part(x, chunk, x->rank));
}

saf_status saf__reduction_send(saf__reduction *x, int64_t chunk, float *const *slots) {
    saf_status st = SAF_OK;
    int64_t mine = length(saf__reduction_part(x, chunk, x->rank));
    for (int i = 0; i < x->n_sources; i++) {
        const source *s = &x->sources[i];
        int64_t at = chunk * x->n_foreign + s->place;
        if (s->rank == x->rank || mine == 0) continue;
        x->tensors[at] = saf_tensor_1d(SAF_DTYPE_F32, received(x, chunk, s->place), mine);
        SAF_TRY(saf_comm_irecv(x->comm, s->rank, SAF_TAG_GRADIENT, (size_t)mine * sizeof(float),
                               &x->tensors[at], &x->recvs[at]));
    }
    for (int i = 1; i < x->ranks; i++) { /* not everybody to the same rank at a time */
        int to = (x->rank + i) % x->ranks;
        saf_span part = saf__reduction_part(x, chunk, to);
        for (int s = 0; s < x->n_own && length(part) > 0; s++) {
            saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, slots[s] + part.begin, length(part));
            SAF_TRY(saf_comm_isend(x->comm, to, SAF_TAG_GRADIENT, &t,
                                   &x->sends[(chunk * x->n_own + s) * x->ranks + to]));
        }
    }
out:
    return st;
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* This rank's part of a node's sum, made in the place of the first of its sources. */
static float *sum_node(const saf__reduction *x, const saf__team *team, int64_t chunk,
                       float *const *slots, saf__node node) {
    saf_span part = saf__reduction_part(x, chunk, x->rank);
    for (int i = 0; i < x->n_sources; i++) {
        const source *s = &x->sources[i];
        if (s->node.level == node.level && s->node.index == node.index)
            return s->place < 0 ? slots[s->slot] + part.begin : received(x, chunk, s->place);
    }
    saf__node left = {node.level - 1, node.index * 2}, right = {left.level, left.index + 1};
    float *sum = sum_node(x, team, chunk, slots, left);
    saf__add(team, sum_node(x, team, chunk, slots, right), length(part), sum);
    return sum;
}

saf_status saf__reduction_finish(saf__reduction *x, const saf__team *team, float *const *slots) {
    saf_status st = SAF_OK;
    for (int64_t c = 0; c < x->n_chunks; c++) {
        saf_span part = saf__reduction_part(x, c, x->rank);
        for (int i = 0; i < x->n_foreign; i++)
            SAF_TRY(saf_comm_wait(&x->recvs[c * x->n_foreign + i]));
        if (length(part) == 0) continue;
        const float *sum = sum_node(x, team, c, slots, (saf__node){x->levels, 0});
        if (sum != slots[0] + part.begin)
            memcpy(slots[0] + part.begin, sum, (size_t)length(part) * sizeof *sum);
    }
    for (int64_t i = 0; i < x->n_chunks * x->n_own * x->ranks; i++)
        SAF_TRY(saf_comm_wait(&x->sends[i]));
out:
    return st;
}

saf_status saf__reduction_gather(saf__reduction *x, float *values) {
    saf_status st = SAF_OK;
    for (int64_t c = 0; c < x->n_chunks && x->ranks > 1; c++) {
        for (int r = 0; r < x->ranks; r++) {
            saf_span part = saf__reduction_part(x, c, r);
            x->parts[r] = saf_tensor_1d(SAF_DTYPE_F32, values + part.begin, length(part));
        }
        SAF_TRY(saf_comm_allgather(x->comm, &x->parts[x->rank], x->parts));
    }
out:
    return st;
}

/* Lane j of 8 adds the squares of x[j], x[j + 8], ... in f64, then the lanes in order. */
static double block_squares(const float *x, int64_t n) {
    enum { LANES = 8 };
    double lanes[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] = __builtin_fma((double)x[i + j], (double)x[i + j], lanes[j]);
    for (int j = 0; i + j < n; j++)
        lanes[j] = __builtin_fma((double)x[i + j], (double)x[i + j], lanes[j]);
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

saf_status saf__reduction_squares(saf__reduction *x, const saf__team *team, const float *values,
                                  double *out) {
    memset(x->squares, 0, (size_t)x->n_blocks * sizeof *x->squares);
    for (int64_t c = 0; c < x->n_chunks; c++) {
        saf_span part = saf__reduction_part(x, c, x->rank);
        int64_t first = x->block0[c] + (part.begin - x->chunks[c].begin) / SAF_TRAIN_BLOCK;
        int64_t blocks = saf_ceil_div(length(part), SAF_TRAIN_BLOCK);
#pragma omp parallel for schedule(static) num_threads(team->threads)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t at = part.begin + b * SAF_TRAIN_BLOCK;
            x->squares[first + b] =
                block_squares(values + at, saf_i64_min(SAF_TRAIN_BLOCK, part.end - at));
        }
    }
    /* Every block is one rank's, and 0 elsewhere: no order of additions changes a bit. */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, x->squares, x->n_blocks);
    saf_status st = saf_comm_allreduce(x->comm, SAF_OP_SUM, &t);
    *out = 0;
    for (int64_t b = 0; b < x->n_blocks; b++) *out += x->squares[b];
    return st;
}
