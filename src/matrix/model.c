/* What a plan moves and keeps, counted tile by tile. Source of the model: SUMMA (van de Geijn and
 * Watts, 1997) for the panels, COSMA (arXiv 1908.09606) for weighing grids under a cap of memory.
 */
#include "matrix/plan.h"
#include "matrix/sums.h"

/* Panels under way in buffers, both halves, of all hosts' ranks together: no more than this each.
 */
static const int64_t BUFFER_BYTES = (int64_t)128 << 20;
enum { BATCHES_WANTED = 8 };

typedef struct {
    saf_product_plan *p;
    saf__host_room *room;
    int32_t *near; /* [ranks] members of a group that are on one host */
} model;

/* Members on the host of the first of them that has not been seen; 0: no more. */
static int32_t next_host(const model *m, int f, int32_t group, int32_t *host) {
    const saf_product_plan *p = m->p;
    int32_t n = saf__members(p, f), count = 0, next = INT32_MAX;
    for (int32_t q = 0; q < n; q++) {
        int32_t h = p->host[p->rank[saf__member_place(p, f, group, q)]];
        if (h > *host && h < next) next = h;
    }
    for (int32_t q = 0; next < INT32_MAX && q < n; q++) {
        int32_t r = p->rank[saf__member_place(p, f, group, q)];
        if (p->host[r] == next) m->near[count++] = r;
    }
    *host = next;
    return count;
}

/* One panel of one group on one host, in rounds that go over these lines `times` times each. */
static int64_t count_panel(model *m, int f, int32_t group, int32_t near, saf_span lines,
                           int64_t panel, int64_t times) {
    saf_product_plan *p = m->p;
    int32_t host = p->host[m->near[0]];
    int64_t buffers = 0;
    for (int64_t line = lines.begin; line < lines.end; line++) {
        int32_t owner = p->rank[saf__member_place(p, f, group, saf__owner(p, f, line, panel))];
        int64_t bytes = saf__factor_elements(p, f, line, panel) * (int64_t)saf__element_bytes(p);
        bool here = p->host[owner] == host;
        if (here) p->bytes_read[owner] += p->resident ? bytes : bytes * times;
        if (here && p->resident)
            m->room[host].resident[f] += !saf__is_own(p, f);
        else
            buffers++;
        if (!here) p->bytes_received[m->near[saf__turn(line, panel, near)]] += bytes * times;
    }
    return buffers;
}

/* Lines of a round come one after another, and the buffers are for the largest of them: that a
 * round has fewer is left out where there is only one. */
static void count_group(model *m, int f, int32_t group) {
    saf_product_plan *p = m->p;
    int32_t host = -1, near;
    saf__share s = saf__share_of(p, saf__member_place(p, f, group, 0));
    int64_t times = saf__rounds_of(p, f == SAF__A ? SAF__B : SAF__A), each = saf__rounds_of(p, f);
    while ((near = next_host(m, f, group, &host)) > 0) {
        int64_t most = 0;
        for (int64_t u = 0; u < each; u++) {
            int64_t batch = 0;
            saf_span lines = saf__round_lines(p, f, s.line[f], u);
            for (int64_t panel = s.panels.begin; panel < s.panels.end; panel++) {
                if ((panel - s.panels.begin) % p->batch == 0) batch = 0;
                batch += count_panel(m, f, group, near, lines, panel, times);
                most = saf_i64_max(most, batch);
            }
        }
        m->room[host].buffers[f] += most;
    }
}

