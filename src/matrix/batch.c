/* Batches of panels: what is read, sent and received for each, and when it is there. */
#include "matrix/pool.h"

static int64_t lines_of(saf_span s) {
    return s.end - s.begin;
}

/* Tiles of a batch of another group of this host that take slots of the buffer. */
static int64_t count_buffered(const saf__pool *pool, int f, int32_t group, saf_span lines,
                              const int64_t *panels, int64_t n) {
    int64_t count = 0;
    for (int64_t x = 0; x < n; x++)
        for (int64_t line = lines.begin; line < lines.end; line++)
            count += !pool->plan->resident ||
                     !saf__pool_is_here(pool, saf__pool_owner_of(pool, f, group, line, panels[x]));
    return count;
}

static int64_t in_batch(const saf__pool *pool, const saf__panel_lists *lists, int32_t c,
                        int64_t index, const int64_t **panels) {
    int64_t begin = lists->begin[c] + index * pool->plan->batch;
    *panels = lists->panels + saf_i64_min(begin, lists->begin[c + 1]);
    return saf_i64_max(0, saf_i64_min(pool->plan->batch, lists->begin[c + 1] - begin));
}

/* Where this rank finds the tiles of factor f. */
static saf_status place_tiles(saf__pool *pool, int64_t number, int f, const saf__panel_lists *lists,
                              int64_t round, int64_t index) {
    saf_status st = SAF_OK;
    const saf_product_plan *p = pool->plan;
    saf__batch *b = &pool->batch[number % 2];
    int64_t slot = 0;
    int64_t room = lines_of(b->lines[f]) * b->n;
    if (room > b->room[f]) {
        b->room[f] = 0;
        saf_free(&b->at[f]);
        SAF_TRY(saf_alloc((size_t)room, sizeof *b->at[f], &b->at[f]));
        b->room[f] = room;
    }
    for (int32_t g = 0; g < saf__groups(p, f); g++) {
        if (!saf__pool_group_is_here(pool, f, g)) continue;
        saf__share s = saf__share_of(p, saf__member_place(p, f, g, 0));
        saf_span lines = saf__round_lines(p, f, s.line[f], round);
        const int64_t *panels;
        int64_t n = in_batch(pool, lists, g % p->grid_k, index, &panels);
        if (g != pool->mine[f].group) {
            slot += count_buffered(pool, f, g, lines, panels, n);
            continue;
        }
        for (int64_t x = 0; x < n; x++)
            for (int64_t line = lines.begin; line < lines.end; line++) {
                int64_t stays = saf__pool_resident_slot(pool, f, line, panels[x]);
                b->at[f][(line - lines.begin) * n + x] =
                    stays >= 0 ? saf__pool_slot_at(pool, f, stays)
                               : saf__pool_buffer_at(pool, f, number, slot++);
            }
    }
    if (slot > pool->room.buffers[f])
        st = saf_fail(SAF_DEFECT, "a batch of %lld tiles in buffers for %lld", (long long)slot,
                      (long long)pool->room.buffers[f]);
out:
    return st;
}

/* ---- messages ---------------------------------------------------------------------------------*/

/* One tile of this rank's groups that is no rank's of this host, or that this rank owns. */
static saf_status receive(saf__pool *pool, saf__batch *b, int f, int64_t line, int64_t x,
                          int32_t owner) {
    int64_t i = b->n_receives, panel = b->panels[x];
    int64_t elements = saf__factor_elements(pool->plan, f, line, panel);
    void *to = b->at[f][(line - b->lines[f].begin) * b->n + x];
    b->tensors[i] = saf_tensor_1d(pool->plan->shape.dtype, to, elements);
    saf_status st = saf_comm_irecv(pool->comm, owner, SAF_TAG_PANEL,
                                   (size_t)elements * saf__element_bytes(pool->plan),
                                   &b->tensors[i], &b->receives[i]);
    if (st != SAF_OK) return st;
    b->n_receives++;
    pool->count->bytes_received += elements * (int64_t)saf__element_bytes(pool->plan);
    return SAF_OK;
}

static saf_status give(saf__pool *pool, saf__batch *b, int f, int64_t line, int64_t x) {
    saf_status st = SAF_OK;
    int64_t panel = b->panels[x], elements = saf__factor_elements(pool->plan, f, line, panel);
    void *from = b->at[f][(line - b->lines[f].begin) * b->n + x];
    if (!pool->plan->resident) SAF_TRY(saf__pool_read_tile(pool, f, line, panel, from));
    saf_tensor t = saf_tensor_1d(pool->plan->shape.dtype, from, elements);
    for (int32_t h = 0; h < pool->mine[f].hosts; h++) {
        const saf__near *near = &pool->mine[f].near[h];
        if (near->host == pool->plan->host[pool->rank]) continue;
        int32_t dest = near->rank[saf__turn(line, panel, near->n)];
        SAF_TRY(saf_comm_isend(pool->comm, dest, SAF_TAG_PANEL, &t, &b->sends[b->n_sends]));
        b->n_sends++;
        pool->count->bytes_sent += elements * (int64_t)saf__element_bytes(pool->plan);
    }
out:
    return st;
}

