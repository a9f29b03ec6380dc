/* A product from its making to its end, step by step. */
#include "matrix/product.h"

#include <math.h>

/* What a step does at most: some tenths of a second of one thread, or of a disk. */
static double step_operations = 8e9;
static int64_t step_bytes = 64000000;

void saf__product_set_steps(double operations, int64_t bytes) {
    step_operations = operations;
    step_bytes = bytes;
}

/* ---- schedule ---------------------------------------------------------------------------------*/

/* The most tiles of C that a rank has in a round. */
static int64_t most_tiles(const saf_product_plan *plan) {
    int64_t most = 1;
    for (int32_t place = 0; place < plan->grid_m * plan->grid_n * plan->grid_k; place++) {
        saf__share s = saf__share_of(plan, place);
        saf_span rows = saf__round_lines(plan, SAF__A, s.line[SAF__A], 0),
                 cols = saf__round_lines(plan, SAF__B, s.line[SAF__B], 0);
        most = saf_i64_max(most, (rows.end - rows.begin) * (cols.end - cols.begin));
    }
    return most;
}

/* Tiles of so many bytes that a step reads or writes. */
static int64_t tiles_of_step(size_t bytes) {
    return saf_i64_max(1, step_bytes / (int64_t)(bytes > 0 ? bytes : 1));
}

/* By the rank with the most threads and tiles, so that all have as many steps. A tile of C goes
 * through as many panels at a time as there are: it stays in the caches, and what its segments are
 * summed in is free for the next tile. */
static void cut_steps(saf_product *p, int64_t threads) {
    const saf_product_tiles *t = &p->plan->tiles;
    int64_t tiles = most_tiles(p->plan), batch = saf_i64_max(1, p->plan->batch);
    double call = 2.0 * (double)t->tile_m * (double)t->tile_n * (double)t->tile_k;
    int64_t calls = step_operations < call ? 1 : (int64_t)(step_operations / call); /* a thread's */
    saf__slices *s = &p->slices;
    s->panels = saf_ceil_div(batch, saf_ceil_div(batch, calls));
    s->tiles = saf_i64_min(tiles, threads * saf_i64_max(1, calls / s->panels));
    s->count = saf_ceil_div(batch, s->panels) * saf_ceil_div(tiles, s->tiles);
    s->write_tiles = tiles_of_step(p->buffers.bytes);
    p->most_tiles = tiles;
}

static int64_t load_tiles(const saf_product *p) {
    size_t bytes = saf__slot_bytes(p->plan, SAF__A), other = saf__slot_bytes(p->plan, SAF__B);
    return tiles_of_step(bytes > other ? bytes : other);
}

/* Of the rank that reads the most. */
static int64_t load_steps(const saf_product *p) {
    int64_t most = 0;
    saf__pool pool = p->pool;
    for (pool.place = 0; pool.place < p->plan->grid_m * p->plan->grid_n * p->plan->grid_k;
         pool.place++) {
        pool.share = saf__share_of(p->plan, pool.place);
        most = saf_i64_max(most, saf__pool_owned(&pool));
    }
    return p->plan->resident && saf__multiplies(p) ? saf_ceil_div(most, load_tiles(p)) : 0;
}

saf_status saf__schedule(saf_product *p) {
    saf_status st = SAF_OK;
    p->listed[0] = p->listed[1] = 0;
    p->loads = load_steps(p);
    p->steps = p->loads;
    for (int64_t round = 0; round < p->plan->rounds; round++) {
        SAF_TRY(saf__round_lists(p, round));
        p->steps += p->batches[round % 2] * p->slices.count;
        if (round < p->plan->rounds - 1)
            p->steps += saf_ceil_div(p->most_tiles, p->slices.write_tiles);
    }
    p->at = (saf__cursor){.phase = SAF__LOAD};
out:
    return st;
}

static const char *core = "";

/* ---- making -----------------------------------------------------------------------------------*/

static saf_status check(const saf_product *p, const saf_product_io *io) {
    if (p->plan->ranks != saf_comm_size(p->comm))
        return saf_fail(SAF_USAGE, "a plan for %d ranks on %d", (int)p->plan->ranks,
                        saf_comm_size(p->comm));
    if (p->threads < 1) return saf_fail(SAF_USAGE, "a product by %d threads", p->threads);
    if (!io->read_a || !io->read_b || !io->write_c || (p->beta != 0 && !io->read_c))
        return saf_fail(SAF_DEFECT, "a product without a function for one of its matrices");
    return SAF_OK;
}

