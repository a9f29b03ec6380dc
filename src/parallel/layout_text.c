/* A layout in words. */
#include "saf/parallel.h"

static bool same_stages(const saf_layout *layout, int32_t replica) {
    for (int32_t s = 0; s < layout->stages; s++) {
        saf_slice_range a = layout->ranges[saf_layout_rank(layout, (saf_place){0, s, 0})];
        saf_slice_range b = layout->ranges[saf_layout_rank(layout, (saf_place){replica, s, 0})];
        if (a.layer0 != b.layer0 || a.layer1 != b.layer1) return false;
    }
    return true;
}

static saf_status add_stages(const saf_layout *layout, int32_t replica, saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_printf(out, "layers "));
    for (int32_t s = 0; s < layout->stages; s++) {
        saf_slice_range range = layout->ranges[saf_layout_rank(layout, (saf_place){replica, s, 0})];
        long long a = range.layer0, b = range.layer1 - 1;
        if (s > 0) SAF_TRY(saf_buf_append(out, " | ", 3));
        SAF_TRY(a == b ? saf_buf_printf(out, "%lld", a) : saf_buf_printf(out, "%lld-%lld", a, b));
    }
    SAF_TRY(saf_buf_printf(out, " + head"));
out:
    return st;
}

saf_status saf_layout_text(const saf_layout *layout, saf_buf *out) {
    saf_status st = SAF_OK;
    bool alike = true;
    for (int32_t i = 1; i < layout->replicas; i++) alike = alike && same_stages(layout, i);
    if (layout->replicas == 1 && layout->tensor == 1)
        SAF_TRY(saf_buf_printf(out, "pipeline %d: ", layout->stages));
    else
        SAF_TRY(saf_buf_printf(out, "replicas %d x pipeline %d x tensor %d: ", layout->replicas,
                               layout->stages, layout->tensor));
    SAF_TRY(add_stages(layout, 0, out));
    for (int32_t i = 1; i < layout->replicas && !alike; i++) {
        SAF_TRY(saf_buf_append(out, "; ", 2));
        SAF_TRY(add_stages(layout, i, out));
    }
out:
    return st;
}
