/* The frames with NEON. */
#define SAF__LANES_NEON
#include "kernel/frame/attention.h"
#include "kernel/frame/rows.h"
#include "kernel/neon/neon.h"

void saf__kernels_neon(saf__kernels *k) {
    k->name = "neon";
    frame_rows_fill(k);
    frame_attention_fill(k);
    saf__neon_float(k);
    saf__neon_quant(k);
}
