/* saf_model_write: a model whose values the caller has, as a GGUF file. */
#include <math.h>

#include "model/make.h"

enum { PIECE = 1 << 20, Q8_0_BLOCK = 32 }; /* values at a time: a multiple of the block */

typedef struct {
    saf_gguf_writer *w;
    saf_dtype dtype;
    saf_model_values values;
    void *ctx;
    float *piece;   /* [PIECE] */
    uint8_t *bytes; /* [PIECE * 4] */
} exporter;

static void encode_halves(saf_dtype dtype, const float *x, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = dtype == SAF_DTYPE_F16 ? saf_f16_from_f32(x[i]) : saf_bf16_from_f32(x[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

/* Blocks of 32: the scale as f16, then the numbers in bytes. The numbers are those nearest to the
 * values for the scale before it was rounded, as other programs have it.
 * Source: the layout of ggml's Q8_0. */
static void encode_q8_0(const float *x, int64_t n, uint8_t *out) {
    for (int64_t b = 0; b < n; b += Q8_0_BLOCK, out += 2 + Q8_0_BLOCK) {
        float largest = 0;
        for (int i = 0; i < Q8_0_BLOCK; i++) largest = fmaxf(largest, fabsf(x[b + i]));
        float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
        uint16_t h = saf_f16_from_f32(scale);
        memcpy(out, &h, sizeof h);
        if (!isfinite(inverse)) inverse = 0; /* scales so small are 0 as f16 */
        for (int i = 0; i < Q8_0_BLOCK; i++) {
            int8_t q = (int8_t)rintf(x[b + i] * inverse);
            memcpy(out + 2 + i, &q, 1);
        }
    }
}

/* Beyond it the type has no finite number, or, for Q8_0, no scale. */
static float limit_of(saf_dtype dtype) {
    switch ((int)dtype) {
        case SAF_DTYPE_F16:
            return 65520; /* rounds up */
        case SAF_DTYPE_BF16:
            return 0x1.FFp127f;
        case SAF_DTYPE_Q8_0:
            return 65504.0f * 127;
        default:
            return INFINITY;
    }
}

static saf_status declare(void *user, const char *name, int64_t cols, int64_t rows) {
    exporter *e = user;
    const int64_t shape[2] = {cols, rows};
    return saf_gguf_declare(e->w, name, saf__type_of(e->dtype, cols, rows), rows ? 2 : 1, shape);
}

static saf_status write_tensor(void *user, const char *name, int64_t cols, int64_t rows) {
    saf_status st = SAF_OK;
    exporter *e = user;
    saf_dtype dtype = saf__type_of(e->dtype, cols, rows);
    const float limit = limit_of(dtype);
    int64_t total = rows ? cols * rows : cols;
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = saf_i64_min(PIECE, total - at);
        size_t bytes;
        SAF_TRY(e->values(e->ctx, name, at, n, e->piece));
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(e->piece[i]) < limit))
                return saf_fail(SAF_FAILED, "tensor \"%s\": value %lld is %g, too large for %s",
                                name, (long long)(at + i), (double)e->piece[i],
                                saf_dtype_name(dtype));
        if (!saf_dtype_bytes(dtype, n, &bytes))
            return saf_fail(SAF_DEFECT, "tensor \"%s\": a ragged piece", name);
        if (dtype == SAF_DTYPE_Q8_0)
            encode_q8_0(e->piece, n, e->bytes);
        else if (dtype != SAF_DTYPE_F32)
            encode_halves(dtype, e->piece, n, e->bytes);
        SAF_TRY(
            saf_gguf_write_data(e->w, dtype == SAF_DTYPE_F32 ? (void *)e->piece : e->bytes, bytes));
    }
out:
    return st;
}

saf_status saf_model_write(const char *path, const saf_model_write_options *o,
                           saf_model_values values, void *ctx) {
    saf_status st = SAF_OK;
    exporter e = {.dtype = o->dtype, .values = values, .ctx = ctx};
    saf_model_params p = {.arch = o->arch,
                          .layers = o->layers,
                          .width = o->width,
                          .heads = o->heads,
                          .kv_heads = o->kv_heads,
                          .head_width = o->head_width,
                          .ff_width = o->ff_width,
                          .context = o->context,
                          .norm_eps = (float)o->norm_eps,
                          .qkv_bias = o->arch == SAF_ARCH_QWEN2,
                          .qk_norm = o->arch == SAF_ARCH_QWEN3,
                          .tied = o->tied};
    if (o->dtype != SAF_DTYPE_F32 && o->dtype != SAF_DTYPE_F16 && o->dtype != SAF_DTYPE_BF16 &&
        o->dtype != SAF_DTYPE_Q8_0)
        return saf_fail(SAF_USAGE, "a model is written as F32, F16, BF16 or Q8_0, not as %s",
                        saf_dtype_name(o->dtype));
    SAF_TRY(saf_alloc(PIECE, sizeof *e.piece, &e.piece));
    SAF_TRY(saf_alloc(PIECE, sizeof *e.piece, &e.bytes));
    SAF_TRY(saf_gguf_writer_open(path, &e.w));
    SAF_TRY(saf__write_general(e.w, saf_arch_name(o->arch), o->name, o->dtype));
    SAF_TRY(saf__make_vocab(e.w, o->vocab_path, 0, &p.vocab));
    SAF_TRY(saf__write_arch(e.w, &p, o->rope_base));
    SAF_TRY(saf__tensors_each(&p, declare, &e));
    SAF_TRY(saf__tensors_each(&p, write_tensor, &e));
    SAF_TRY(saf_gguf_writer_finish(e.w));
out:
    saf_gguf_writer_free(&e.w);
    saf_free(&e.piece);
    saf_free(&e.bytes);
    return st;
}
