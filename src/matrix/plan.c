/* The choice of a grid: all that there could be are weighed by what the slowest rank computes and
 * what the slowest host receives, and the cheapest that keeps the cap is taken. */
#include "matrix/plan.h"

#include <math.h>
#include <stdlib.h>

static const double SPEED = 50e9, LINK_BYTES_S = 125e6, /* where the caller does not say */
    HOST_BYTES_S = 2e9,                                 /* sums that stay on a host */
    READ_BYTES_S = 500e6,                               /* what is read again */
    MEET_S = 50e-6;                                     /* for each rank that takes part */
enum { GRIDS_MOST = 20000 };

typedef struct {
    int32_t m, n, k;
    double seconds;
} candidate;

typedef struct {
    const saf_product_ranks *ranks;
    double link;
    int32_t *order; /* [ranks] fastest first */
    candidate *list;
    int64_t n, room;
} choice;

static double speed_of(const choice *c, int32_t rank) {
    return c->ranks->speed ? c->ranks->speed[rank] : SPEED;
}

/* ---- one grid ---------------------------------------------------------------------------------*/

/* begins[n + 1]: `total` in proportion to what the places of each line of the grid can do. */
static void divide(const choice *c, const saf_product_plan *p, int64_t total, int64_t *begins,
                   int32_t n, int32_t inner, int32_t period) {
    int32_t places = p->grid_m * p->grid_n * p->grid_k;
    double sum = 0, at = 0;
    for (int32_t x = 0; x < places; x++) sum += speed_of(c, p->rank[x]);
    begins[0] = 0;
    for (int32_t line = 0; line < n; line++) {
        for (int32_t x = 0; x < places; x++)
            if (x / inner % period == line) at += speed_of(c, p->rank[x]);
        int64_t end = (int64_t)floor((double)total * at / sum + 0.5);
        begins[line + 1] = saf_i64_min(total, saf_i64_max(begins[line], end));
    }
    begins[n] = total;
}

static int by_host(const void *a, const void *b, void *host) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const int32_t *h = host;
    if (h[x] != h[y]) return h[x] < h[y] ? -1 : 1;
    return (x > y) - (x < y);
}

/* Places go to the fastest ranks, those of a host side by side. */
static void set_grid(const choice *c, const candidate *grid, saf_product_plan *p) {
    int32_t places = grid->m * grid->n * grid->k;
    p->grid_m = grid->m;
    p->grid_n = grid->n;
    p->grid_k = grid->k;
    memcpy(p->rank, c->order, (size_t)places * sizeof *p->rank);
    qsort_r(p->rank, (size_t)places, sizeof *p->rank, by_host, p->host);
    for (int32_t r = 0; r < p->ranks; r++) p->place[r] = -1;
    for (int32_t x = 0; x < places; x++) p->place[p->rank[x]] = x;
    divide(c, p, p->tiles.tiles_m, p->row0, grid->m, grid->n * grid->k, grid->m);
    divide(c, p, p->tiles.tiles_n, p->col0, grid->n, grid->k, grid->n);
    divide(c, p, p->tiles.segments, p->seg0, grid->k, 1, grid->k);
}

static double elements(saf_span s, int64_t tile, int64_t length) {
    return (double)(saf_i64_min(s.end * tile, length) - saf_i64_min(s.begin * tile, length));
}

/* Seconds of one place: what it computes, and its part of what its host receives in panels. */
static void weigh_place(const choice *c, const saf_product_plan *p, int32_t x, double *compute,
                        double *bytes, double *sums) {
    saf__share s = saf__share_of(p, x);
    double es = (double)saf__element_bytes(p);
    double m = elements(s.line[SAF__A], p->tiles.tile_m, p->shape.m),
           n = elements(s.line[SAF__B], p->tiles.tile_n, p->shape.n),
           k = elements(s.panels, p->tiles.tile_k, p->shape.k);
    *compute = 2 * m * n * k / speed_of(c, p->rank[x]);
    *bytes = 0;
    for (int f = 0; f < SAF__FACTORS; f++) {
        int32_t members = saf__members(p, f), near = 0, group = saf__group_of(p, f, x);
        for (int32_t q = 0; q < members; q++)
            near += p->host[p->rank[saf__member_place(p, f, group, q)]] == p->host[p->rank[x]];
        *bytes += (f == SAF__A ? m : n) * k * es * (1.0 / near - 1.0 / members);
    }
    *sums = m * n * es * (p->grid_k - 1) / p->grid_k;
}

