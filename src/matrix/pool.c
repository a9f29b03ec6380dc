/* Slots of the tiles of A and B in the memory of a host; what a rank reads stays there. */
#include "matrix/pool.h"

static int64_t lines_of(saf_span s) {
    return s.end - s.begin;
}

/* ---- groups -----------------------------------------------------------------------------------*/

static saf_status find_near(saf__pool *pool, int f) {
    saf_status st = SAF_OK;
    const saf_product_plan *p = pool->plan;
    saf__my_group *g = &pool->mine[f];
    int32_t members = saf__members(p, f), host = -1, filled = 0;
    g->group = saf__group_of(p, f, pool->place);
    SAF_TRY(saf_alloc((size_t)members, sizeof *g->near, &g->near));
    SAF_TRY(saf_alloc((size_t)members, sizeof *g->ranks, &g->ranks));
    while (filled < members) {
        int32_t next = INT32_MAX;
        saf__near *near = &g->near[g->hosts++];
        for (int32_t q = 0; q < members; q++) {
            int32_t h = p->host[p->rank[saf__member_place(p, f, g->group, q)]];
            if (h > host && h < next) next = h;
        }
        *near = (saf__near){.host = next, .rank = g->ranks + filled};
        for (int32_t q = 0; q < members; q++) {
            int32_t r = p->rank[saf__member_place(p, f, g->group, q)];
            if (p->host[r] != next) continue;
            g->ranks[filled++] = r;
            near->n++;
        }
        host = next;
    }
out:
    return st;
}

int32_t saf__pool_owner_of(const saf__pool *pool, int f, int32_t group, int64_t line,
                           int64_t panel) {
    const saf_product_plan *p = pool->plan;
    int32_t member = saf__owner(p, f, line, panel);
    return p->rank[saf__member_place(p, f, group, member)];
}

bool saf__pool_is_here(const saf__pool *pool, int32_t rank) {
    return pool->plan->host[rank] == pool->plan->host[pool->rank];
}

bool saf__pool_group_is_here(const saf__pool *pool, int f, int32_t group) {
    const saf_product_plan *p = pool->plan;
    for (int32_t q = 0; q < saf__members(p, f); q++)
        if (saf__pool_is_here(pool, p->rank[saf__member_place(p, f, group, q)])) return true;
    return false;
}

/* ---- slots that stay --------------------------------------------------------------------------*/

static saf_status number_resident(saf__pool *pool, int f) {
    saf_status st = SAF_OK;
    const saf_product_plan *p = pool->plan;
    saf__my_group *mine = &pool->mine[f];
    int64_t panels = pool->share.panels.end - pool->share.panels.begin, slot = 0, at = 0;
    bool own = saf__is_own(p, f);
    int64_t planned = own ? saf__own_tiles(p, f, pool->place) : pool->room.resident[f];
    SAF_TRY(saf_alloc((size_t)(lines_of(pool->share.line[f]) * panels), sizeof *mine->resident,
                      &mine->resident));
    for (int32_t g = 0; g < saf__groups(p, f); g++) {
        if (own ? g != mine->group : !saf__pool_group_is_here(pool, f, g)) continue;
        saf__share s = saf__share_of(p, saf__member_place(p, f, g, 0));
        for (int64_t line = s.line[f].begin; line < s.line[f].end; line++)
            for (int64_t panel = s.panels.begin; panel < s.panels.end; panel++) {
                bool stays = p->resident &&
                             saf__pool_is_here(pool, saf__pool_owner_of(pool, f, g, line, panel));
                if (g == mine->group) mine->resident[at++] = stays ? slot : -1;
                slot += stays;
            }
    }
    if (slot != planned)
        st = saf_fail(SAF_DEFECT, "%lld tiles stay in memory where the plan has %lld",
                      (long long)slot, (long long)planned);
out:
    return st;
}

int64_t saf__pool_resident_slot(const saf__pool *pool, int f, int64_t line, int64_t panel) {
    int64_t panels = pool->share.panels.end - pool->share.panels.begin;
    return pool->mine[f]
        .resident[(line - pool->share.line[f].begin) * panels + panel - pool->share.panels.begin];
}

