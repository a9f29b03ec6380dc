/* Quantised products with AVX-512 VNNI. */
#include "kernel/kernels.h"

void saf__kernels_avx512_vnni(saf__kernels *k) {
    k->name = "avx512-vnni";
}