static double weigh(const choice *c, const saf_product_plan *p) {
    int32_t places = p->grid_m * p->grid_n * p->grid_k;
    double slowest = 0, most = 0, host_bytes = 0, host_sums = 0, sums_s = 0;
    for (int32_t x = 0; x < places; x++) {
        double compute, bytes, sums;
        bool fresh = x == 0 || p->host[p->rank[x]] != p->host[p->rank[x - 1]];
        weigh_place(c, p, x, &compute, &bytes, &sums);
        host_bytes = (fresh ? 0 : host_bytes) + bytes;
        host_sums = (fresh ? 0 : host_sums) + sums;
        slowest = fmax(slowest, compute);
        most = fmax(most, host_bytes / c->link);
        bool wide = p->host[p->rank[x - x % p->grid_k]] !=
                    p->host[p->rank[x - x % p->grid_k + p->grid_k - 1]];
        sums_s = fmax(sums_s, host_sums / (wide ? c->link : HOST_BYTES_S));
    }
    /* Panels move while others are multiplied, but for the first. */
    return fmax(slowest, most) + most / 8 + sums_s + MEET_S * places;
}

/* ---- all of them ------------------------------------------------------------------------------*/

static saf_status add(choice *c, saf_product_plan *p, int32_t m, int32_t n, int32_t k) {
    saf_status st = SAF_OK;
    if (c->n == c->room) {
        int64_t room = c->room ? 2 * c->room : 64;
        candidate *more = NULL;
        SAF_TRY(saf_alloc((size_t)room, sizeof *more, &more));
        if (c->n > 0) memcpy(more, c->list, (size_t)c->n * sizeof *more);
        saf_free(&c->list);
        c->list = more;
        c->room = room;
    }
    candidate *x = &c->list[c->n++];
    *x = (candidate){.m = m, .n = n, .k = k};
    set_grid(c, x, p);
    x->seconds = weigh(c, p);
out:
    return st;
}

/* Grids of many ranks that leave most of them idle are not worth the time to weigh them. */
static saf_status add_all(choice *c, saf_product_plan *p) {
    saf_status st = SAF_OK;
    int64_t ranks = p->ranks, least = ranks > 32 ? ranks * 3 / 4 : 1;
    int64_t m_most = saf_i64_max(1, saf_i64_min(ranks, p->tiles.tiles_m));
    for (int64_t m = 1; m <= m_most; m++) {
        int64_t n_most = saf_i64_max(1, saf_i64_min(ranks / m, p->tiles.tiles_n));
        for (int64_t n = 1; n <= n_most; n++) {
            int64_t k_most = saf_i64_max(1, saf_i64_min(ranks / (m * n), p->tiles.segments));
            for (int64_t k = 1; k <= k_most && c->n < GRIDS_MOST; k++)
                if (m * n * k >= least || (m == m_most && n == n_most && k == k_most))
                    SAF_TRY(add(c, p, (int32_t)m, (int32_t)n, (int32_t)k));
        }
    }
out:
    return st;
}

static int by_seconds(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    int32_t px = x->m * x->n * x->k, py = y->m * y->n * y->k;
    if (x->seconds != y->seconds) return x->seconds < y->seconds ? -1 : 1;
    if (px != py) return px < py ? -1 : 1;
    return x->m != y->m ? (x->m < y->m ? -1 : 1) : (x->n > y->n) - (x->n < y->n);
}

