/* attention.h: the attention of up to SAF__ATTN_ROWS query rows over one key head (see lanes.h for
 * what a frame is). Keys and values of a segment are read for several rows at once; a row's own
 * operations and their order do not depend on which rows share the call. */
#ifndef SAF_KERNEL_FRAME_ATTENTION_H
#define SAF_KERNEL_FRAME_ATTENTION_H

#include "kernel/frame/attention_scores.h"
#include "kernel/frame/attention_values.h"
#include "kernel/frame/kv_store.h"

/* What the rows' maxima and sums become with a segment's; merge[] says how the outputs follow. */
static void merge_segment(attn_state *s, saf__attn_rows *rows, int row, bool first,
                          const float *max, const float *sum) {
    for (int i = row; i < rows->rows; i++) {
        attn_merge *m = &s->merge[i];
        m->first = first;
        if (first) {
            rows->max[i] = max[i];
            rows->sum[i] = sum[i];
            continue;
        }
        float merged = max[i] > rows->max[i] ? max[i] : rows->max[i];
        m->old_factor = saf__expf(rows->max[i] - merged);
        m->new_factor = saf__expf(max[i] - merged);
        rows->sum[i] = __builtin_fmaf(rows->sum[i], m->old_factor, sum[i] * m->new_factor);
        rows->max[i] = merged;
    }
}

SAF__INLINE void attend_rows(const saf_kv_type type, attn_state *s, const saf__kv_head *head,
                             saf__attn_rows *rows, int64_t s0, int64_t s1) {
    int concerned = 0; /* limits ascend: the rows that a segment concerns are the last ones */
    int64_t group_bytes = group_bytes_of(type, s->head_width);
    float max[SAF__ATTN_ROWS], sum[SAF__ATTN_ROWS];
    for (int64_t i = s0; i < s1; i++) {
        int64_t p0 = i * SAF_KV_SEGMENT;
        int64_t positions = saf_i64_min(rows->limit[rows->rows - 1] - p0, SAF_KV_SEGMENT);
        while (concerned < rows->rows && rows->limit[concerned] <= p0) concerned++;
        attn_segment g = {.k = (const char *)head->k + (size_t)i * head->stride,
                          .v = (const char *)head->v + (size_t)i * head->stride,
                          .groups = saf_ceil_div(positions, LANES),
                          .group_bytes = group_bytes,
                          .groups_ahead = head->in_order ? GROUPS_AHEAD_IN_ORDER : GROUPS_AHEAD,
                          .fetch = true};
        g.next = i + 1 < s1 ? g.k + head->stride : NULL;
        for (int row = concerned; row < rows->rows; row++)
            s->limit[row] = saf_i64_min(rows->limit[row] - p0, SAF_KV_SEGMENT);
        score_segment(type, s, head, g, concerned, rows->rows);
        softmax_segment(s, concerned, rows->rows, max, sum);
        merge_segment(s, rows, concerned, i == s0, max, sum);
        weigh_segment(type, s, g, rows->out, concerned, rows->rows);
    }
}

static void frame_attend_f16(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                             int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_F16, s, head, rows, s0, s1);
}
static void frame_attend_f32(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                             int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_F32, s, head, rows, s0, s1);
}

static void frame_attend_q8(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                            int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_Q8_0, s, head, rows, s0, s1);
}

static void frame_attend(const saf__kv_head *head, saf__attn_rows *rows, int64_t s0, int64_t s1) {
    attn_state s;
    s.head_width = head->head_width;
    for (int i = 0; i < rows->rows; i++)
        memcpy(s.q[i], rows->q[i], (size_t)head->head_width * sizeof(float));
    if (head->type == SAF_KV_F16)
        frame_attend_f16(&s, head, rows, s0, s1);
    else if (head->type == SAF_KV_F32)
        frame_attend_f32(&s, head, rows, s0, s1);
    else
        frame_attend_q8(&s, head, rows, s0, s1);
}

static void frame_attention_fill(saf__kernels *k) {
    k->attend = frame_attend;
    k->kv_store = frame_kv_store;
}

#endif
