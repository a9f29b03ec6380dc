/* kv_store.h: one position into the key-value cache (layouts: saf/kernel.h). */
#ifndef SAF_KERNEL_FRAME_KV_STORE_H
#define SAF_KERNEL_FRAME_KV_STORE_H

#include "kernel/frame/lanes.h"
#include "kernel/kernels.h"

static void round_f16(const float *x, int64_t n, uint16_t *y) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store_f16(y + i, v16_load(x + i));
    for (; i < n; i++) y[i] = saf_f16_from_f32(x[i]);
}

/* x[0, n), n <= 32, as codes and their scale. The bits of magnitudes are in order as integers. */
static float round_q8(const float *x, int64_t n, int8_t *q) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude = saf_f32_to_bits(x[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    float amax = saf_f32_from_bits(largest);
    bool finite = largest < 0x7F800000;
    if (!finite || amax < 0x1p-100f) {
        for (int64_t i = 0; i < n; i++) q[i] = 0;
        return finite ? 0.0f : NAN;
    }
    float inverse = 127.0f / amax;
    for (int64_t i = 0; i < n; i++) q[i] = (int8_t)(int)rintf(x[i] * inverse);
    return amax / 127.0f;
}

static void kv_store_q8(const float *k, const float *v, int64_t width, int64_t position,
                        void *k_head, void *v_head) {
    int64_t blocks = saf_ceil_div(width, SAF_QUANT_BLOCK), lane = position % LANES;
    int64_t at = position / LANES * saf__kv_q8_group_bytes(width);
    float *k_scale = (float *)((char *)k_head + at), *v_scale = (float *)((char *)v_head + at);
    int8_t *k_codes = (int8_t *)(k_scale + blocks * LANES) + lane;
    int8_t *v_codes = (int8_t *)(v_scale + blocks * LANES) + lane * width;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t c = b * SAF_QUANT_BLOCK, n = saf_i64_min(SAF_QUANT_BLOCK, width - c);
        int8_t codes[SAF_QUANT_BLOCK];
        k_scale[b * LANES + lane] = round_q8(k + c, n, codes);
        for (int64_t i = 0; i < n; i++) k_codes[(c + i) * LANES] = codes[i];
        v_scale[b * LANES + lane] = round_q8(v + c, n, v_codes + c);
    }
}

static void frame_kv_store(const float *k, const float *v, int64_t width, saf_kv_type type,
                           int64_t position, void *k_head, void *v_head) {
    int64_t lane = position / LANES * width * LANES + position % LANES;
    if (type == SAF_KV_Q8_0) {
        kv_store_q8(k, v, width, position, k_head, v_head);
        return;
    }
    if (type == SAF_KV_F32) {
        for (int64_t c = 0; c < width; c++) ((float *)k_head)[lane + c * LANES] = k[c];
        memcpy((float *)v_head + position * width, v, (size_t)width * sizeof *v);
        return;
    }
    uint16_t rounded[SAF_MAX_HEAD_WIDTH];
    round_f16(k, width, rounded);
    for (int64_t c = 0; c < width; c++) ((uint16_t *)k_head)[lane + c * LANES] = rounded[c];
    round_f16(v, width, (uint16_t *)v_head + position * width);
}

#endif