/* What rounds and reading again add to a grid's seconds. */
static double again_s(const choice *c, const saf_product_plan *p) {
    double received = 0, read = 0;
    for (int32_t r = 0; r < p->ranks; r++) {
        received = fmax(received, (double)p->bytes_received[r]);
        read = fmax(read, (double)p->bytes_read[r]);
    }
    return (p->rounds > 1 ? received / c->link : 0) + (p->resident ? 0 : read / READ_BYTES_S);
}

/* One grid with the factors in memory or read again; remembered if it is the cheapest so far. */
typedef struct {
    int64_t index;
    bool resident;
    double seconds;
    int64_t least; /* bytes that the smallest needs */
} cheapest;

static saf_status try_grid(const choice *c, saf_product_plan *p, int64_t index, bool resident,
                           saf__host_room *room, cheapest *best) {
    saf_status st = SAF_OK;
    bool fits = false;
    int64_t most = 0;
    set_grid(c, &c->list[index], p);
    SAF_TRY(saf__plan_fit(p, c->ranks->memory_bytes, resident, room, &fits));
    for (int32_t r = 0; r < p->ranks; r++) most = saf_i64_max(most, p->memory_bytes[r]);
    best->least = saf_i64_min(best->least, most);
    double s = c->list[index].seconds + again_s(c, p);
    if (!fits || s >= best->seconds) goto out;
    best->index = index;
    best->resident = resident;
    best->seconds = s;
out:
    return st;
}

/* Later grids of the list cost more even where they keep the cap at once. */
static saf_status take_cheapest(choice *c, saf_product_plan *p) {
    saf_status st = SAF_OK;
    saf__host_room *room = NULL;
    cheapest best = {.index = -1, .seconds = INFINITY, .least = INT64_MAX};
    bool fits = false;
    int64_t cap = c->ranks->memory_bytes;
    SAF_TRY(saf_alloc((size_t)saf__hosts(p), sizeof *room, &room));
    qsort(c->list, (size_t)c->n, sizeof *c->list, by_seconds);
    for (int64_t i = 0; i < c->n && c->list[i].seconds < best.seconds; i++) {
        SAF_TRY(try_grid(c, p, i, true, room, &best));
        if (cap > 0) SAF_TRY(try_grid(c, p, i, false, room, &best));
    }
    if (best.index < 0) {
        st = saf_fail(SAF_USAGE,
                      "a product of %lld x %lld by %lld x %lld takes %.1f MiB a rank at least, and "
                      "%.1f MiB is all it may take",
                      (long long)p->shape.m, (long long)p->shape.k, (long long)p->shape.k,
                      (long long)p->shape.n, (double)best.least / 1048576, (double)cap / 1048576);
        goto out;
    }
    set_grid(c, &c->list[best.index], p);
    SAF_TRY(saf__plan_fit(p, cap, best.resident, room, &fits));
    p->seconds = best.seconds;
out:
    saf_free(&room);
    return st;
}

/* ---- plans ------------------------------------------------------------------------------------*/

static int by_speed(const void *a, const void *b, void *speed) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const double *s = speed;
    if (s && s[x] != s[y]) return s[x] > s[y] ? -1 : 1;
    return (x > y) - (x < y);
}

static saf_status check_ranks(const saf_product_ranks *r) {
    if (r->ranks < 1) return saf_fail(SAF_USAGE, "a product for %d ranks", (int)r->ranks);
    if (r->memory_bytes < 0 || !(r->link_bytes_s >= 0) || !isfinite(r->link_bytes_s))
        return saf_fail(SAF_USAGE, "a cap of %lld bytes and a link of %g bytes a second",
                        (long long)r->memory_bytes, r->link_bytes_s);
    for (int32_t i = 0; i < r->ranks; i++) {
        if (r->speed && !(r->speed[i] > 0 && isfinite(r->speed[i])))
            return saf_fail(SAF_USAGE, "rank %d has a speed of %g", (int)i, r->speed[i]);
        if (r->host && (r->host[i] < 0 || r->host[i] >= r->ranks))
            return saf_fail(SAF_USAGE, "rank %d is on host %d", (int)i, (int)r->host[i]);
        if (r->other_bytes && r->other_bytes[i] < 0)
            return saf_fail(SAF_USAGE, "rank %d takes %lld bytes", (int)i,
                            (long long)r->other_bytes[i]);
    }
    return SAF_OK;
}

