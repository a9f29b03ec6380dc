/* What a plan needs to know of a model, all from its header. */
#include "parallel/plan.h"

/* Values that norms, rotation, attention's output, SiLU and additions touch in a layer, of a row:
 * the first part by every rank of a stage, the second each its own. */
static double values_of_all(const saf_model_params *p) {
    return 4 * (double)p->width;
}
static double values_of_parts(const saf_model_params *p) {
    return (double)(2 * p->heads + 2 * p->kv_heads) * (double)p->head_width +
           3 * (double)p->ff_width;
}

static saf_status part_of(const saf_plan_model *m, saf_slice_range range, saf_plan_part *out) {
    size_t packed = 0, replicated;
    int64_t int8_ops, float_ops;
    saf_status st = saf_slice_plan_bytes(m->gguf, m->params, range, &packed);
    saf_slice_ops(m->gguf, m->params, range, &int8_ops, &float_ops);
    *out = (saf_plan_part){(double)saf_slice_file_bytes(m->gguf, m->params, range, &replicated),
                           (double)packed, (double)int8_ops, (double)float_ops};
    return st;
}

/* The embedding and the head, by themselves and where both are one. */
static saf_status measure_ends(saf_plan_model *m) {
    saf_status st = SAF_OK;
    const saf_model_params *p = m->params;
    saf_plan_part none, embedding, both;
    SAF_TRY(part_of(m, saf_slice_range_whole(p, 0, 0, false, false), &none));
    SAF_TRY(part_of(m, saf_slice_range_whole(p, 0, 0, true, false), &embedding));
    SAF_TRY(part_of(m, saf_slice_range_whole(p, 0, 0, false, true), &m->head));
    SAF_TRY(part_of(m, saf_slice_range_whole(p, 0, 0, true, true), &both));
    m->head.bytes -= none.bytes;
    m->head.packed_bytes -= none.packed_bytes;
    m->embedding_bytes = embedding.bytes;
    m->embedding_packed = embedding.packed_bytes;
    m->tied_packed = both.packed_bytes;
out:
    return st;
}

/* The type of most bytes of the layers' matrices: the efficiency of products goes by it. */
static saf_dtype main_dtype(const saf_gguf *g) {
    double bytes[SAF_DTYPE_COUNT] = {0};
    int best = 0;
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        if (strncmp(t->name, "blk.", 4) == 0) bytes[t->dtype] += (double)t->bytes;
    }
    for (int d = 1; d < SAF_DTYPE_COUNT; d++)
        if (bytes[d] > bytes[best]) best = d;
    return (saf_dtype)best;
}

/* Bytes that a layer's four meetings are about, of a row: columns of x twice; what attention and
 * SiLU give as quantised blocks (q, scale, sum, offset), as saf_acts keeps them, or as f32. */
static double share_row_bytes(const saf_plan_model *m) {
    const saf_model_params *p = m->params;
    double values = (double)(p->heads * p->head_width + p->ff_width);
    double each = saf_dtype_is_quantised(m->dtype) ? (SAF_QUANT_BLOCK + 12.0) / SAF_QUANT_BLOCK : 4;
    return 2 * 4 * (double)p->width + values * each;
}

saf_status saf_plan_model_new(const saf_gguf *g, const saf_model_params *p, saf_kv_type kv_type,
                              saf_plan_model *out) {
    saf_status st = SAF_OK;
    saf_plan_model m = {.gguf = g, .params = p};
    saf_plan_part one;
    SAF_TRY(saf_alloc((size_t)p->layers + 1, sizeof *m.sums, &m.sums));
    for (int64_t i = 0; i < p->layers; i++) {
        saf_plan_part *at = &m.sums[i];
        SAF_TRY(part_of(&m, saf_slice_range_whole(p, i, i + 1, false, false), &one));
        at[1] = (saf_plan_part){at->bytes + one.bytes, at->packed_bytes + one.packed_bytes,
                                at->int8_ops + one.int8_ops, at->float_ops + one.float_ops};
    }
    SAF_TRY(measure_ends(&m));
    m.dtype = main_dtype(g);
    m.file_bytes = (double)saf_gguf_file_bytes(g);
    m.kv_position_bytes =
        2 * (double)p->layers * (double)saf_kv_bytes(kv_type, 1, p->kv_heads, p->head_width);
    m.pair_ops = 4 * (double)(p->heads * p->head_width);
    m.row_values = values_of_all(p) + values_of_parts(p);
    m.share_row_bytes = share_row_bytes(&m);
    *out = m;
    m.sums = NULL;
out:
    saf_free(&m.sums);
    return st;
}

