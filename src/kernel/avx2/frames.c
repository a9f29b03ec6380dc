/* The frames with AVX2. */
#define SAF__LANES_AVX2
#include "kernel/avx2/avx2.h"
#include "kernel/frame/attention.h"
#include "kernel/frame/rows.h"

void saf__kernels_avx2(saf__kernels *k) {
    k->name = "avx2";
    frame_rows_fill(k);
    frame_attention_fill(k);
    saf__avx2_float(k);
    saf__avx2_quant(k);
}