static saf_status take_memory(saf_product *p) {
    saf_status st = SAF_OK;
    const saf_product_tiles *t = &p->plan->tiles;
    saf__share s = p->pool.share;
    int64_t tiles = 0, segments = saf_i64_max(1, t->segments);
    if (p->pool.place >= 0)
        tiles = saf_i64_min(p->plan->round_m, s.line[SAF__A].end - s.line[SAF__A].begin) *
                saf_i64_min(p->plan->round_n, s.line[SAF__B].end - s.line[SAF__B].begin);
    size_t bytes = (size_t)(t->tile_m * t->tile_n) * saf__element_bytes(p->plan);
    int64_t sums = saf__sums_at_once(s.segments);
    SAF_TRY(saf__buffers_new(&p->buffers, bytes, saf__multiplies(p) ? tiles * sums : 0));
    saf__buffers_touch(&p->buffers, tiles + p->threads * (sums - 1), p->threads);
    SAF_TRY(saf_alloc((size_t)tiles, sizeof *p->tiles, &p->tiles));
    SAF_TRY(saf_alloc((size_t)(tiles * segments), sizeof *p->sums, &p->sums));
    SAF_TRY(saf_alloc(p->buffers.bytes, 1, &p->scratch));
out:
    return st;
}

static saf_status prepare(saf_product *p) {
    saf_status st = SAF_OK;
    SAF_TRY(check(p, &p->io));
    p->pool.rank = saf_comm_rank(p->comm);
    p->pool.place = p->plan->place[p->pool.rank];
    p->pool.plan = p->plan;
    p->pool.io = &p->io;
    p->pool.count = &p->count;
    p->pool.comm = p->comm;
    p->pool.share = saf__share_of(p->plan, p->pool.place);
    SAF_TRY(saf_blas_load(&p->blas));
    SAF_TRY(take_memory(p));
    SAF_TRY(saf_blas_single(p->blas, p->threads));
    core = p->blas->core;
out:
    return st;
}

/* As the type has it: what is too small for it is 0. */
static double rounded(saf_dtype dtype, double x) {
    return dtype == SAF_DTYPE_F32 ? (double)(float)x : x;
}

saf_status saf_product_new(saf_comm *comm, const saf_product_plan *plan, double alpha, double beta,
                           int threads, const saf_product_io *io, saf_product **out) {
    saf_status st = SAF_OK;
    saf_product *p = NULL;
    int64_t most = threads;
    SAF_TRY(saf_comm_agree(comm, saf_alloc(1, sizeof *p, &p)));
    p->plan = plan;
    p->alpha = rounded(plan->shape.dtype, alpha);
    p->beta = rounded(plan->shape.dtype, beta);
    p->threads = threads;
    p->held = -1;
    p->io = *io;
    SAF_TRY(saf_comm_agree(comm, saf_comm_dup(comm, &p->comm)));
    SAF_TRY(saf_comm_agree(comm, prepare(p)));
    SAF_TRY(saf__pool_new(&p->pool));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &most, 1);
    SAF_TRY(saf_comm_allreduce(comm, SAF_OP_MAX, &t));
    cut_steps(p, most);
    SAF_TRY(saf_comm_agree(comm, saf__schedule(p)));
    *out = p;
    p = NULL;
out:
    saf_product_free(&p);
    return st;
}

void saf_product_free(saf_product **product) {
    saf_product *p = *product;
    if (p) {
        saf__pool_free(&p->pool);
        saf__buffers_free(&p->buffers);
        saf__past_free(&p->past);
        for (int parity = 0; parity < 2; parity++) {
            saf_free(&p->lists[parity].panels);
            saf_free(&p->lists[parity].begin);
        }
        saf_free(&p->tiles);
        saf_free(&p->sums);
        saf_free(&p->scratch);
        saf_comm_free(&p->comm);
    }
    saf_free(product);
}

/* ---- steps ------------------------------------------------------------------------------------*/

static saf_status begin_batch(saf_product *p, int64_t number, int64_t round, int64_t batch) {
    saf_status st = SAF_OK;
    if (p->begun > number) return SAF_OK;
    SAF_TRY(saf__pool_begin(&p->pool, number, &p->lists[round % 2], saf__round_u(p, round),
                            saf__round_v(p, round), batch));
    p->begun = number + 1;
out:
    return st;
}