void saf_plan_model_free(saf_plan_model *m) {
    saf_free(&m->sums);
    *m = (saf_plan_model){0};
}

/* ---- a stage on several ranks ---- */

static double share_of(double part, double all) {
    return all > 0 ? part / all : 0;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

static saf_status widen(const saf_plan_model *m, saf_slice_range range, saf__plan_split *out) {
    saf_status st = SAF_OK;
    const saf_model_params *p = m->params;
    const saf_plan_part *whole = &m->sums[1];
    saf_plan_part part, ends;
    saf_slice_range layer = range, end = range;
    saf_span kv = saf_slice_kv_heads(p, range);
    layer.embedding = layer.head = false;
    end.layer1 = end.layer0;
    end.embedding = false;
    SAF_TRY(part_of(m, layer, &part));
    SAF_TRY(part_of(m, end, &ends));
    double values = values_of_all(p) + values_of_parts(p) *
                                           (double)(range.ff.end - range.ff.begin) /
                                           (double)p->ff_width;
    if (part.bytes > out->bytes * whole->bytes) out->range = range;
    out->bytes = larger(out->bytes, share_of(part.bytes, whole->bytes));
    out->packed = larger(out->packed, share_of(part.packed_bytes, whole->packed_bytes));
    out->ops = larger(out->ops,
                      share_of(part.int8_ops + part.float_ops, whole->int8_ops + whole->float_ops));
    out->head_bytes = larger(out->head_bytes, share_of(ends.bytes, m->head.bytes));
    out->head_packed = larger(out->head_packed, share_of(ends.packed_bytes, m->head.packed_bytes));
    out->head_ops = larger(out->head_ops, share_of(ends.int8_ops + ends.float_ops,
                                                   m->head.int8_ops + m->head.float_ops));
    out->q =
        larger(out->q, share_of((double)(range.heads.end - range.heads.begin), (double)p->heads));
    out->kv = larger(out->kv, share_of((double)(kv.end - kv.begin), (double)p->kv_heads));
    out->values = larger(out->values, values / m->row_values);
out:
    return st;
}

saf_status saf__plan_split_of(const saf_plan_model *m, int32_t parts, saf_slice_range range,
                              saf__plan_split *out) {
    range.layer0 = 0;
    range.layer1 = 1;
    range.embedding = range.head = true;
    *out = (saf__plan_split){.parts = parts, .range = range};
    return widen(m, range, out);
}

saf_status saf__plan_split_make(const saf_plan_model *m, int32_t parts, saf__plan_split *out) {
    saf_status st = SAF_OK;
    saf_slice_range *ranges = NULL;
    double *share = NULL;
    SAF_TRY(saf_alloc((size_t)parts, sizeof *ranges, &ranges));
    SAF_TRY(saf_alloc((size_t)parts, sizeof *share, &share));
    for (int32_t i = 0; i < parts; i++) {
        ranges[i] = saf_slice_range_whole(m->params, 0, 1, true, true);
        share[i] = 1;
    }
    SAF_TRY(saf__parts_cut(m->gguf, m->params, share, parts, ranges));
    *out = (saf__plan_split){.parts = parts};
    for (int32_t i = 0; i < parts; i++) SAF_TRY(widen(m, ranges[i], out));
out:
    saf_free(&ranges);
    saf_free(&share);
    return st;
}
