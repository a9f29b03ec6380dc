/* matrix/plan.h: what a plan says of a rank, a host and a tile of a factor; used by the choice of a
 * plan, its model and the engine alike, so that they mean the same.
 *
 * The factors are A (0) and B (1). A line of a factor is a row of tiles of A, a column of tiles of
 * B. A group is the ranks that need the same lines and panels: of A those of one row of the grid
 * and one span of segments. Each tile of a factor is read by one rank of its group, its owner. */
#ifndef SAF_MATRIX_PLAN_H
#define SAF_MATRIX_PLAN_H

#include "matrix/tiles.h"

enum { SAF__A, SAF__B, SAF__FACTORS };

/* What a place of the grid computes. */
typedef struct {
    saf_span line[SAF__FACTORS]; /* rows and columns of tiles of C */
    saf_span segments, panels;
} saf__share;

saf__share saf__share_of(const saf_product_plan *p, int32_t place);
/* The part of a span of lines that comes in round u of those of its factor. */
saf_span saf__round_lines(const saf_product_plan *p, int factor, saf_span lines, int64_t u);
/* Lines of the largest share. */
int64_t saf__longest_share(const saf_product_plan *p, int factor);
/* Rounds over the rows (A) or columns (B) of the largest share; rounds = their product, rows first.
 */
int64_t saf__rounds_of(const saf_product_plan *p, int factor);

int32_t saf__groups(const saf_product_plan *p, int factor);
int32_t saf__members(const saf_product_plan *p, int factor);
int32_t saf__group_of(const saf_product_plan *p, int factor, int32_t place);
int32_t saf__member_place(const saf_product_plan *p, int factor, int32_t group, int32_t member);

/* Which of n ranks is the home of tile (i, j) of C, and which of n members of one host receives a
 * tile of a factor there. */
static inline int32_t saf__turn(int64_t line, int64_t panel, int32_t n) {
    return (int32_t)((line + panel) % n);
}
/* Which member of its group owns a tile: neighbouring panels have neighbouring owners, the lines of
 * a round begin as far from each other as can be, and those of the next group one further. So of a
 * batch, which is some panels of all these lines, all ranks own as much, and no link is busy while
 * others are idle. */
static inline int32_t saf__owner(const saf_product_plan *p, int factor, int64_t line,
                                 int64_t panel) {
    int32_t n = saf__members(p, factor);
    int64_t lines = factor == SAF__A ? p->round_m : p->round_n;
    return saf__turn(lines < n ? line % lines * (n / lines) + line / lines : line, panel, n);
}
/* Elements of a tile of a factor, and of its largest one. */
int64_t saf__factor_elements(const saf_product_plan *p, int factor, int64_t line, int64_t panel);
size_t saf__slot_bytes(const saf_product_plan *p, int factor);

/* A factor whose tiles stay in memory and are of use to their owners alone, each in its own. */
bool saf__is_own(const saf_product_plan *p, int factor);
int64_t saf__own_tiles(const saf_product_plan *p, int factor, int32_t place);

/* What the ranks of one host keep together and move. */
typedef struct {
    int64_t resident[SAF__FACTORS]; /* tiles that stay in memory, */
    int64_t buffers[SAF__FACTORS];  /* and that a batch needs besides, at most */
} saf__host_room;

/* Fills bytes_received, bytes_read and memory_bytes of a plan whose grid, rounds and batch are set,
 * and counts what a host keeps: room[hosts]. Errors: NO_MEMORY. */
saf_status saf__plan_model(saf_product_plan *p, saf__host_room *room);
/* Bytes of the memory that a host shares. */
size_t saf__room_bytes(const saf_product_plan *p, const saf__host_room *room);
int32_t saf__hosts(const saf_product_plan *p);
/* What comes before the sums of a tile that a rank sends: their number, the first segment of each
 * and how many it is of. */
enum {
    SAF__SUMS_MOST = 64,
    SAF__SUM_WORDS = 1 + 2 * SAF__SUMS_MOST,
    SAF__SUM_BYTES = 8 * SAF__SUM_WORDS
};
/* Sums of a share's segments: the fewest whole subtrees of the tree of all segments. */
int64_t saf__subtrees(saf_span segments);
/* The most sums of a tile that there are at a time while these segments are multiplied in turn. */
int64_t saf__sums_at_once(saf_span segments);

/* Of a grid, whether A and B stay in memory or not: chooses the fewest rounds that keep the cap (0:
 * none) and a batch, and counts what that moves and keeps; where none does, what the smallest
 * needs. Errors: NO_MEMORY. */
saf_status saf__plan_fit(saf_product_plan *p, int64_t cap, bool resident, saf__host_room *room,
                         bool *fits);

/* As saf_product_plan_new, of one grid of at most ranks->ranks places: in tests only. */
saf_status saf__plan_grid(const saf_product_shape *shape, const saf_product_ranks *ranks, int32_t m,
                          int32_t n, int32_t k, saf_product_plan **out);
/* What a step does at most, from the next product on: in tests only, and then the same everywhere.
 */
void saf__product_set_steps(double operations, int64_t bytes);

#endif
