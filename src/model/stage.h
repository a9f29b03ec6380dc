/* What a stage computes with, for the other files of the model room. */
#ifndef SAF_MODEL_STAGE_H
#define SAF_MODEL_STAGE_H

#include "model/slice.h"

const saf_slice *saf__stage_slice(const saf_stage *s);
const saf_kv_cache *saf__stage_kv_cache(const saf_stage *s);

#endif
