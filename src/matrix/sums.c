/* The tree over the segments of a tile of C. Segment s and its neighbour are added, then pairs of
 * such sums, and so on: always the lower one first, whoever holds them and whenever they come. */
#include "matrix/sums.h"

/* ---- buffers ----------------------------------------------------------------------------------*/

saf_status saf__buffers_new(saf__buffers *b, size_t bytes, int64_t count) {
    saf_status st = SAF_OK;
    size_t all;
    b->bytes = (bytes + 63) / 64 * 64;
    if (!saf_size_mul(b->bytes, (size_t)count, &all))
        return saf_fail(SAF_NO_MEMORY, "no memory for %lld tiles", (long long)count);
    SAF_TRY(saf_alloc_huge(all > 0 ? all : 1, &b->block));
    SAF_TRY(saf_alloc((size_t)count, sizeof *b->free_list, &b->free_list));
    b->room = b->first = count;
    while (b->n < count) {
        b->free_list[b->n] = b->block + (size_t)(count - 1 - b->n) * b->bytes;
        b->n++;
    }
out:
    return st;
}

void saf__buffers_touch(saf__buffers *b, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t i = saf_i64_max(0, b->n - n); i < b->n; i++) memset(b->free_list[i], 0, b->bytes);
}

void saf__buffers_free(saf__buffers *b) {
    for (int64_t i = 0; i < b->n_others; i++) saf_free(&b->others[i]);
    saf_free(&b->others);
    saf_free(&b->free_list);
    saf_free(&b->block);
    *b = (saf__buffers){.block = NULL};
}

/* Room for n pointers in a list, of which `used` count. */
static saf_status grow(char ***list, int64_t used, int64_t n, int64_t *room) {
    saf_status st = SAF_OK;
    char **more = NULL;
    if (n <= *room) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)n * 2, sizeof *more, &more));
    if (used > 0) memcpy(more, *list, (size_t)used * sizeof *more);
    saf_free(list);
    *list = more;
    *room = n * 2;
out:
    return st;
}

/* So that giving back never has to grow the list. */
static saf_status take_another(saf__buffers *b, char **out) {
    saf_status st = SAF_OK;
    char *buffer = NULL;
    SAF_TRY(grow(&b->others, b->n_others, b->n_others + 1, &b->others_room));
    SAF_TRY(grow(&b->free_list, b->n, b->first + b->n_others + 1, &b->room));
    SAF_TRY(saf_alloc(b->bytes, 1, &buffer));
    b->others[b->n_others++] = buffer;
    *out = buffer;
out:
    return st;
}

saf_status saf__buffers_take(saf__buffers *b, char **out) {
    saf_status st = SAF_OK;
#pragma omp critical(saf_matrix_buffers)
    {
        if (b->n > 0)
            *out = b->free_list[--b->n];
        else
            st = take_another(b, out);
    }
    return st;
}

void saf__buffers_give(saf__buffers *b, char *buffer) {
#pragma omp critical(saf_matrix_buffers)
    b->free_list[b->n++] = buffer;
}

/* ---- sums -------------------------------------------------------------------------------------*/

static int64_t panels_of(const saf_product_plan *plan, int64_t segment, int64_t segments) {
    return saf_product_segment(&plan->tiles, segment + segments - 1).end -
           saf_product_segment(&plan->tiles, segment).begin;
}

bool saf__sum_is_whole(const saf_product_plan *plan, const saf__sum *sum) {
    return sum->panels == panels_of(plan, sum->segment, sum->segments);
}

saf__sum *saf__sum_of(saf__ctile *t, int64_t segment) {
    for (int64_t x = 0; x < t->n; x++)
        if (t->sums[x].segment == segment && t->sums[x].segments == 1) return &t->sums[x];
    return NULL;
}

saf_status saf__sum_begin(saf__ctile *t, int64_t segment, saf__buffers *b, saf__sum **out) {
    char *data = NULL;
    saf_status st = saf__buffers_take(b, &data);
    if (st != SAF_OK) return st;
    *out = &t->sums[t->n++];
    **out = (saf__sum){.segment = segment, .segments = 1, .data = data};
    return SAF_OK;
}

static void add_neighbour(saf__ctile *t, int64_t low, int64_t high, saf_dtype dtype,
                          saf__buffers *b) {
    saf__sum *to = &t->sums[low], *from = &t->sums[high];
    saf__call_add(dtype, t->elements, from->data, to->data);
    saf__buffers_give(b, from->data);
    to->segments *= 2;
    to->panels += from->panels;
    t->sums[high] = t->sums[--t->n];
}

void saf__sums_join(saf__ctile *t, const saf_product_plan *plan, saf__buffers *b) {
    for (bool joined = true; joined;) {
        joined = false;
        for (int64_t x = 0; x < t->n && !joined; x++)
            for (int64_t y = 0; y < t->n && !joined; y++) {
                const saf__sum *low = &t->sums[x], *high = &t->sums[y];
                joined = low->segments == high->segments &&
                         low->segment % (2 * low->segments) == 0 &&
                         high->segment == low->segment + low->segments &&
                         saf__sum_is_whole(plan, low) && saf__sum_is_whole(plan, high);
                if (joined) add_neighbour(t, x, y, plan->shape.dtype, b);
            }
    }
}

void saf__sums_drop(saf__ctile *t, saf__buffers *b) {
    while (t->n > 0) saf__buffers_give(b, t->sums[--t->n].data);
}
