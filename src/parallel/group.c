/* The ranks of one stage: who they are, and the memory they share. */
#include "parallel/group.h"

#include "parallel/flight.h"

/* Reserves bytes behind what there is, at a page of its own so that no two things share one. */
static bool reserve(size_t *end, int64_t n, size_t size, size_t *at) {
    enum { PAGE = 4096 };
    size_t bytes;
    *at = *end;
    return saf_size_mul((size_t)n, size, &bytes) && saf_size_add(bytes, PAGE - 1, &bytes) &&
           saf_size_add(*end, bytes / PAGE * PAGE, end);
}

static saf_status find_places(saf_group *g) {
    saf__group_places *at = &g->at;
    const saf_schedule *schedule = g->schedule;
    int64_t chunk = schedule->chunk, rows = saf_schedule_max_logits(schedule, g->work);
    bool last = saf__group_is_last(g);
    size_t stage;
    size_t stage_bytes =
        g->ranks > 1
            ? saf_stage_shared_bytes(g->p, saf_schedule_room(schedule, g->work, last), g->ranks)
            : 0;
    bool fits = reserve(&at->end, 1, stage_bytes, &stage);
    at->words_max = 2 + SAF__FLIGHT_HEAD + (int64_t)schedule->micro_batch * SAF__FLIGHT_RUN + chunk;
    fits = fits && saf_size_mul((size_t)chunk, (size_t)g->p->width * sizeof(float), &at->x_bytes) &&
           reserve(&at->end, g->n_flights, at->x_bytes, &at->x) &&
           reserve(&at->end, at->words_max, sizeof(int32_t), &at->words);
    if (fits && last)
        fits =
            reserve(&at->end, g->logits_block, (size_t)g->p->vocab * sizeof(float), &at->logits) &&
            reserve(&at->end, schedule->micro_batch,
                    (size_t)(1 + g->work->n_top) * sizeof(saf_sampled), &at->sampled) &&
            reserve(&at->end, rows, sizeof(float), &at->scores);
    if (!fits) return saf_fail(SAF_NO_MEMORY, "the rows of the flights are too large");
    return SAF_OK;
}

static saf_status share(void *ctx, const saf_part *parts, int64_t n) {
    return saf__group_meet(ctx, SAF_TRACE_EXCHANGE, parts, n);
}

saf_status saf__group_meet(saf_group *g, saf_trace_kind kind, const saf_part *parts, int64_t n) {
    if (g->ranks == 1) return SAF_OK;
    double start = saf_clock_s();
    saf_status st = saf_shared_meet(g->shared, parts, n);
    double end = saf_clock_s();
    g->wait_s += end - start;
    saf_trace_add(g->trace, kind, start, end, -1, 0);
    return st;
}

/* Whether every rank's kernels want activations token by token. */
static saf_status agree_by_token(saf_group *g, bool *out) {
    uint8_t all = saf_kernels_by_token();
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &all, 1);
    saf_status st = saf_comm_allreduce(g->comm, SAF_OP_MIN, &t);
    *out = all;
    return st;
}

static saf_status take_memory(saf_group *g, const saf_layout *layout) {
    saf_status st = SAF_OK;
    if (g->ranks == 1) {
        SAF_TRY(saf_alloc(g->at.end, 1, &g->memory));
        return SAF_OK;
    }
    SAF_TRY(saf_shared_new(g->comm, g->at.end, &g->shared));
    g->memory = saf_shared_data(g->shared);
    bool by_token = false;
    SAF_TRY(agree_by_token(g, &by_token));
    saf_place first = {g->place.replica, g->place.stage, 0};
    g->stage = (saf_stage_group){.ctx = g,
                                 .rank = g->place.part,
                                 .ranks = g->ranks,
                                 .ranges = layout->ranges + saf_layout_rank(layout, first),
                                 .memory = g->memory,
                                 .parts = !saf_shared_one_host(g->shared),
                                 .by_token = by_token,
                                 .share = share};
out:
    return st;
}

saf_status saf_group_new(saf_comm *comm, const saf_layout *layout, const saf_model_params *p,
                         const saf_work *work, const saf_schedule *schedule, saf_group **out) {
    saf_status st = SAF_OK;
    saf_group *g = NULL;
    saf_place place = saf_layout_place(layout, saf_comm_rank(comm));
    SAF_TRY(saf_comm_agree(comm, saf_alloc(1, sizeof *g, &g)));
    *g = (saf_group){.p = p,
                     .work = work,
                     .schedule = schedule,
                     .place = place,
                     .stages = layout->stages,
                     .ranks = layout->tensor};
    /* The first stage may have a flight more under way than there are stages; a later one computes
     * one while the next arrives. */
    g->n_flights = layout->stages == 1 ? 1 : place.stage == 0 ? layout->stages + 1 : 2;
    int64_t rows = saf_schedule_max_logits(schedule, work);
    g->logits_block = work->logits ? rows : saf_i64_min(rows, SAF_LOGIT_ROWS);
    int32_t stage = place.replica * layout->stages + place.stage;
    SAF_TRY(saf_comm_split(comm, saf__group_leads(g) ? place.replica : -1, place.stage, &g->pipe));
    bool head = layout->replicas > 1 && saf__group_is_head(g);
    SAF_TRY(saf_comm_split(comm, head ? 0 : -1, place.replica, &g->heads));
    SAF_TRY(saf_comm_split(comm, g->ranks > 1 ? stage : -1, place.part, &g->comm));
    SAF_TRY(saf_comm_agree(comm, find_places(g)));
    SAF_TRY(saf_comm_agree(comm, take_memory(g, layout)));
    *out = g;
    g = NULL;
out:
    saf_group_free(&g);
    return st;
}

void saf_group_free(saf_group **group) {
    saf_group *g = *group;
    if (!g) return;
    if (g->ranks == 1)
        saf_free(&g->memory);
    else
        saf_shared_free(&g->shared);
    saf_comm_free(&g->comm);
    saf_comm_free(&g->heads);
    saf_comm_free(&g->pipe);
    saf_free(group);
}

const saf_stage_group *saf_group_stage(const saf_group *g) {
    return g->ranks > 1 ? &g->stage : NULL;
}

saf_status saf_group_report(saf_group *g, const void *head, size_t head_len, const void *body,
                            size_t body_len) {
    if (!g->queue) return saf_fail(SAF_DEFECT, "a report of a rank that runs no requests");
    return saf__queue_report(g->queue, head, head_len, body, body_len);
}

size_t saf_group_bytes(const saf_group *g) {
    return g->at.end;
}
