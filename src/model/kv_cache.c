/* The key-value cache of a part of a stage, of the key heads that it reads: for every slot one
 * block, segment of positions by segment; in each, layer by layer, the keys and then the values. So
 * a sequence takes memory from the front as it grows, in pages as large as there are: with small
 * ones, attention over a long context spends a quarter of its time on finding them. */
#include "model/slice.h"
#include "saf/kernel_kv.h"

struct saf_kv_cache {
    saf_kv_type type;
    int64_t slots, capacity, layer0, layers, head_width;
    saf_span heads;    /* key heads */
    size_t part_bytes; /* keys, or values, of one segment of one layer */
    char **blocks;     /* [slots] */
};

/* Keys, or values, of one segment of one layer. */
static size_t part_bytes(const saf_model_params *p, saf_slice_range range, saf_kv_type type) {
    saf_span heads = saf_slice_kv_heads(p, range);
    return saf_kv_bytes(type, SAF_KV_SEGMENT, heads.end - heads.begin, p->head_width);
}

size_t saf_kv_cache_slot_bytes(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                               int64_t capacity) {
    size_t bytes = part_bytes(p, range, type);
    if (!saf_size_mul(bytes, (size_t)(2 * (range.layer1 - range.layer0)), &bytes) ||
        !saf_size_mul(bytes, (size_t)saf_ceil_div(capacity, SAF_KV_SEGMENT), &bytes))
        return SIZE_MAX;
    return bytes;
}

saf_status saf_kv_cache_new(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                            int64_t slots, int64_t capacity, saf_kv_cache **out) {
    saf_status st = SAF_OK;
    saf_kv_cache *kv = NULL;
    size_t slot_bytes = saf_kv_cache_slot_bytes(p, range, type, capacity);
    SAF_TRY(saf_alloc(1, sizeof *kv, &kv));
    kv->type = type;
    kv->slots = slots;
    kv->capacity = saf_round_up(capacity, SAF_KV_SEGMENT);
    kv->layer0 = range.layer0;
    kv->layers = range.layer1 - range.layer0;
    kv->heads = saf_slice_kv_heads(p, range);
    kv->head_width = p->head_width;
    kv->part_bytes = part_bytes(p, range, type);
    SAF_TRY(saf_alloc((size_t)slots, sizeof *kv->blocks, &kv->blocks));
    if (slot_bytes == SIZE_MAX) {
        st = saf_fail(SAF_NO_MEMORY, "a key-value cache of %lld positions is too large",
                      (long long)capacity);
        goto out;
    }
    for (int64_t i = 0; i < slots; i++) SAF_TRY(saf_alloc_huge(slot_bytes, &kv->blocks[i]));
    *out = kv;
    kv = NULL;
out:
    saf_kv_cache_free(&kv);
    return st;
}

void saf_kv_cache_touch(saf_kv_cache *kv, int64_t slots, int64_t positions) {
    enum { SMALL_PAGE = 4096 }; /* where there are no large ones */
    int64_t segments = saf_ceil_div(saf_i64_min(positions, kv->capacity), SAF_KV_SEGMENT);
    int64_t bytes = segments * (int64_t)saf__kv_cache_stride(kv);
    int64_t blocks = saf_ceil_div(bytes, SAF_HUGE_PAGE);
    slots = saf_i64_min(slots, kv->slots);
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t slot = 0; slot < slots; slot++)
        for (int64_t i = 0; i < blocks; i++) {
            int64_t end = saf_i64_min((i + 1) * SAF_HUGE_PAGE, bytes);
            for (int64_t at = i * SAF_HUGE_PAGE; at < end; at += SMALL_PAGE)
                ((volatile char *)kv->blocks[slot])[at] = 0;
        }
}

void saf_kv_cache_free(saf_kv_cache **cache) {
    saf_kv_cache *kv = *cache;
    if (!kv) return;
    for (int64_t i = 0; kv->blocks && i < kv->slots; i++) saf_free(&kv->blocks[i]);
    saf_free(&kv->blocks);
    saf_free(cache);
}

size_t saf__kv_cache_stride(const saf_kv_cache *kv) {
    return kv->part_bytes * 2 * (size_t)kv->layers;
}

size_t saf_kv_cache_bytes(const saf_kv_cache *kv) {
    return saf__kv_cache_stride(kv) * (size_t)(kv->capacity / SAF_KV_SEGMENT) * (size_t)kv->slots;
}

void saf__kv_cache_layer(const saf_kv_cache *kv, int64_t slot, int64_t layer, void **k, void **v) {
    char *base = kv->blocks[slot] + (size_t)(2 * layer) * kv->part_bytes;
    *k = base;
    *v = base + kv->part_bytes;
}

/* ---- what it holds, for other caches ---- */

static saf_status find_part(const saf_kv_cache *kv, const saf_kv_rows *which, saf_kv_part *out) {
    const saf_span *heads = &kv->heads;
    void *k, *v;
    if (which->slot < 0 || which->slot >= kv->slots || which->layer < kv->layer0 ||
        which->layer >= kv->layer0 + kv->layers || which->kv_head < heads->begin ||
        which->kv_head >= heads->end || which->pos0 < 0 || which->n < 0 ||
        which->pos0 > kv->capacity - which->n)
        return saf_fail(SAF_DEFECT,
                        "slot %lld, layer %lld, key head %lld, %lld positions from %lld on are not "
                        "in this key-value cache",
                        (long long)which->slot, (long long)which->layer, (long long)which->kv_head,
                        (long long)which->n, (long long)which->pos0);
    saf__kv_cache_layer(kv, which->slot, which->layer - kv->layer0, &k, &v);
    *out = (saf_kv_part){.type = kv->type,
                         .keys = which->keys,
                         .segment = which->keys ? k : v,
                         .stride = saf__kv_cache_stride(kv),
                         .head_width = kv->head_width,
                         .head = which->kv_head - heads->begin};
    return SAF_OK;
}

size_t saf_kv_cache_row_bytes(const saf_kv_cache *kv) {
    return saf_kv_bytes(kv->type, 1, 1, kv->head_width);
}

saf_status saf_kv_cache_get(const saf_kv_cache *kv, const saf_kv_rows *which, void *rows) {
    saf_kv_part part;
    saf_status st = find_part(kv, which, &part);
    if (st == SAF_OK) saf_kv_rows_get(&part, which->pos0, which->n, rows);
    return st;
}

saf_status saf_kv_cache_put(saf_kv_cache *kv, const saf_kv_rows *which, const void *rows) {
    saf_kv_part part;
    saf_status st = find_part(kv, which, &part);
    if (st == SAF_OK) saf_kv_rows_put(&part, which->pos0, which->n, rows);
    return st;
}

int64_t saf__kv_cache_capacity(const saf_kv_cache *kv) {
    return kv->capacity;
}
saf_kv_type saf__kv_cache_type(const saf_kv_cache *kv) {
    return kv->type;
}