/* In the shared memory. */
static char *shared_slot(const saf__pool *pool, int f, int64_t slot) {
    char *base = saf_shared_data(pool->shared);
    size_t a = saf__slot_bytes(pool->plan, SAF__A);
    return f == SAF__A ? base + (size_t)slot * a
                       : base + (size_t)pool->room.resident[SAF__A] * a +
                             (size_t)slot * saf__slot_bytes(pool->plan, SAF__B);
}

char *saf__pool_slot_at(const saf__pool *pool, int f, int64_t slot) {
    return pool->own[f] ? pool->own[f] + (size_t)slot * saf__slot_bytes(pool->plan, f)
                        : shared_slot(pool, f, slot);
}

char *saf__pool_buffer_at(const saf__pool *pool, int f, int64_t number, int64_t slot) {
    size_t bytes = saf__slot_bytes(pool->plan, f);
    char *base = shared_slot(pool, SAF__B, pool->room.resident[SAF__B]);
    if (f == SAF__B)
        base += (size_t)(2 * pool->room.buffers[SAF__A]) * saf__slot_bytes(pool->plan, SAF__A);
    return base + (size_t)(number % 2 * pool->room.buffers[f] + slot) * bytes;
}

saf_status saf__pool_read_tile(saf__pool *pool, int f, int64_t line, int64_t panel, void *to) {
    const saf_product_plan *p = pool->plan;
    int64_t row0 = f == SAF__A ? line * p->tiles.tile_m : panel * p->tiles.tile_k;
    int64_t col0 = f == SAF__A ? panel * p->tiles.tile_k : line * p->tiles.tile_n;
    int64_t depth = saf__tile_depth(p, panel);
    int64_t rows = f == SAF__A ? saf__tile_rows(p, line) : depth;
    int64_t cols = f == SAF__A ? depth : saf__tile_cols(p, line);
    double start = saf_clock_s();
    saf_status st = (f == SAF__A ? pool->io->read_a : pool->io->read_b)(pool->io->ctx, row0, rows,
                                                                        col0, cols, to, cols);
    pool->count->io_s += saf_clock_s() - start;
    pool->count->bytes_read += rows * cols * (int64_t)saf__element_bytes(p);
    return st;
}

/* Tiles of a line that a member owns: their panels are as many members apart as there are. */
static int64_t owned_of_line(const saf_product_plan *p, int f, int64_t line, saf_span panels,
                             int32_t member) {
    int32_t n = saf__members(p, f), first = saf__owner(p, f, line, panels.begin);
    int64_t before = (member - first + n) % n, count = lines_of(panels);
    return count > before ? (count - before - 1) / n + 1 : 0;
}

int64_t saf__pool_owned(const saf__pool *pool) {
    const saf_product_plan *p = pool->plan;
    int64_t owned = 0;
    for (int f = 0; f < SAF__FACTORS && pool->place >= 0; f++) {
        int32_t group = saf__group_of(p, f, pool->place), member = 0;
        while (saf__member_place(p, f, group, member) != pool->place) member++;
        saf_span lines = pool->share.line[f];
        for (int64_t line = lines.begin; line < lines.end; line++)
            owned += owned_of_line(p, f, line, pool->share.panels, member);
    }
    return owned;
}

saf_status saf__pool_load(saf__pool *pool, int64_t most, bool *done) {
    saf_status st = SAF_OK;
    int64_t seen = 0, end = pool->loaded + most;
    *done = true;
    if (pool->place < 0 || !pool->plan->resident) return SAF_OK;
    for (int f = 0; f < SAF__FACTORS; f++) {
        saf_span lines = pool->share.line[f], panels = pool->share.panels;
        for (int64_t line = lines.begin; line < lines.end; line++)
            for (int64_t panel = panels.begin; panel < panels.end; panel++) {
                if (saf__pool_owner_of(pool, f, pool->mine[f].group, line, panel) != pool->rank)
                    continue;
                if (seen++ < pool->loaded) continue;
                if (pool->loaded == end) {
                    *done = false;
                    return SAF_OK;
                }
                SAF_TRY(saf__pool_read_tile(
                    pool, f, line, panel,
                    saf__pool_slot_at(pool, f, saf__pool_resident_slot(pool, f, line, panel))));
                pool->loaded++;
            }
    }
out:
    return st;
}