/* Segments of a tile of C meet at its home. */
static void count_sums(saf_product_plan *p) {
    if (p->grid_k == 1 || p->tiles.segments == 0) return;
    for (int32_t place = 0; place < p->grid_m * p->grid_n * p->grid_k; place++) {
        saf__share s = saf__share_of(p, place);
        int32_t first = place - place % p->grid_k;
        int64_t sums = saf__subtrees(s.segments);
        for (int64_t i = s.line[SAF__A].begin; i < s.line[SAF__A].end; i++)
            for (int64_t j = s.line[SAF__B].begin; j < s.line[SAF__B].end; j++) {
                int32_t home = p->rank[first + saf__turn(i, j, p->grid_k)];
                int64_t bytes =
                    saf__tile_rows(p, i) * saf__tile_cols(p, j) * (int64_t)saf__element_bytes(p);
                if (home != p->rank[place])
                    p->bytes_received[home] += sums * bytes + SAF__SUM_BYTES;
            }
    }
}

size_t saf__room_bytes(const saf_product_plan *p, const saf__host_room *room) {
    size_t bytes = 0;
    for (int f = 0; f < SAF__FACTORS; f++)
        bytes += (size_t)(room->resident[f] + 2 * room->buffers[f]) * saf__slot_bytes(p, f);
    return bytes;
}

/* The lists of what is where, of a rank that holds so many tiles of C at a time. */
static int64_t list_bytes(const saf_product_plan *p, const saf__share *s, int64_t tiles) {
    int64_t panels = s->panels.end - s->panels.begin, bytes = 2 * 8 * p->tiles.panels;
    int64_t sums = saf_i64_max(1, p->tiles.segments) * (int64_t)sizeof(saf__sum);
    for (int f = 0; f < SAF__FACTORS; f++) {
        int64_t lines = s->line[f].end - s->line[f].begin,
                round = saf_i64_min(lines, f == SAF__A ? p->round_m : p->round_n);
        bytes += 8 * lines * panels; /* slots; in batches a place and a request of each tile */
        bytes += 2 * round * p->batch * (int64_t)(sizeof(saf_tensor) + 3 * sizeof(void *));
    }
    return bytes + tiles * ((int64_t)sizeof(saf__ctile) + sums);
}

bool saf__is_own(const saf_product_plan *p, int factor) {
    return p->resident && saf__members(p, factor) == 1;
}

int64_t saf__own_tiles(const saf_product_plan *p, int factor, int32_t place) {
    saf__share s = saf__share_of(p, place);
    if (!saf__is_own(p, factor)) return 0;
    return (s.line[factor].end - s.line[factor].begin) * (s.panels.end - s.panels.begin);
}

/* Tiles of factors that are its own, and those of C that a rank holds at a time: of each so many
 * sums as there may be at once, what one is written from, and of a tile's sums those that come to
 * its home. */
static int64_t private_bytes(const saf_product_plan *p, int32_t place) {
    saf__share s = saf__share_of(p, place);
    int64_t rows = saf_i64_min(p->round_m, s.line[SAF__A].end - s.line[SAF__A].begin),
            cols = saf_i64_min(p->round_n, s.line[SAF__B].end - s.line[SAF__B].begin);
    int64_t tile = p->tiles.tile_m * p->tiles.tile_n * (int64_t)saf__element_bytes(p);
    int64_t sums = rows * cols * saf__sums_at_once(s.segments) + 1;
    if (p->grid_k > 1) sums += saf__sums_at_once((saf_span){0, p->tiles.segments});
    int64_t bytes = sums * ((tile + 63) / 64 * 64) + list_bytes(p, &s, rows * cols);
    for (int f = 0; f < SAF__FACTORS; f++)
        bytes += saf_round_up(saf__own_tiles(p, f, place) * (int64_t)saf__slot_bytes(p, f),
                              SAF_HUGE_PAGE);
    return bytes;
}

