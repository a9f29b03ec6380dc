/* Regions of matrices that only some ranks can reach: a rank reads them itself, or asks rank 0,
 * which answers whenever it waits (saf_comm_serve). What ranks write goes to rank 0 the same way.
 *
 *   another rank                              rank 0, in its waits
 *   what, region              -- REGION -->   reads it
 *                             <-- VALUES --   its values; nothing: that failed
 *   what, region, to write    -- REGION -->   has a buffer
 *   its values                -- VALUES -->   writes them
 *   it is over                -- REGION -->   forgets this rank
 *
 * A piece is 4 MiB at most, of which rank 0 has four under way.
 */
#ifndef SAF_JOB_REGIONS_H
#define SAF_JOB_REGIONS_H

#include "saf/comm.h"

typedef struct {
    int64_t row0, rows, col0, cols;
} saf__region;

/* How this rank reads or writes a piece itself: contiguous values. `what` is the caller's number of
 * a matrix. */
typedef saf_status saf__region_read(void *ctx, int32_t what, const saf__region *r, void *out);
typedef saf_status saf__region_write(void *ctx, int32_t what, const saf__region *r, const void *in);

typedef struct saf__regions saf__regions;

/* Values are of `dtype`. Rank 0 reads and writes by itself, and for the others. Collective. */
saf_status saf__regions_new(saf_comm *world, saf_dtype dtype, saf__region_read *read,
                            saf__region_write *write, void *ctx, saf__regions **out);
/* Region `r` of matrix `what` with ld values from row to row; `here`: this rank can read it itself.
 * Errors: those of reading; COMM. */
saf_status saf__regions_get(saf__regions *g, int32_t what, bool here, const saf__region *r,
                            void *out, int64_t ld);
/* Written when saf__regions_over returns, or this does on rank 0. */
saf_status saf__regions_put(saf__regions *g, int32_t what, const saf__region *r, const void *in,
                            int64_t ld);
/* The first thing that went wrong at rank 0 while it served. Local. */
saf_status saf__regions_status(const saf__regions *g);
/* All have what they asked for, and all is written; afterwards it goes on as before. Collective;
 * does not agree on an error. */
saf_status saf__regions_over(saf__regions *g);
void saf__regions_free(saf__regions **g); /* collective */

#endif
