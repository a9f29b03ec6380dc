/* attention.h: the attention of up to SAF__ATTN_ROWS query rows over one key head (see lanes.h for
 * what a frame is). Keys and values of a segment are read for several rows at once; a row's own
 * operations and their order do not depend on which rows share the call. */
#ifndef SAF_KERNEL_FRAME_ATTENTION_H
#define SAF_KERNEL_FRAME_ATTENTION_H

#include "kernel/frame/attention_scores.h"
#include "kernel/frame/attention_values.h"
#include "kernel/frame/kv_store.h"

SAF__INLINE void attend_pass(const saf_kv_type type, const int R, attn_state *s,
                             const saf__kv_head *head, const attn_segment *g, saf__attn_rows *rows,
                             int row, int64_t segment, bool first) {
    enum { MOST = 8 };
    const int NC = R > 8 ? 2 : LANE_ACCUMULATORS / R < MOST ? LANE_ACCUMULATORS / R : MOST;
    int64_t limit[PASS_ROWS];
    attn_merge merge[PASS_ROWS] = {{0}};
    for (int i = 0; i < R; i++)
        limit[i] = saf_i64_min(rows->limit[row + i] - segment, SAF_KV_SEGMENT);
    score_segment(type, R, s, head, g, row, saf_ceil_div(limit[R - 1], LANES));
    for (int i = 0; i < R; i++) {
        float max, sum, *old_max = &rows->max[row + i], *old_sum = &rows->sum[row + i];
        softmax_segment(s->score[i], limit[i], &max, &sum);
        merge[i].first = first;
        if (merge[i].first) {
            *old_max = max;
            *old_sum = sum;
            continue;
        }
        float merged = max > *old_max ? max : *old_max;
        merge[i].old_factor = saf__expf(*old_max - merged);
        merge[i].new_factor = saf__expf(max - merged);
        *old_sum = __builtin_fmaf(*old_sum, merge[i].old_factor, sum * merge[i].new_factor);
        *old_max = merged;
    }
    int64_t c = 0;
    for (; c + NC * LANES <= s->head_width; c += NC * LANES)
        weigh_values(type, R, NC, s, g, rows, row, limit, merge, c, LANES);
    for (; c + LANES <= s->head_width; c += LANES)
        weigh_values(type, R, 1, s, g, rows, row, limit, merge, c, LANES);
    if (c < s->head_width)
        weigh_values(type, R, 1, s, g, rows, row, limit, merge, c, s->head_width - c);
}

SAF__INLINE void attend_rows(const saf_kv_type type, attn_state *s, const saf__kv_head *head,
                             saf__attn_rows *rows, int64_t s0, int64_t s1) {
    int concerned = 0; /* limits ascend: the rows that a segment concerns are the last ones */
    int64_t group_bytes = group_bytes_of(type, s->head_width);
    for (int64_t i = s0; i < s1; i++) {
        int64_t p0 = i * SAF_KV_SEGMENT;
        int64_t positions = saf_i64_min(rows->limit[rows->rows - 1] - p0, SAF_KV_SEGMENT);
        while (concerned < rows->rows && rows->limit[concerned] <= p0) concerned++;
        attn_segment g = {.k = (const char *)head->k + (size_t)i * head->stride,
                          .v = (const char *)head->v + (size_t)i * head->stride,
                          .groups = saf_ceil_div(positions, LANES),
                          .group_bytes = group_bytes,
                          .fetch = true};
        g.next = i + 1 < s1 ? g.k + head->stride : NULL;
        int row = concerned;
        if (WIDE)
            for (; row + 12 <= rows->rows; row += 12, g.fetch = false)
                attend_pass(type, PASS_ROWS, s, head, &g, rows, row, p0, i == s0);
        if (WIDE)
            for (; row + 8 <= rows->rows; row += 8, g.fetch = false)
                attend_pass(type, WIDE ? 8 : 4, s, head, &g, rows, row, p0, i == s0);
        for (; row + 4 <= rows->rows; row += 4, g.fetch = false)
            attend_pass(type, 4, s, head, &g, rows, row, p0, i == s0);
        for (; row + 2 <= rows->rows; row += 2, g.fetch = false)
            attend_pass(type, 2, s, head, &g, rows, row, p0, i == s0);
        for (; row < rows->rows; row++, g.fetch = false)
            attend_pass(type, 1, s, head, &g, rows, row, p0, i == s0);
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
    for (int64_t c = 0; c < head->head_width; c++)
        for (int i = 0; i < rows->rows; i++) s.q[c * SAF__ATTN_ROWS + i] = rows->q[i][c];
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
