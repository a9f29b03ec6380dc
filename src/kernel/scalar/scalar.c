/* The plain reference: every kernel, written from the rules of include/saf/kernel.h. */
#define SAF__LANES_SCALAR
#include "kernel/frame/attention.h"
#include "kernel/frame/quantise.h"
#include "kernel/frame/rows.h"

static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums) {
    float amax = 0;
    bool finite = true;
    int sum[2] = {0, 0};
    memset(q, 0, SAF_QUANT_BLOCK);
    for (int64_t k = 0; k < n; k++) {
        float magnitude = fabsf(x[k]);
        if (!(magnitude < INFINITY)) finite = false;
        if (magnitude > amax) amax = magnitude;
    }
    *dx = finite ? 0.0f : NAN;
    *sums = 0;
    if (!finite || amax < 0x1p-100f) return;
    *dx = amax / 127.0f;
    float inverse = 127.0f / amax;
    for (int64_t k = 0; k < n; k++) { /* |x * inverse| < 127.5: it needs no clamp */
        int value = (int)rintf(x[k] * inverse);
        q[k] = (int8_t)value;
        sum[k / 16] += value;
    }
    *sums = saf__pack_sums(sum[0], sum[1]);
}

/* One block of one weight row against one token. */
static float dot_block(const saf__form *form, const saf__block *w, const int8_t *q, int64_t n,
                       float dx, float acc) {
    int dot[2] = {0, 0}, sum[2] = {0, 0};
    float d = saf_f32_from_f16(w->d), m = saf_f32_from_f16(w->m);
    for (int k = 0; k < SAF_QUANT_BLOCK; k++) {
        int qk = (int)q[k / 4 * n * 4 + k % 4];
        dot[k / 16] += qk * (w->code[k] - form->offset);
        sum[k / 16] += qk;
    }
    if (saf__form_by_halves(form))
        acc = __builtin_fmaf(d * dx, (float)(w->scale[0] * dot[0] + w->scale[1] * dot[1]), acc);
    else
        acc = __builtin_fmaf(d * (float)w->scale[0] * dx, (float)(dot[0] + dot[1]), acc);
    if (!form->has_min) return acc;
    if (!saf__form_by_halves(form))
        return __builtin_fmaf(m * (float)w->min[0], dx * (float)(sum[0] + sum[1]), acc);
    for (int h = 0; h < 2; h++) acc = __builtin_fmaf(m * (float)w->min[h], dx * (float)sum[h], acc);
    return acc;
}

static void scalar_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a,
                             int rows, float *y, int64_t ldy) {
    const saf__form *form = saf__form_of(dtype);
    saf__block w;
    for (int64_t t = 0; t < a->tokens; t++)
        for (int i = 0; i < rows; i++) y[t * ldy + i] = 0;
    for (int64_t b = 0; b < a->blocks; b++) {
        const uint8_t *super = tile + (size_t)(b / form->blocks) * (size_t)form->super_bytes;
        for (int i = 0; i < rows; i++) {
            saf__block_get(form, super, (int)(b % form->blocks), i, &w);
            for (int64_t t = 0; t < a->tokens; t++) {
                int64_t t0 = t / a->tile * a->tile;
                int64_t n = saf__act_tile_tokens(a, t0), at = t0 * a->blocks + b * n;
                const int8_t *q = a->q + at * SAF_QUANT_BLOCK + (t - t0) * 4;
                float *acc = &y[t * ldy + i];
                *acc = dot_block(form, &w, q, n, a->dx[at + t - t0], *acc);
            }
        }
    }
}

static float float_weight(saf_dtype dtype, const uint8_t *tile, int64_t at) {
    uint16_t half;
    float w;
    if (dtype == SAF_DTYPE_F32) {
        memcpy(&w, tile + 4 * at, sizeof w);
        return w;
    }
    memcpy(&half, tile + 2 * at, sizeof half);
    return dtype == SAF_DTYPE_F16 ? saf_f32_from_f16(half) : saf_f32_from_bf16(half);
}

static void scalar_dot_float(const saf__float_part *p) {
    for (int64_t t = 0; t < p->tokens; t++) {
        const float *x = p->x + t * p->ldx;
        float acc[SAF_TILE_ROWS] = {0}, *y = p->y + t * p->ldy;
        if (p->more) memcpy(acc, y, (size_t)p->rows * sizeof *y);
        for (int64_t k = 0; k < p->cols; k++)
            for (int i = 0; i < p->rows; i++)
                acc[i] = __builtin_fmaf(
                    x[k], float_weight(p->dtype, p->tile, k * SAF_TILE_ROWS + i), acc[i]);
        memcpy(y, acc, (size_t)p->rows * sizeof *y);
    }
}

void saf__kernels_scalar(saf__kernels *k) {
    k->name = "scalar";
    k->by_token = NULL;
    k->quantise = frame_quantise;
    k->dot_quant = scalar_dot_quant;
    k->dot_streams = NULL;
    k->dot_few = NULL;
    k->dot_float = scalar_dot_float;
    frame_rows_fill(k);
    frame_attention_fill(k);
}
