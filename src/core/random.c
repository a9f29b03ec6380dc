#include <Random123/philox.h>

#include "saf/core.h"

void saf_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]) {
    philox4x32_ctr_t ctr = {{(uint32_t)counter_lo, (uint32_t)(counter_lo >> 32),
                             (uint32_t)counter_hi, (uint32_t)(counter_hi >> 32)}};
    philox4x32_key_t k = {{(uint32_t)key, (uint32_t)(key >> 32)}};
    philox4x32_ctr_t r = philox4x32(ctr, k);
    memcpy(out, r.v, sizeof r.v);
}

void saf_philox_fill(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, size_t n,
                     uint32_t *out) {
    for (size_t i = 0; i < n; i++) saf_philox(key, counter_hi, counter_lo + i, out + 4 * i);
}

double saf_philox_uniform(uint64_t key, uint64_t counter_hi, uint64_t counter_lo) {
    uint32_t r[4];
    saf_philox(key, counter_hi, counter_lo, r);
    uint64_t bits = (uint64_t)r[0] << 32 | r[1];
    return (double)(bits >> 11) * 0x1p-53;
}
