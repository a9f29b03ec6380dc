/* Training on several ranks against training on one: the same bits, whatever the ranks, threads and
 * shards, and after a stop. */
#include "train_fixture.h"

#include <math.h>

#include "mpi_test.h"
#include "train/train.h"

enum { STEPS = 50, HALF = 25, SEQUENCES = 21 };

typedef struct {
    saf_train_shape shape;
    int64_t n;
    float *values, *m, *v; /* at the end, as rank 0 gets them */
    double losses[STEPS], norms[STEPS], nats, each[SEQUENCES];
    int64_t tokens;
} trained;

static void trained_new(trained *t, saf_arch arch, bool tied) {
    *t = (trained){.shape = train_fixture_shape(arch, tied, 11)};
    t->n = saf_train_parameters(&t->shape);
    CHECK_OK(saf_alloc((size_t)t->n, sizeof(float), &t->values));
    CHECK_OK(saf_alloc((size_t)t->n, sizeof(float), &t->m));
    CHECK_OK(saf_alloc((size_t)t->n, sizeof(float), &t->v));
}

static void trained_free(trained *t) {
    saf_free(&t->values);
    saf_free(&t->m);
    saf_free(&t->v);
}

/* The state in two pieces, as a checkpoint would move it. */
static void move_state(saf_train *train, trained *t, bool get) {
    const saf_span pieces[] = {{0, t->n / 3}, {t->n / 3, t->n}};
    float *const state[] = {t->values, t->m, t->v};
    for (int w = 0; w < 3; w++)
        for (int i = 0; i < 2; i++) {
            float *at = state[w] + pieces[i].begin;
            if (get)
                CHECK_OK(saf_train_state_get(train, (saf_train_state)w, pieces[i], at));
            else
                CHECK_OK(saf_train_state_put(train, (saf_train_state)w, pieces[i], at));
        }
}

/* Steps [begin, end) of STEPS; from `t`'s state unless begin is 0. */
static void train(saf_comm *comm, int threads, bool shard, int begin, int end, trained *t) {
    saf_train *train = NULL;
    saf_train_settings s = train_fixture_settings(STEPS);
    saf_train_report r = {0};
    saf_train_loss loss = {0};
    s.threads = threads;
    s.shard = shard;
    if (!CHECK_OK(saf_train_new(comm, &t->shape, &s, &train))) return;
    if (begin > 0) {
        move_state(train, t, false);
        CHECK_OK(saf_train_resume(train, begin));
    }
    for (int i = begin; i < end; i++) {
        CHECK_OK(saf_train_step(train, train_fixture_read, &t->shape, &r));
        CHECK_EQ(r.step, i + 1);
        t->losses[i] = r.loss;
        t->norms[i] = r.gradient_norm;
    }
    CHECK_EQ(saf_train_steps(train), end);
    CHECK_OK(saf_train_evaluate(train, SEQUENCES, train_fixture_read, &t->shape, &loss, t->each));
    t->nats = loss.nats;
    t->tokens = loss.tokens;
    move_state(train, t, true);
    memcpy(t->values, saf_train_values(train), (size_t)t->n * sizeof(float));
    saf_train_free(&train);
}

static void compare(const trained *got, const trained *expected, bool moments) {
    size_t bytes = (size_t)got->n * sizeof(float);
    CHECK(memcmp(got->values, expected->values, bytes) == 0);
    CHECK(!moments || memcmp(got->m, expected->m, bytes) == 0);
    CHECK(!moments || memcmp(got->v, expected->v, bytes) == 0);
    CHECK(memcmp(got->losses, expected->losses, sizeof got->losses) == 0);
    CHECK(memcmp(got->norms, expected->norms, sizeof got->norms) == 0);
    CHECK(memcmp(got->each, expected->each, sizeof got->each) == 0);
    CHECK(got->nats == expected->nats);
    CHECK_EQ(got->tokens, expected->tokens);
}

/* Each rank by itself. */
static saf_comm *alone(saf_comm *world) {
    saf_comm *own = NULL;
    CHECK_OK(saf_comm_split(world, saf_comm_rank(world), 0, &own));
    return own;
}

static void same_on_ranks(saf_comm *world, saf_arch arch, bool tied) {
    bool first = saf_comm_rank(world) == 0;
    saf_comm *own = alone(world);
    trained one, all;
    trained_new(&one, arch, tied);
    trained_new(&all, arch, tied);
    train(own, 1, false, 0, STEPS, &one);
    for (int way = 0; way < 4; way++) {
        train(world, 1 + way % 2, way / 2, 0, STEPS, &all);
        compare(&all, &one, first);
    }
    CHECK(one.losses[STEPS - 1] < 0.7 * one.losses[0]); /* it learns, so every step counts */
    trained_free(&one);
    trained_free(&all);
    saf_comm_free(&own);
}

