/* A plan, for people and for programs. */
#ifndef SAF_CLI_PLAN_PRINT_H
#define SAF_CLI_PLAN_PRINT_H

#include <stdio.h>

#include "saf/job_plan.h"

saf_status saf__plan_text(const saf_job_plan *p, FILE *out);
saf_status saf__plan_json(const saf_job_plan *p, FILE *out);
/* "layout.replicas=2 layout.pipeline=3 layout.tensor=1 'layout.stages=[10,9,9]'": a job file's keys
 * that make this layout. */
saf_status saf__plan_keys(const saf_job_plan *p, const saf_plan_choice *c, saf_buf *out);

#endif
