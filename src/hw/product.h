/* product.h: the yardstick of saf's own products, beside that of the instructions they are made of.
 */
#ifndef SAF_HW_PRODUCT_H
#define SAF_HW_PRODUCT_H

#include "saf/core.h"

typedef struct saf__hw_product saf__hw_product;

/* For a team of so many threads. Chooses the kernels, where nobody has. `memory`, a megabyte at
 * least, outlives it and holds numbers that are finite as packed Q8_0 (bytes below 124 are).
 * Errors: NO_MEMORY, USAGE (kernels that SAF_KERNELS names). */
saf_status saf__hw_product_new(int threads, void *memory, size_t bytes, saf__hw_product **out);
void saf__hw_product_free(saf__hw_product **product);
/* Operations of all threads in one round: two for each product of two numbers. */
double saf__hw_product_ops(const saf__hw_product *product);
/* Seconds of so many rounds. */
double saf__hw_product_run(saf__hw_product *product, int64_t rounds);

/* Eight rows through weights that fill the memory. */
typedef struct {
    double seconds, bytes, ops; /* bytes of weights */
} saf__hw_passage;
saf__hw_passage saf__hw_product_pass(saf__hw_product *product);

#endif
