/* acts.h: what the products read of a batch of activations. */
#ifndef SAF_KERNEL_ACTS_H
#define SAF_KERNEL_ACTS_H

#include "kernel/kernels.h"

const saf__acts_view *saf__acts_view_of(const saf_acts *acts);

#endif
