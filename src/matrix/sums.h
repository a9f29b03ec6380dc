/* matrix/sums.h: what the segments of a tile of C add up to, as far as one rank holds it. */
#ifndef SAF_MATRIX_SUMS_H
#define SAF_MATRIX_SUMS_H

#include "matrix/calls.h"

/* Buffers of one length, which is that of a whole tile of C. */
typedef struct {
    size_t bytes;
    char *block;            /* of the first ones */
    char **free_list;       /* [n], those that nobody has */
    int64_t n, room, first; /* first: buffers in block */
    char **others;          /* [n_others] taken one by one when those ran out */
    int64_t n_others, others_room;
} saf__buffers;

saf_status saf__buffers_new(saf__buffers *b, size_t bytes, int64_t count);
/* Has pages put under the n that are taken next, by so many threads, before the first product is
 * summed there. */
void saf__buffers_touch(saf__buffers *b, int64_t n, int threads);
void saf__buffers_free(saf__buffers *b);
/* By any thread. */
saf_status saf__buffers_take(saf__buffers *b, char **out);
void saf__buffers_give(saf__buffers *b, char *buffer);

/* As saf_product_part says, for a tile that is known. */
typedef struct {
    int64_t segment, segments, panels;
    char *data;
} saf__sum;

/* A tile of C in this round. */
typedef struct {
    int64_t i, j, elements;
    int64_t n;      /* sums */
    saf__sum *sums; /* [segments of the product at most] */
    int64_t next;   /* segment: what an earlier run left of those before has been fetched */
    bool written;   /* has been given to write_c, or to the rank that does so */
} saf__ctile;

/* The sum of this segment that is not whole; NULL: none. */
saf__sum *saf__sum_of(saf__ctile *t, int64_t segment);
saf_status saf__sum_begin(saf__ctile *t, int64_t segment, saf__buffers *b, saf__sum **out);
/* A sum that has become whole, or has come, joins its neighbours in the tree. */
void saf__sums_join(saf__ctile *t, const saf_product_plan *plan, saf__buffers *b);
bool saf__sum_is_whole(const saf_product_plan *plan, const saf__sum *sum);
void saf__sums_drop(saf__ctile *t, saf__buffers *b);

#endif