saf_status saf__pool_loaded(saf__pool *pool) {
    return pool->place < 0 ? SAF_OK : saf_shared_meet(pool->shared, NULL, 0);
}

/* ---- making -----------------------------------------------------------------------------------*/

static saf_status fill_room(saf__pool *pool) {
    saf_status st = SAF_OK;
    saf__host_room *rooms = NULL;
    int32_t hosts = saf__hosts(pool->plan);
    saf_product_plan copy = *pool->plan; /* whose figures are counted anew */
    copy.bytes_read = copy.bytes_received = copy.memory_bytes = NULL;
    SAF_TRY(saf_alloc((size_t)hosts, sizeof *rooms, &rooms));
    SAF_TRY(saf_alloc((size_t)copy.ranks, sizeof *copy.bytes_read, &copy.bytes_read));
    SAF_TRY(saf_alloc((size_t)copy.ranks, sizeof *copy.bytes_read, &copy.bytes_received));
    SAF_TRY(saf_alloc((size_t)copy.ranks, sizeof *copy.bytes_read, &copy.memory_bytes));
    SAF_TRY(saf__plan_model(&copy, rooms));
    pool->room = rooms[pool->plan->host[pool->rank]];
out:
    saf_free(&rooms);
    saf_free(&copy.bytes_read);
    saf_free(&copy.bytes_received);
    saf_free(&copy.memory_bytes);
    return st;
}

static saf_status prepare(saf__pool *pool) {
    saf_status st = SAF_OK;
    if (pool->place < 0) return SAF_OK;
    SAF_TRY(fill_room(pool));
    for (int f = 0; f < SAF__FACTORS; f++) {
        size_t own = (size_t)saf__own_tiles(pool->plan, f, pool->place);
        SAF_TRY(find_near(pool, f));
        SAF_TRY(number_resident(pool, f));
        if (own > 0) SAF_TRY(saf_alloc_huge(own * saf__slot_bytes(pool->plan, f), &pool->own[f]));
    }
out:
    return st;
}

saf_status saf__pool_new(saf__pool *pool) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_comm_agree(pool->comm, prepare(pool)));
    int color = pool->place < 0 ? -1 : pool->plan->host[pool->rank];
    SAF_TRY(saf_comm_agree(pool->comm, saf_comm_split(pool->comm, color, pool->rank, &pool->host)));
    if (pool->host) {
        size_t bytes = saf__room_bytes(pool->plan, &pool->room);
        st = saf_shared_new(pool->host, bytes > 0 ? bytes : 1, &pool->shared);
        if (st == SAF_OK && !saf_shared_one_host(pool->shared))
            st = saf_fail(SAF_DEFECT, "a plan has ranks on one host that are on several");
    }
    st = saf_comm_agree(pool->comm, st);
out:
    return st;
}

void saf__pool_free(saf__pool *pool) {
    for (int parity = 0; parity < 2; parity++) {
        saf__batch *b = &pool->batch[parity];
        for (int64_t i = 0; i < b->n_receives; i++) saf_comm_cancel(&b->receives[i]);
        for (int64_t i = 0; i < b->n_sends; i++) saf_comm_cancel(&b->sends[i]);
        saf_free(&b->receives);
        saf_free(&b->sends);
        saf_free(&b->tensors);
        for (int f = 0; f < SAF__FACTORS; f++) saf_free(&b->at[f]);
    }
    for (int f = 0; f < SAF__FACTORS; f++) {
        saf_free(&pool->mine[f].near);
        saf_free(&pool->mine[f].ranks);
        saf_free(&pool->mine[f].resident);
        saf_free(&pool->own[f]);
    }
    saf_shared_free(&pool->shared);
    saf_comm_free(&pool->host);
}
