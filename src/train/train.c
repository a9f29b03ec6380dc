/* A training: what it takes, made and freed. */
#include "train/train.h"

static const char *core_name = "";

const char *saf_train_core(void) {
    return core_name;
}

/* ---- made and freed -------------------------------------------------------------------------- */

/* How many slots a rank needs: what its micro-batches leave waiting at most. */
static int slots_of(int64_t micro_batches, int ranks, int rank) {
    saf__node nodes[SAF__NODES];
    int most;
    (void)saf__nodes_of(saf__rank_share(micro_batches, ranks, rank), nodes, &most);
    return most;
}

/* How many values m and v have each. */
static int64_t moments_of(const saf__dims *d, const saf_train_settings *settings, int ranks,
                          int rank) {
    return settings->shard ? saf__reduction_own(d, ranks, rank) : d->values;
}

/* Takes `bytes` more, unless there were too many before. */
static void more(size_t *all, int64_t count, size_t bytes) {
    size_t product;
    if (count < 0 || !saf_size_mul((size_t)count, bytes, &product) ||
        !saf_size_add(*all, product, all))
        *all = SIZE_MAX;
}

size_t saf_train_memory_bytes(const saf_train_shape *shape, const saf_train_settings *settings,
                              int ranks, int rank) {
    saf__dims d;
    size_t all = 0;
    int64_t micro_batches = settings->micro_batches;
    saf__dims_set(shape, settings, &d);
    saf_span mine = saf__rank_share(micro_batches, ranks, rank);
    int64_t received = saf__reduction_values(&d, micro_batches, ranks, rank);
    more(&all, d.values, sizeof(float) * (size_t)(1 + slots_of(micro_batches, ranks, rank)));
    more(&all, moments_of(&d, settings, ranks, rank), 2 * sizeof(float));
    more(&all, received, sizeof(float));
    more(&all, saf__pass_values(&d, settings->threads), sizeof(float));
    more(&all, d.tokens, sizeof(double));
    more(&all, (mine.end - mine.begin) * d.sequences, (size_t)(d.context + 1) * sizeof(int32_t));
    return all;
}

static saf_status load_blas(saf_train *t) {
    saf_status st = saf_blas_load(&t->team.blas);
    if (st == SAF_OK) core_name = t->team.blas->core;
    return st;
}

/* Other cores have other last bits. The lowest rank that has another one than rank 0 says so. */
static saf_status check_cores(const saf_train *t) {
    char first[64] = "";
    if (t->rank == 0) strncpy(first, core_name, sizeof first - 1);
    saf_tensor name = saf_tensor_1d(SAF_DTYPE_U8, first, sizeof first);
    saf_status st = saf_comm_bcast(t->comm, 0, &name);
    if (st != SAF_OK) return saf__unagreed(t->comm, st);
    if (strncmp(first, core_name, sizeof first - 1) != 0)
        st = saf_fail(SAF_USAGE,
                      "OpenBLAS runs its kernels for %s here and for %s on rank 0: the same bits "
                      "need the same ones (OPENBLAS_CORETYPE)",
                      core_name, first);
    return saf_comm_agree(t->comm, st);
}

saf_status saf__unagreed(const saf_comm *comm, saf_status st) {
    if (st == SAF_OK || st == SAF_COMM || saf_comm_size(comm) == 1) return st;
    return saf_fail(SAF_COMM, "%s", saf_error_text());
}

static saf_status make(saf_train *t) {
    saf_status st = SAF_OK;
    size_t local;
    int64_t moments;
    SAF_TRY(saf_train_check(&t->shape, &t->settings, t->ranks));
    SAF_TRY(load_blas(t));
    saf__dims_set(&t->shape, &t->settings, &t->d);
    t->mine = saf__rank_share(t->settings.micro_batches, t->ranks, t->rank);
    t->n_slots = slots_of(t->settings.micro_batches, t->ranks, t->rank);
    local = (size_t)(t->mine.end - t->mine.begin) * (size_t)t->d.sequences;
    SAF_TRY(saf_train_tensors(&t->shape, &t->tensors, &t->n_tensors));
    SAF_TRY(saf_alloc_large((size_t)t->d.values, sizeof(float), &t->values));
    moments = moments_of(&t->d, &t->settings, t->ranks, t->rank);
    SAF_TRY(saf_alloc_large((size_t)moments, sizeof(float), &t->m));
    SAF_TRY(saf_alloc_large((size_t)moments, sizeof(float), &t->v));
    for (int i = 0; i < t->n_slots; i++)
        SAF_TRY(saf_alloc_large((size_t)t->d.values, sizeof(float), &t->slots[i]));
    SAF_TRY(saf_alloc(local * (size_t)(t->d.context + 1), sizeof *t->ids, &t->ids));
    SAF_TRY(saf_alloc(local, sizeof *t->counted, &t->counted));
    SAF_TRY(saf_alloc((size_t)t->settings.batch, sizeof *t->losses, &t->losses));
    SAF_TRY(saf__pass_new(&t->d, &t->shape, t->settings.threads, &t->pass));
    SAF_TRY(saf__reduction_new(t->comm, &t->d, t->settings.micro_batches, &t->reduction));
    SAF_TRY(saf_blas_single(t->team.blas, t->settings.threads));
out:
    return st;
}

saf_status saf_train_new(saf_comm *comm, const saf_train_shape *shape,
                         const saf_train_settings *settings, saf_train **out) {
    saf_status st = SAF_OK;
    saf_train *t = NULL;
    st = saf_alloc(1, sizeof *t, &t);
    if (st == SAF_OK) {
        *t = (saf_train){.comm = comm,
                         .shape = *shape,
                         .settings = *settings,
                         .team.threads = settings->threads,
                         .rank = saf_comm_rank(comm),
                         .ranks = saf_comm_size(comm)};
        st = make(t);
    }
    SAF_TRY(saf_comm_agree(comm, st));
    SAF_TRY(check_cores(t));
    saf__draw(t->tensors, t->n_tensors, t->d.layers, t->settings.seed, t->settings.threads,
              t->values);
    *out = t;
    t = NULL;
out:
    saf_train_free(&t);
    return st;
}

void saf_train_free(saf_train **train) {
    saf_train *t = *train;
    if (t) {
        saf__reduction_free(&t->reduction); /* first: its messages are of the slots */
        saf__pass_free(&t->pass);
        saf_free(&t->tensors);
        saf_free(&t->values);
        saf_free(&t->m);
        saf_free(&t->v);
        for (int i = 0; i < SAF__NODES; i++) saf_free(&t->slots[i]);
        saf_free(&t->ids);
        saf_free(&t->counted);
        saf_free(&t->losses);
    }
    saf_free(train);
}

void saf_train_count(const saf_train *train, saf_train_counters *out) {
    *out = train->counters;
}

const float *saf_train_values(const saf_train *train) {
    return train->values;
}

const float *saf_train_gradient(const saf_train *train) {
    return train->slots[0];
}
