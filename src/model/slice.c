/* The memory of a slice. All matrices lie in one block of large pages: a decoded token reads it
 * from end to end. slice_tensors.c says what they are, blocks.c fills them. */
#include "model/slice.h"

enum { ALIGNMENT = 64 };

/* Shapes of the matrices, and where each lies among all of them. */
static saf_status plan_matrices(const saf_gguf *g, saf_slice *s, const saf__slice_list *list) {
    saf_status st = SAF_OK;
    size_t rounded;
    for (int64_t i = 0; i < list->n; i++) {
        const saf__slice_tensor *x = &list->items[i];
        saf_weight *w;
        float **v;
        saf__slice_target(s, x, &w, &v);
        if (!w) continue;
        SAF_TRY(saf_weight_plan(x->t->dtype, x->rows, x->cols, w));
        if (!saf_size_add(w->bytes, ALIGNMENT - 1, &rounded) ||
            !saf_size_add(s->memory_bytes, rounded / ALIGNMENT * ALIGNMENT, &s->memory_bytes)) {
            st = saf_fail(SAF_NO_MEMORY, "%s: the matrices are too large", saf_gguf_path(g));
            goto out;
        }
    }
out:
    return st;
}

/* What is no matrix is held as f32. */
static size_t vectors_bytes(const saf__slice_list *list) {
    size_t bytes = 0;
    for (int64_t i = 0; i < list->n; i++)
        if (!saf__slice_is_matrix(&list->items[i]))
            bytes += (size_t)list->items[i].cols * sizeof(float);
    return bytes;
}

saf_status saf_slice_plan_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                                size_t *out) {
    saf_status st = SAF_OK;
    struct saf_slice s = {.params = p, .range = range};
    saf__slice_list list = {0};
    SAF_TRY(saf__slice_list_make(g, p, range, &list)); /* checks the range */
    SAF_TRY(saf_alloc((size_t)(range.layer1 - range.layer0), sizeof *s.layers, &s.layers));
    SAF_TRY(plan_matrices(g, &s, &list));
    *out = s.memory_bytes + vectors_bytes(&list);
out:
    saf_free(&list.items);
    saf_free(&s.layers);
    return st;
}

saf_status saf_slice_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                         saf_slice **out) {
    saf_status st = SAF_OK;
    saf_slice *s = NULL;
    saf__slice_list list = {0};
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->params = p;
    s->range = range;
    SAF_TRY(saf__slice_list_make(g, p, range, &list)); /* checks the range */
    SAF_TRY(saf_alloc((size_t)(range.layer1 - range.layer0), sizeof *s->layers, &s->layers));
    SAF_TRY(plan_matrices(g, s, &list));
    SAF_TRY(saf_alloc_huge(s->memory_bytes, &s->matrices));
    s->memory_bytes += vectors_bytes(&list);
    char *at = s->matrices;
    for (int64_t i = 0; i < list.n; i++) {
        saf_weight *w;
        float **v;
        saf__slice_target(s, &list.items[i], &w, &v);
        if (w) {
            w->data = at;
            at += saf_round_up((int64_t)w->bytes, ALIGNMENT);
        } else {
            SAF_TRY(saf_alloc((size_t)list.items[i].cols, sizeof **v, v));
        }
    }
    *out = s;
    s = NULL;
out:
    saf_free(&list.items);
    saf_slice_free(&s);
    return st;
}

void saf_slice_free(saf_slice **slice) {
    saf_slice *s = *slice;
    if (!s) return;
    saf__slice_free_vectors(s);
    saf_free(&s->layers);
    saf_free(&s->matrices);
    saf_free(slice);
}

const saf_weight *saf__slice_head(const saf_slice *s) {
    return s->params->tied ? &s->embedding : &s->head;
}

size_t saf_slice_memory_bytes(const saf_slice *s) {
    return s->memory_bytes;
}