static void test_train_same_bits_llama(saf_comm *world) {
    same_on_ranks(world, SAF_ARCH_LLAMA, false);
}

static void test_train_same_bits_qwen3_tied(saf_comm *world) {
    same_on_ranks(world, SAF_ARCH_QWEN3, true);
}

/* A model whose products are of several tiles, some of which are ragged. */
static void train_wide(saf_comm *comm, int threads, saf_train_shape *shape, float *values) {
    enum { WIDE_STEPS = 3 };
    saf_train *train = NULL;
    saf_train_settings s = train_fixture_settings(WIDE_STEPS);
    saf_train_report r;
    s.threads = threads;
    s.batch = 8;
    s.micro_batches = 4;
    if (!CHECK_OK(saf_train_new(comm, shape, &s, &train))) return;
    for (int i = 0; i < WIDE_STEPS; i++)
        CHECK_OK(saf_train_step(train, train_fixture_read, shape, &r));
    memcpy(values, saf_train_values(train), (size_t)saf_train_parameters(shape) * sizeof *values);
    saf_train_free(&train);
}

static void test_train_same_bits_of_many_tiles(saf_comm *world) {
    saf_comm *own = alone(world);
    saf_train_shape shape = train_fixture_shape(SAF_ARCH_QWEN3, false, 140);
    float *one = NULL, *all = NULL;
    shape.layers = 1;
    shape.width = 300;
    shape.head_width = 68;
    shape.ff_width = 610;
    shape.vocab = 1100;
    size_t n = (size_t)saf_train_parameters(&shape);
    CHECK_OK(saf_alloc(n, sizeof *one, &one));
    CHECK_OK(saf_alloc(n, sizeof *all, &all));
    train_wide(own, 1, &shape, one);
    for (int threads = 1; threads <= 3; threads++) {
        train_wide(world, threads, &shape, all);
        CHECK(memcmp(one, all, n * sizeof *one) == 0);
    }
    saf_free(&one);
    saf_free(&all);
    saf_comm_free(&own);
}

/* Half of the steps on each rank alone, the others on all, and the other way round. */
static void test_train_goes_on_with_other_ranks(saf_comm *world) {
    bool first = saf_comm_rank(world) == 0;
    saf_comm *own = alone(world);
    trained one, more;
    trained_new(&one, SAF_ARCH_LLAMA, true);
    trained_new(&more, SAF_ARCH_LLAMA, true);
    train(own, 1, false, 0, STEPS, &one);
    for (int shard = 0; shard < 2; shard++) {
        train(own, 1, !shard, 0, HALF, &more);
        train(world, 2, shard, HALF, STEPS, &more);
        compare(&more, &one, first);
        train(world, 1, shard, 0, HALF, &more);
        if (first) { /* only here is the whole state */
            saf_comm *none = NULL;
            CHECK_OK(saf_comm_split(own, 0, 0, &none));
            train(none, 2, !shard, HALF, STEPS, &more);
            compare(&more, &one, true);
            saf_comm_free(&none);
        }
    }
    trained_free(&one);
    trained_free(&more);
    saf_comm_free(&own);
}

/* ---- failures are everybody's ---------------------------------------------------------------- */

typedef struct {
    saf_train_shape shape;
    int64_t sequence;
    int32_t id; /* of its first token */
    saf_status st;
} trouble;

static saf_status read_trouble(void *ctx, int64_t step, int64_t sequence, int32_t *ids,
                               int64_t *counted) {
    trouble *t = ctx;
    saf_status st = train_fixture_read(&t->shape, step, sequence, ids, counted);
    if (sequence != t->sequence) return st;
    ids[0] = t->id;
    return t->st == SAF_OK ? st : saf_fail(t->st, "no tokens of %lld", (long long)sequence);
}

