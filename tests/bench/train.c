/* Training by the ranks of one host, a thread each, by turns: one rank alone; every rank by itself,
 * as processes that share nothing; all ranks together on the same batch.
 *   mpirun -np P bench-train L:D:H:HKV:C:F VOCAB CONTEXT BATCH MICRO_BATCHES [REPEATS]
 * Prints medians over the repeats: tokens a second of each; what the ranks together reach of what
 * they reach by themselves; and the rate of products in all of a step's time as a part of that of
 * sgemm (n = 1024, one thread, by as many ranks at a time), measured before and after each turn. */
#include <stdio.h>
#include <stdlib.h>

#include "saf/hw.h"
#include "saf/train.h"

enum { REPEATS_MOST = 101, SGEMM = 1024 };

typedef struct {
    double tokens_s, products; /* of all ranks that took part; share of sgemm's rate */
} turn;

static void must(saf_comm *world, saf_status st) {
    if (st == SAF_OK) return;
    fprintf(stderr, "bench-train: %s\n", saf_error_text());
    saf_comm_abort(world, 1);
}

static saf_status read_tokens(void *ctx, int64_t step, int64_t sequence, int32_t *ids,
                              int64_t *counted) {
    const saf_train_shape *s = ctx;
    uint32_t r[4];
    (void)counted;
    for (int64_t i = 0; i <= s->context; i++) {
        saf_philox(1, (uint64_t)(step * 4096 + sequence), (uint64_t)i, r);
        ids[i] = (int32_t)(r[0] % (uint64_t)s->vocab);
    }
    return SAF_OK;
}

/* The sum over ranks that take part; others give 0. */
static double sum_of(saf_comm *world, double v) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, &v, 1);
    must(world, saf_comm_allreduce(world, SAF_OP_SUM, &t));
    return v;
}

static double sgemm_rate(saf_comm *world, bool takes_part) {
    double rate = 0;
    must(world, saf_comm_barrier(world));
    if (takes_part) must(world, saf_hw_sgemm_sample(1, SGEMM, SGEMM, SGEMM, &rate));
    return sum_of(world, rate);
}

/* A step of `train`, by the ranks that take part; of each by itself, or of all together. */
static turn take_turn(saf_comm *world, saf_train *train, saf_train_shape *shape, bool takes_part,
                      bool together) {
    saf_train_report r = {0};
    saf_train_counters before = {0}, after = {0};
    double seconds = 0, rate = 0, operations = 0, yard = sgemm_rate(world, takes_part);
    must(world, saf_comm_barrier(world));
    if (takes_part) {
        saf_train_count(train, &before);
        double start = saf_clock_s();
        must(world, saf_train_step(train, read_tokens, shape, &r));
        seconds = saf_clock_s() - start;
        saf_train_count(train, &after);
        operations = (after.operations - before.operations) / seconds;
        rate = (double)r.tokens / seconds;
    }
    must(world, saf_comm_barrier(world));
    yard = (yard + sgemm_rate(world, takes_part)) / 2;
    rate = sum_of(world, rate);
    if (together) rate /= saf_comm_size(world); /* each counts the tokens of all */
    return (turn){rate, sum_of(world, operations) / yard};
}

static double column(turn *turns, int n, bool products) {
    double values[REPEATS_MOST];
    for (int i = 0; i < n; i++) values[i] = products ? turns[i].products : turns[i].tokens_s;
    return saf_median(values, n);
}

static void bench(saf_comm *world, saf_train_shape *shape, const saf_train_settings *s,
                  int repeats) {
    saf_comm *own = NULL;
    saf_train *alone = NULL, *all = NULL;
    turn one[REPEATS_MOST], each[REPEATS_MOST], together[REPEATS_MOST];
    double parts[REPEATS_MOST], up[REPEATS_MOST], apart[REPEATS_MOST];
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    must(world, saf_comm_split(world, rank, 0, &own));
    must(world, saf_train_new(own, shape, s, &alone));
    must(world, saf_train_new(world, shape, s, &all));
    for (int i = -1; i < repeats; i++) { /* the first one touches the memory */
        int at = i < 0 ? 0 : i;
        one[at] = take_turn(world, alone, shape, rank == 0, false);
        each[at] = take_turn(world, alone, shape, true, false);
        together[at] = take_turn(world, all, shape, true, true);
        parts[at] = together[at].tokens_s / each[at].tokens_s;
        up[at] = together[at].tokens_s / one[at].tokens_s;
        apart[at] = each[at].tokens_s / one[at].tokens_s;
    }
    if (rank == 0)
        printf(
            "%lld parameters, %d ranks (%s), medians of %d\n"
            "                     tokens/s   products of sgemm's rate\n"
            "one rank           %10.0f   %.2f\n"
            "each by itself     %10.0f   %.2f\n"
            "together           %10.0f   %.2f\n"
            "together against each by itself %.3f (%.2f times one against %.2f)\n",
            (long long)saf_train_parameters(shape), ranks, saf_train_core(), repeats,
            column(one, repeats, false), column(one, repeats, true), column(each, repeats, false),
            column(each, repeats, true), column(together, repeats, false),
            column(together, repeats, true), saf_median(parts, repeats), saf_median(up, repeats),
            saf_median(apart, repeats));
    saf_train_free(&alone);
    saf_train_free(&all);
    saf_comm_free(&own);
}

int main(int argc, char **argv) {
    saf_comm *world = NULL;
    saf_model_make_options o = {.arch = "llama"};
    saf_train_settings s = saf_train_defaults();
    if (saf_comm_start(&argc, &argv, &world) != SAF_OK) return 1;
    int repeats = argc > 6 ? atoi(argv[6]) : 9;
    if (argc < 6 || !saf_model_shape_read(argv[1], &o) || repeats < 1 || repeats > REPEATS_MOST) {
        fprintf(stderr, "bench-train L:D:H:HKV:C:F VOCAB CONTEXT BATCH MICRO_BATCHES [REPEATS]\n");
        saf_comm_abort(world, 2);
    }
    saf_train_shape shape = {.arch = SAF_ARCH_LLAMA,
                             .layers = o.layers,
                             .width = o.width,
                             .heads = o.heads,
                             .kv_heads = o.kv_heads,
                             .head_width = o.head_width,
                             .ff_width = o.ff_width,
                             .vocab = strtoll(argv[2], NULL, 10),
                             .context = strtoll(argv[3], NULL, 10),
                             .rope_base = 10000,
                             .norm_eps = 1e-5};
    s.batch = strtoll(argv[4], NULL, 10);
    s.micro_batches = strtoll(argv[5], NULL, 10);
    s.steps = 10 * REPEATS_MOST;
    s.shard = getenv("SHARD") != NULL;
    must(world, saf_kernels_init(NULL));
    must(world, saf_train_shape_check(&shape));
    bench(world, &shape, &s, repeats);
    saf_comm_stop(&world);
    return 0;
}
