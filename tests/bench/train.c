/* Training by the ranks of one host, a thread each, by turns: one rank alone; every rank by itself,
 * as processes that share nothing; all ranks together on the same batch.
 *   mpirun -np P bench-train L:D:H:HKV:C:F VOCAB CONTEXT BATCH MICRO_BATCHES [REPEATS]
 * Prints medians over the repeats, by the clock and by the ranks' own processor time, which counts
 * what they do when others use the machine as well: tokens a second of each; what the ranks
 * together reach of what they reach by themselves; and the rate of products in all of a step's time
 * as a part of that of sgemm (n = 1024, one thread, by as many ranks at a time, the best of three
 * calls), measured before and after each turn. SHARD in the environment: with shards. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "saf/hw.h"
#include "saf/train.h"

enum { REPEATS_MOST = 101, SGEMM = 1024 };

enum { CLOCK, PROCESSOR, TIMES };
typedef struct {            /* by each of the two times */
    double tokens_s[TIMES]; /* of all ranks that took part */
    double products[TIMES]; /* share of sgemm's rate */
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

static double time_now(int which) {
    struct timespec t;
    if (which == CLOCK) return saf_clock_s();
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0
               ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec
               : 0;
}

/* A step of `train`, by the ranks that take part; of each by itself, or of all together. */
static turn take_turn(saf_comm *world, saf_train *train, saf_train_shape *shape, bool takes_part,
                      bool together) {
    saf_train_report r = {0};
    saf_train_counters before = {0}, after = {0};
    turn t = {.tokens_s = {0}};
    double start[TIMES], yard = sgemm_rate(world, takes_part);
    must(world, saf_comm_barrier(world));
    if (takes_part) {
        saf_train_count(train, &before);
        for (int w = 0; w < TIMES; w++) start[w] = time_now(w);
        must(world, saf_train_step(train, read_tokens, shape, &r));
        saf_train_count(train, &after);
        for (int w = 0; w < TIMES; w++) {
            double seconds = time_now(w) - start[w];
            t.tokens_s[w] = (double)r.tokens / seconds;
            t.products[w] = (after.operations - before.operations) / seconds;
        }
    }
    must(world, saf_comm_barrier(world));
    yard = (yard + sgemm_rate(world, takes_part)) / 2;
    for (int w = 0; w < TIMES; w++) {
        t.tokens_s[w] = sum_of(world, t.tokens_s[w]);
        if (together) t.tokens_s[w] /= saf_comm_size(world); /* each counts the tokens of all */
        t.products[w] = sum_of(world, t.products[w]) / yard;
    }
    return t;
}

enum { ONE, EACH, TOGETHER, WAYS };

/* Medians over the repeats: of a way, or of the ratio of two. */
static double median_of(turn (*turns)[WAYS], int n, int way, int against, int time, bool products) {
    double values[REPEATS_MOST];
    for (int i = 0; i < n; i++) {
        const turn *t = turns[i];
        values[i] = products ? t[way].products[time] : t[way].tokens_s[time];
        if (against != way) values[i] /= t[against].tokens_s[time];
    }
    return saf_median(values, n);
}

static void print_time(turn (*turns)[WAYS], int n, int time) {
    static const char *const names[] = {"one rank", "each by itself", "together"};
    printf("%-24s tokens/s   products of sgemm's rate\n",
           time == CLOCK ? "by the clock" : "by processor time");
    for (int way = 0; way < WAYS; way++)
        printf("  %-20s %10.0f   %.2f\n", names[way], median_of(turns, n, way, way, time, false),
               median_of(turns, n, way, way, time, true));
    printf("  together against each by itself %.3f (%.2f times one against %.2f)\n",
           median_of(turns, n, TOGETHER, EACH, time, false),
           median_of(turns, n, TOGETHER, ONE, time, false),
           median_of(turns, n, EACH, ONE, time, false));
}

static void bench(saf_comm *world, saf_train_shape *shape, const saf_train_settings *s,
                  int repeats) {
    static turn turns[REPEATS_MOST][WAYS];
    saf_comm *own = NULL;
    saf_train *alone = NULL, *all = NULL;
    int rank = saf_comm_rank(world);
    must(world, saf_comm_split(world, rank, 0, &own));
    must(world, saf_train_new(own, shape, s, &alone));
    must(world, saf_train_new(world, shape, s, &all));
    for (int i = -1; i < repeats; i++) { /* the first one touches the memory */
        turn *t = turns[i < 0 ? 0 : i];
        t[ONE] = take_turn(world, alone, shape, rank == 0, false);
        t[EACH] = take_turn(world, alone, shape, true, false);
        t[TOGETHER] = take_turn(world, all, shape, true, true);
    }
    if (rank == 0) {
        printf("%lld parameters, %d ranks (%s)%s, medians of %d\n",
               (long long)saf_train_parameters(shape), saf_comm_size(world), saf_train_core(),
               s->shard ? ", shards" : "", repeats);
        for (int time = 0; time < TIMES; time++) print_time(turns, repeats, time);
    }
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
