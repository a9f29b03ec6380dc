/* Inside of choosing a layout, for grid.c (how many of everything), cut.c (runs of things among
 * parts), parts.c (the rows and heads of a stage's parts) and layout.c (the stages). */
#ifndef SAF_PARALLEL_LAYOUT_H
#define SAF_PARALLEL_LAYOUT_H

#include "saf/parallel.h"

/* ---- cut.c ---- */

/* `items` in a row, to be cut into `parts` runs, the first for part 0. */
typedef struct {
    int32_t items, parts;
    int32_t least;       /* items of a part: 1, or 0 where parts may be empty */
    const double *share; /* [parts] what a part can do against the others; above 0 */
    int64_t (*cost)(const void *ctx, int32_t begin, int32_t end); /* of a run; 0 of none */
    const void *ctx;
} saf__cut;

/* at[parts + 1]: part i takes [at[i], at[i + 1]). The largest cost / share is smallest; of such
 * cuts the one with the smallest sum of cost^2 / share, the earliest cuts among equals. parts *
 * least is at most items. Errors: NO_MEMORY. */
saf_status saf__cut_choose(const saf__cut *c, int32_t *at);

/* The same for items that are all alike, parts may be empty: of equals the first part takes more.
 */
void saf__cut_alike(int64_t items, const double *share, int32_t parts, int64_t *at);

/* ---- layout.c ---- */

/* sum[L + 1]: what the layers before one cost a flight of this mix, the head with the last, by
 * which stages are cut; in quarters of a byte read. To be released by saf_free. Errors: NO_MEMORY.
 */
saf_status saf__layout_costs(const saf_gguf *g, const saf_model_params *p,
                             const saf_flight_mix *mix, int64_t **sum);

/* ---- grid.c ---- */

typedef struct {
    int64_t layers; /* of the model: so many stages at most */
    int64_t parts;  /* of a stage that have heads and rows: more are taken only if asked for */
} saf__grid_limits;

/* The three numbers of out. Where the wish leaves them open: the largest tensor groups of ranks
 * that are on one host, then as few replicas as the layers allow. Errors: USAGE, naming numbers of
 * ranks that would do. */
saf_status saf__grid_choose(const saf_layout_wish *wish, saf__grid_limits limits, saf_layout *out);

/* ---- parts.c ---- */

/* How many parts of a stage can have heads. */
int64_t saf__parts_with_heads(const saf_model_params *p);
/* Gives each part of a stage its rows and heads: ranges[n] are the whole stage's at first.
 * Errors: NO_MEMORY. */
saf_status saf__parts_cut(const saf_gguf *g, const saf_model_params *p, const double *share,
                          int32_t n, saf_slice_range *ranges);

#endif