/* Which rank of this host receives a tile. */
static int32_t receiver(const saf__pool *pool, int f, int64_t line, int64_t panel) {
    for (int32_t h = 0; h < pool->mine[f].hosts; h++) {
        const saf__near *near = &pool->mine[f].near[h];
        if (near->host == pool->plan->host[pool->rank])
            return near->rank[saf__turn(line, panel, near->n)];
    }
    return -1;
}

typedef enum { COUNT, RECEIVE, GIVE } what_to_do;

/* All tiles of this rank's groups, in the one order in which they are sent and received. */
static saf_status pass(saf__pool *pool, saf__batch *b, what_to_do what) {
    saf_status st = SAF_OK;
    for (int f = 0; f < SAF__FACTORS; f++)
        for (int64_t x = 0; x < b->n; x++)
            for (int64_t line = b->lines[f].begin; line < b->lines[f].end; line++) {
                int32_t owner =
                    saf__pool_owner_of(pool, f, pool->mine[f].group, line, b->panels[x]);
                bool mine = owner == pool->rank,
                     comes = !saf__pool_is_here(pool, owner) &&
                             receiver(pool, f, line, b->panels[x]) == pool->rank;
                if (what == COUNT) {
                    b->receives_room += comes;
                    b->sends_room += mine ? pool->mine[f].hosts - 1 : 0;
                }
                if (what == RECEIVE && comes) SAF_TRY(receive(pool, b, f, line, x, owner));
                if (what == GIVE && mine) SAF_TRY(give(pool, b, f, line, x));
            }
out:
    return st;
}

static saf_status make_lists(saf__pool *pool, saf__batch *b) {
    saf_status st = SAF_OK;
    b->n_receives = b->n_sends = b->receives_room = b->sends_room = 0;
    SAF_TRY(pass(pool, b, COUNT));
    saf_free(&b->receives);
    saf_free(&b->sends);
    saf_free(&b->tensors);
    SAF_TRY(saf_alloc((size_t)b->receives_room, sizeof *b->receives, &b->receives));
    SAF_TRY(saf_alloc((size_t)b->receives_room, sizeof *b->tensors, &b->tensors));
    SAF_TRY(saf_alloc((size_t)b->sends_room, sizeof *b->sends, &b->sends));
out:
    return st;
}

static saf_status wait_all(saf__pool *pool, saf_comm_request **requests, int64_t n) {
    saf_status st = SAF_OK;
    double start = saf_clock_s();
    for (int64_t i = 0; i < n; i++) SAF_TRY(saf_comm_wait(&requests[i]));
out:
    pool->count->wait_s += saf_clock_s() - start;
    return st;
}

saf_status saf__pool_begin(saf__pool *pool, int64_t number, const saf__panel_lists *lists,
                           int64_t u, int64_t v, int64_t index) {
    saf_status st = SAF_OK;
    saf__batch *b = &pool->batch[number % 2];
    if (pool->place < 0) return SAF_OK;
    SAF_TRY(wait_all(pool, b->sends, b->n_sends)); /* of two batches before */
    b->n = in_batch(pool, lists, pool->place % pool->plan->grid_k, index, &b->panels);
    for (int f = 0; f < SAF__FACTORS; f++) {
        int64_t round = f == SAF__A ? u : v;
        b->lines[f] = saf__round_lines(pool->plan, f, pool->share.line[f], round);
        SAF_TRY(place_tiles(pool, number, f, lists, round, index));
    }
    SAF_TRY(make_lists(pool, b));
    SAF_TRY(pass(pool, b, RECEIVE));
    SAF_TRY(pass(pool, b, GIVE));
out:
    return st;
}

/* The ranks of a host meet where buffers are used at all: they have then all multiplied the batch
 * before, and what this one brings is in place. The batch before has also been sent by then, so
 * that its half of the buffer is free for the next. */
saf_status saf__pool_wait(saf__pool *pool, int64_t number) {
    saf_status st = SAF_OK;
    saf__batch *b = &pool->batch[number % 2], *before = &pool->batch[(number + 1) % 2];
    if (pool->place < 0) return SAF_OK;
    SAF_TRY(wait_all(pool, b->receives, b->n_receives));
    SAF_TRY(wait_all(pool, before->sends, before->n_sends));
    if (pool->room.buffers[SAF__A] + pool->room.buffers[SAF__B] == 0) goto out;
    double start = saf_clock_s();
    st = saf_shared_meet(pool->shared, NULL, 0);
    pool->count->wait_s += saf_clock_s() - start;
out:
    return st;
}
