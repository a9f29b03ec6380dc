/* product.h: the yardstick of saf's own products, beside that of the instructions they are made of.
 */
#ifndef SAF_HW_PRODUCT_H
#define SAF_HW_PRODUCT_H

#include "saf/core.h"

typedef struct saf__hw_product saf__hw_product;

/* For a team of so many threads. Chooses the kernels, where nobody has. Errors: NO_MEMORY, USAGE
 * (kernels that SAF_KERNELS names). */
saf_status saf__hw_product_new(int threads, saf__hw_product **out);
void saf__hw_product_free(saf__hw_product **product);
/* Operations of all threads in one round: two for each product of two numbers. */
double saf__hw_product_ops(const saf__hw_product *product);
/* Seconds of so many rounds. */
double saf__hw_product_run(saf__hw_product *product, int64_t rounds);

#endif