/* The batch at hand is there, and the one after it, of the next round perhaps, is under way. */
static saf_status enter_batch(saf_product *p) {
    saf_status st = SAF_OK;
    const saf__cursor *c = &p->at;
    SAF_TRY(begin_batch(p, c->number, c->round, c->batch));
    SAF_TRY(saf__pool_wait(&p->pool, c->number));
    if (c->batch + 1 < p->batches[c->round % 2]) {
        SAF_TRY(begin_batch(p, c->number + 1, c->round, c->batch + 1));
    } else if (c->round + 1 < p->plan->rounds) {
        SAF_TRY(saf__round_lists(p, c->round + 1));
        if (p->batches[(c->round + 1) % 2] > 0)
            SAF_TRY(begin_batch(p, c->number + 1, c->round + 1, 0));
    }
out:
    return st;
}

static saf_status enter_round(saf_product *p, int64_t round) {
    saf_status st = SAF_OK;
    p->at.phase = SAF__MULTIPLY;
    p->at.round = round;
    p->at.batch = p->at.slice = 0;
    SAF_TRY(saf__round_lists(p, round));
    saf__round_begin(p, round);
out:
    return st;
}

/* From what has been done to what is to be done next. */
static saf_status settle(saf_product *p) {
    saf_status st = SAF_OK;
    saf__cursor *c = &p->at;
    for (;;) {
        switch (c->phase) {
            case SAF__LOAD:
                if (c->slice < p->loads) goto out;
                if (p->loads > 0) SAF_TRY(saf__pool_loaded(&p->pool));
                SAF_TRY(enter_round(p, 0));
                break;
            case SAF__MULTIPLY:
                if (c->batch < p->batches[c->round % 2]) goto out;
                c->phase = c->round == p->plan->rounds - 1 ? SAF__END : SAF__WRITE;
                c->slice = 0;
                break;
            case SAF__WRITE:
                if (c->slice * p->slices.write_tiles < p->most_tiles) goto out;
                SAF_TRY(enter_round(p, c->round + 1));
                break;
            case SAF__END:
                goto out;
        }
    }
out:
    return st;
}

static saf_status enter(saf_product *p) {
    if (p->entered) return SAF_OK;
    p->entered = true;
    return settle(p);
}

static saf_status work(saf_product *p) {
    saf_status st = SAF_OK;
    saf__cursor *c = &p->at;
    bool all;
    int64_t tile = c->slice * p->slices.write_tiles;
    switch (c->phase) {
        case SAF__LOAD:
            SAF_TRY(saf__pool_load(&p->pool, load_tiles(p), &all));
            c->slice++;
            break;
        case SAF__MULTIPLY:
            if (c->slice == 0) SAF_TRY(enter_batch(p));
            SAF_TRY(saf__multiply_slice(p, c->slice));
            if (++c->slice < p->slices.count) break;
            c->slice = 0;
            c->batch++;
            c->number++;
            break;
        case SAF__WRITE:
            SAF_TRY(saf__write_tiles(p, tile, tile + p->slices.write_tiles));
            c->slice++;
            break;
        case SAF__END:
            goto out;
    }
    p->done_steps++;
out:
    return st;
}

saf_status saf_product_step(saf_product *p, bool *done) {
    saf_status st = p->failed;
    p->walk = (saf__walk){.index = 0};
    p->held = -1;
    if (st == SAF_OK) st = enter(p);
    if (st == SAF_OK) st = work(p);
    if (st == SAF_OK) st = settle(p);
    *done = p->at.phase == SAF__END;
    saf_comm_progress();
    p->failed = st;
    return st;
}

double saf_product_progress(const saf_product *p) {
    return p->steps > 0 ? (double)p->done_steps / (double)p->steps : p->entered;
}

saf_status saf_product_finish(saf_product *p) {
    saf_status st = p->failed;
    if (st == SAF_OK) st = enter(p);
    if (st == SAF_OK && p->at.phase != SAF__END)
        st = saf_fail(SAF_DEFECT, "a product ends after %lld of %lld steps",
                      (long long)p->done_steps, (long long)p->steps);
    SAF_TRY(saf_comm_agree(p->comm, st));
    SAF_TRY(saf_comm_agree(p->comm, saf__write_tiles(p, 0, p->n_tiles)));
out:
    p->failed = st;
    return st;
}

void saf_product_count(const saf_product *p, saf_product_counters *out) {
    *out = p->count;
}

const char *saf_product_core(void) {
    return core;
}