static void test_train_failures_are_everybodys(saf_comm *world) {
    saf_train *train = NULL;
    saf_train_settings s = train_fixture_settings(3);
    trouble t = {.shape = train_fixture_shape(SAF_ARCH_LLAMA, false, 5)};
    saf_train_report r = {0};
    saf_train_loss loss;
    int64_t n = saf_train_parameters(&t.shape);
    if (!CHECK_OK(saf_train_new(world, &t.shape, &s, &train))) return;
    float *before = NULL;
    CHECK_OK(saf_alloc((size_t)n, sizeof *before, &before));
    memcpy(before, saf_train_values(train), (size_t)n * sizeof *before);
    t.sequence = s.batch - 1; /* the last rank's */
    t.st = SAF_BAD_INPUT;
    CHECK_STATUS(saf_train_step(train, read_trouble, &t, &r), SAF_BAD_INPUT);
    CHECK_TEXT("no tokens of 15");
    CHECK_STATUS(saf_train_evaluate(train, s.batch, read_trouble, &t, &loss, NULL), SAF_BAD_INPUT);
    t.st = SAF_OK;
    t.id = (int32_t)t.shape.vocab;
    CHECK_STATUS(saf_train_step(train, read_trouble, &t, &r), SAF_DEFECT);
    CHECK_TEXT("sequence 15 has the token 37 at 0");
    t.id = -1;
    CHECK_STATUS(saf_train_step(train, read_trouble, &t, &r), SAF_DEFECT);
    CHECK(memcmp(before, saf_train_values(train), (size_t)n * sizeof *before) == 0);
    CHECK_EQ(saf_train_steps(train), 0);
    t.id = 0;
    for (int i = 0; i < 3; i++) CHECK_OK(saf_train_step(train, read_trouble, &t, &r));
    CHECK_STATUS(saf_train_step(train, read_trouble, &t, &r), SAF_DEFECT);
    saf_free(&before);
    saf_train_free(&train);
}

/* Not a number in one parameter: no rank updates any. */
static void test_train_stops_at_nan(saf_comm *world) {
    saf_train *train = NULL;
    saf_train_settings s = train_fixture_settings(3);
    saf_train_shape shape = train_fixture_shape(SAF_ARCH_QWEN3, false, 5);
    saf_train_report r = {0};
    saf_train_loss loss;
    float nan = NAN, after;
    int64_t n = saf_train_parameters(&shape);
    if (!CHECK_OK(saf_train_new(world, &shape, &s, &train))) return;
    float last = saf_train_values(train)[n - 1];
    CHECK_OK(saf_train_state_put(train, SAF_TRAIN_PARAMETERS, (saf_span){n - 2, n - 1}, &nan));
    CHECK_STATUS(saf_train_step(train, train_fixture_read, &shape, &r), SAF_FAILED);
    CHECK_TEXT("step 1: a loss of");
    CHECK_STATUS(saf_train_evaluate(train, 3, train_fixture_read, &shape, &loss, NULL), SAF_FAILED);
    after = saf_train_values(train)[n - 1];
    CHECK(after == last && saf_train_steps(train) == 0);
    saf_train_free(&train);
}

/* What one rank alone fails with ends all of them: the caller knows it by COMM. */
static void test_train_failure_of_one_rank(saf_comm *world) {
    bool others = saf_comm_size(world) > 1;
    CHECK_STATUS(saf__unagreed(world, SAF_OK), SAF_OK);
    saf_status st = saf_fail(SAF_NO_MEMORY, "no room for %d messages", 3);
    CHECK_STATUS(saf__unagreed(world, st), others ? SAF_COMM : SAF_NO_MEMORY);
    CHECK_TEXT("no room for 3 messages");
    CHECK_STATUS(saf__unagreed(world, saf_fail(SAF_COMM, "lost")), SAF_COMM);
}

static void test_train_too_many_ranks(saf_comm *world) {
    saf_train *train = NULL;
    saf_train_settings s = train_fixture_settings(3);
    saf_train_shape shape = train_fixture_shape(SAF_ARCH_QWEN3, false, 5);
    s.batch = s.micro_batches = 1;
    saf_status expected = saf_comm_size(world) > 1 ? SAF_USAGE : SAF_OK;
    CHECK_STATUS(saf_train_new(world, &shape, &s, &train), expected);
    saf_train_free(&train);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_train_same_bits_llama),         MPI_CASE(test_train_same_bits_qwen3_tied),
        MPI_CASE(test_train_same_bits_of_many_tiles), MPI_CASE(test_train_goes_on_with_other_ranks),
        MPI_CASE(test_train_failures_are_everybodys), MPI_CASE(test_train_stops_at_nan),
        MPI_CASE(test_train_failure_of_one_rank),     MPI_CASE(test_train_too_many_ranks)};
    if (saf_kernels_init(NULL) != SAF_OK) return 1;
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
