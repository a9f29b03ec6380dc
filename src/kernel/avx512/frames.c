/* The frames with AVX-512. */
#define SAF__LANES_AVX512
#include "kernel/avx512/avx512.h"
#include "kernel/frame/attention.h"
#include "kernel/frame/rows.h"

void saf__kernels_avx512(saf__kernels *k) {
    k->name = "avx512";
    frame_rows_fill(k);
    frame_attention_fill(k);
    saf__avx512_float(k);
    saf__avx512_quantise(k);
}
