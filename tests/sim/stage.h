/* tests/sim: a stage that computes nothing, but takes as long as the plan says, and meets the
 * others of its group where and over what a stage does. */
#ifndef SAF_SIM_STAGE_H
#define SAF_SIM_STAGE_H

#include "parallel/plan.h"

typedef struct {
    saf_plan_model plan;
    saf_plan_work work;
    saf__plan_split split;
    const saf_layout *layout;
    const saf_schedule *schedule;
} sim_model;

/* g, p, layout and schedule outlive it. */
void sim_model_new(const saf_gguf *g, const saf_model_params *p, const saf_layout *layout,
                   const saf_schedule *schedule, sim_model *out);

/* Token n of some text: as frequent as Zipf's law has it, the first of the vocabulary the most. */
int32_t sim_token(int64_t vocab, int64_t n);

saf_stage *sim_stage_new(const sim_model *m, saf_place place, saf_slice_range range,
                         const saf_schedule *schedule, saf_stage_room room,
                         const saf_stage_group *group);
void sim_stage_free(saf_stage *stage);

#endif