saf_status saf__plan_model(saf_product_plan *p, saf__host_room *room) {
    saf_status st = SAF_OK;
    model m = {.p = p, .room = room};
    int32_t *busy = NULL;
    SAF_TRY(saf_alloc((size_t)p->ranks, sizeof *m.near, &m.near));
    SAF_TRY(saf_alloc((size_t)p->ranks, sizeof *busy, &busy));
    memset(room, 0, (size_t)saf__hosts(p) * sizeof *room);
    memset(p->bytes_read, 0, (size_t)p->ranks * sizeof *p->bytes_read);
    memset(p->bytes_received, 0, (size_t)p->ranks * sizeof *p->bytes_received);
    for (int f = 0; f < SAF__FACTORS; f++)
        for (int32_t g = 0; g < saf__groups(p, f); g++) count_group(&m, f, g);
    count_sums(p);
    for (int32_t r = 0; r < p->ranks; r++) busy[p->host[r]] += p->place[r] >= 0;
    for (int32_t r = 0; r < p->ranks; r++) {
        p->memory_bytes[r] = p->other_bytes[r];
        if (p->place[r] < 0) continue;
        p->memory_bytes[r] += private_bytes(p, p->place[r]) +
                              (int64_t)saf__room_bytes(p, &room[p->host[r]]) / busy[p->host[r]];
    }
out:
    saf_free(&m.near);
    saf_free(&busy);
    return st;
}

/* ---- under a cap ------------------------------------------------------------------------------*/

static int64_t most_panels(const saf_product_plan *p) {
    int64_t most = 1;
    for (int32_t c = 0; c < p->grid_k; c++) {
        saf__share s = saf__share_of(p, c);
        most = saf_i64_max(most, s.panels.end - s.panels.begin);
    }
    return most;
}

static bool keeps(const saf_product_plan *p, int64_t cap) {
    for (int32_t r = 0; cap > 0 && r < p->ranks; r++)
        if (p->memory_bytes[r] > cap) return false;
    return true;
}

static bool has_buffers(const saf_product_plan *p, const saf__host_room *room) {
    for (int32_t h = 0; h < saf__hosts(p); h++)
        if (room[h].buffers[SAF__A] + room[h].buffers[SAF__B] > 0) return true;
    return false;
}

/* Several panels at a time keep more links busy, as each has another owner. */
static saf_status choose_batch(saf_product_plan *p, int64_t cap, saf__host_room *room) {
    saf_status st = SAF_OK;
    int64_t panels = most_panels(p);
    if (!has_buffers(p, room)) {
        p->batch = panels;
        return saf__plan_model(p, room);
    }
    for (p->batch = saf_i64_max(1, panels / BATCHES_WANTED);; p->batch /= 2) {
        int64_t bytes = 0;
        SAF_TRY(saf__plan_model(p, room));
        for (int32_t h = 0; h < saf__hosts(p); h++)
            for (int f = 0; f < SAF__FACTORS; f++)
                bytes = saf_i64_max(bytes, 2 * room[h].buffers[f] * (int64_t)saf__slot_bytes(p, f));
        if (p->batch == 1 || (keeps(p, cap) && bytes <= BUFFER_BYTES)) break;
    }
out:
    return st;
}

saf_status saf__plan_fit(saf_product_plan *p, int64_t cap, bool resident, saf__host_room *room,
                         bool *fits) {
    saf_status st = SAF_OK;
    p->resident = resident;
    p->batch = 1;
    p->round_m = saf_i64_max(1, saf__longest_share(p, SAF__A));
    p->round_n = saf_i64_max(1, saf__longest_share(p, SAF__B));
    for (;;) {
        SAF_TRY(saf__plan_model(p, room));
        *fits = keeps(p, cap);
        if (*fits || (p->round_m == 1 && p->round_n == 1)) break;
        bool taller = p->round_m * p->tiles.tile_m >= p->round_n * p->tiles.tile_n;
        if (p->round_n == 1 || (p->round_m > 1 && taller))
            p->round_m = saf_ceil_div(p->round_m, 2);
        else
            p->round_n = saf_ceil_div(p->round_n, 2);
    }
    p->rounds = saf__rounds_of(p, SAF__A) * saf__rounds_of(p, SAF__B);
    if (*fits) SAF_TRY(choose_batch(p, cap, room));
out:
    return st;
}