static saf_status allocate(const saf_product_ranks *r, saf_product_plan *p) {
    saf_status st = SAF_OK;
    size_t n = (size_t)r->ranks;
    p->ranks = r->ranks;
    SAF_TRY(saf_alloc(n, sizeof *p->place, &p->place));
    SAF_TRY(saf_alloc(n, sizeof *p->rank, &p->rank));
    SAF_TRY(saf_alloc(n, sizeof *p->host, &p->host));
    SAF_TRY(saf_alloc(n + 1, sizeof *p->row0, &p->row0));
    SAF_TRY(saf_alloc(n + 1, sizeof *p->col0, &p->col0));
    SAF_TRY(saf_alloc(n + 1, sizeof *p->seg0, &p->seg0));
    SAF_TRY(saf_alloc(n, sizeof *p->bytes_received, &p->bytes_received));
    SAF_TRY(saf_alloc(n, sizeof *p->bytes_read, &p->bytes_read));
    SAF_TRY(saf_alloc(n, sizeof *p->memory_bytes, &p->memory_bytes));
    SAF_TRY(saf_alloc(n, sizeof *p->other_bytes, &p->other_bytes));
    for (int32_t i = 0; i < r->ranks; i++) {
        p->host[i] = r->host ? r->host[i] : i;
        p->other_bytes[i] = r->other_bytes ? r->other_bytes[i] : 0;
    }
out:
    return st;
}

/* With this grid alone, where one is given. */
static saf_status make(const saf_product_shape *shape, const saf_product_ranks *ranks,
                       const candidate *grid, saf_product_plan **out) {
    saf_status st = SAF_OK;
    saf_product_plan *p = NULL;
    choice c = {.ranks = ranks,
                .link = ranks->link_bytes_s > 0 ? ranks->link_bytes_s : LINK_BYTES_S};
    SAF_TRY(check_ranks(ranks));
    SAF_TRY(saf_alloc(1, sizeof *p, &p));
    p->shape = *shape;
    SAF_TRY(saf_product_tiles_of(shape, &p->tiles));
    SAF_TRY(allocate(ranks, p));
    SAF_TRY(saf_alloc((size_t)ranks->ranks, sizeof *c.order, &c.order));
    for (int32_t i = 0; i < ranks->ranks; i++) c.order[i] = i;
    qsort_r(c.order, (size_t)ranks->ranks, sizeof *c.order, by_speed, (void *)ranks->speed);
    SAF_TRY(grid ? add(&c, p, grid->m, grid->n, grid->k) : add_all(&c, p));
    SAF_TRY(take_cheapest(&c, p));
    *out = p;
    p = NULL;
out:
    saf_product_plan_free(&p);
    saf_free(&c.order);
    saf_free(&c.list);
    return st;
}

saf_status saf_product_plan_new(const saf_product_shape *shape, const saf_product_ranks *ranks,
                                saf_product_plan **out) {
    return make(shape, ranks, NULL, out);
}

saf_status saf__plan_grid(const saf_product_shape *shape, const saf_product_ranks *ranks, int32_t m,
                          int32_t n, int32_t k, saf_product_plan **out) {
    candidate grid = {.m = m, .n = n, .k = k};
    return make(shape, ranks, &grid, out);
}

void saf_product_plan_free(saf_product_plan **plan) {
    saf_product_plan *p = *plan;
    if (p) {
        saf_free(&p->place);
        saf_free(&p->rank);
        saf_free(&p->host);
        saf_free(&p->row0);
        saf_free(&p->col0);
        saf_free(&p->seg0);
        saf_free(&p->bytes_received);
        saf_free(&p->bytes_read);
        saf_free(&p->memory_bytes);
        saf_free(&p->other_bytes);
    }
    saf_free(plan);
}
