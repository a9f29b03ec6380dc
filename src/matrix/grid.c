/* The grid of a plan: who is in which group, and needs what. */
#include "matrix/plan.h"

static saf_span span_of(const int64_t *begins, int32_t x) {
    return (saf_span){begins[x], begins[x + 1]};
}

saf__share saf__share_of(const saf_product_plan *p, int32_t place) {
    saf__share s = {.panels = {0, 0}};
    if (place < 0) return s;
    s.line[SAF__A] = span_of(p->row0, place / p->grid_k / p->grid_n);
    s.line[SAF__B] = span_of(p->col0, place / p->grid_k % p->grid_n);
    s.segments = span_of(p->seg0, place % p->grid_k);
    if (s.segments.begin < s.segments.end)
        s.panels = (saf_span){saf_product_segment(&p->tiles, s.segments.begin).begin,
                              saf_product_segment(&p->tiles, s.segments.end - 1).end};
    return s;
}

int64_t saf__longest_share(const saf_product_plan *p, int factor) {
    const int64_t *begins = factor == SAF__A ? p->row0 : p->col0;
    int32_t n = factor == SAF__A ? p->grid_m : p->grid_n;
    int64_t most = 0;
    for (int32_t x = 0; x < n; x++) most = saf_i64_max(most, begins[x + 1] - begins[x]);
    return most;
}

int64_t saf__rounds_of(const saf_product_plan *p, int factor) {
    int64_t each = factor == SAF__A ? p->round_m : p->round_n;
    return saf_i64_max(1, saf_ceil_div(saf__longest_share(p, factor), each));
}

saf_span saf__round_lines(const saf_product_plan *p, int factor, saf_span lines, int64_t u) {
    int64_t each = factor == SAF__A ? p->round_m : p->round_n;
    saf_span s = {lines.begin + u * each, lines.begin + (u + 1) * each};
    return (saf_span){saf_i64_min(s.begin, lines.end), saf_i64_min(s.end, lines.end)};
}

int32_t saf__groups(const saf_product_plan *p, int factor) {
    return (factor == SAF__A ? p->grid_m : p->grid_n) * p->grid_k;
}

int32_t saf__members(const saf_product_plan *p, int factor) {
    return factor == SAF__A ? p->grid_n : p->grid_m;
}

int32_t saf__group_of(const saf_product_plan *p, int factor, int32_t place) {
    int32_t ab = place / p->grid_k, line = factor == SAF__A ? ab / p->grid_n : ab % p->grid_n;
    return line * p->grid_k + place % p->grid_k;
}

int32_t saf__member_place(const saf_product_plan *p, int factor, int32_t group, int32_t member) {
    int32_t line = group / p->grid_k, c = group % p->grid_k;
    int32_t ab = factor == SAF__A ? line * p->grid_n + member : member * p->grid_n + line;
    return ab * p->grid_k + c;
}

int64_t saf__factor_elements(const saf_product_plan *p, int factor, int64_t line, int64_t panel) {
    int64_t depth = saf__tile_depth(p, panel);
    return depth * (factor == SAF__A ? saf__tile_rows(p, line) : saf__tile_cols(p, line));
}

size_t saf__slot_bytes(const saf_product_plan *p, int factor) {
    int64_t line = factor == SAF__A ? p->tiles.tile_m : p->tiles.tile_n;
    size_t bytes = (size_t)(line * p->tiles.tile_k) * saf__element_bytes(p);
    return (bytes + 63) / 64 * 64;
}

int32_t saf__hosts(const saf_product_plan *p) {
    int32_t hosts = 0;
    for (int32_t r = 0; r < p->ranks; r++)
        if (p->host[r] >= hosts) hosts = p->host[r] + 1;
    return hosts;
}

int64_t saf__sums_at_once(saf_span segments) {
    int64_t most = 1;
    for (int64_t s = segments.begin; s < segments.end; s++)
        most = saf_i64_max(most, saf__subtrees((saf_span){segments.begin, s}) + 1);
    return most;
}

int64_t saf__subtrees(saf_span segments) {
    int64_t n = 0;
    for (int64_t s = segments.begin; s < segments.end; n++) {
        int64_t size = s > 0 ? s & -s : INT64_MAX / 4 + 1; /* the largest that begins here */
        while (s + size > segments.end) size /= 2;
        s += size;
    }
    return n;
}
