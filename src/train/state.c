/* The state between steps, for checkpoints: parameters and both moments, from and to rank 0. */
#include "train/train.h"

int64_t saf_train_steps(const saf_train *train) {
    return train->step;
}

saf_status saf_train_resume(saf_train *train, int64_t steps) {
    if (steps < 0 || steps > train->settings.steps)
        return saf_fail(SAF_DEFECT, "goes on after step %lld of %lld", (long long)steps,
                        (long long)train->settings.steps);
    train->step = steps;
    return SAF_OK;
}

static float *state_of(const saf_train *t, saf_train_state which) {
    return which == SAF_TRAIN_PARAMETERS ? t->values : which == SAF_TRAIN_MOMENT1 ? t->m : t->v;
}

static saf_status check(const saf_train *t, saf_train_state which, saf_span span,
                        const float *given) {
    bool good = (unsigned)which <= SAF_TRAIN_MOMENT2 && span.begin >= 0 && span.begin <= span.end &&
                span.end <= t->d.values && (given || t->rank != 0 || span.begin == span.end);
    if (good) return SAF_OK;
    return saf_fail(SAF_DEFECT, "values %lld to %lld of state %d of %lld parameters",
                    (long long)span.begin, (long long)span.end, (int)which, (long long)t->d.values);
}

static saf_tensor values_of(float *at, saf_span part) {
    return saf_tensor_1d(SAF_DTYPE_F32, at, part.end - part.begin);
}

/* A part of the span that `holder` alone keeps (`kept` there), between it and what rank 0 was
 * given. */
static saf_status move_part(const saf_train *t, int holder, float *kept, saf_span part,
                            float *given, bool get) {
    size_t bytes = (size_t)(part.end - part.begin) * sizeof(float);
    if (holder == 0) {
        memcpy(get ? given : kept, get ? kept : given, bytes);
        return SAF_OK;
    }
    saf_tensor values = values_of(t->rank == 0 ? given : kept, part);
    int other = t->rank == 0 ? holder : 0;
    if ((t->rank == 0) == get) return saf_comm_recv(t->comm, other, SAF_TAG_STATE, bytes, &values);
    return saf_comm_send(t->comm, other, SAF_TAG_STATE, &values);
}

static saf_status move_parts(const saf_train *t, float *state, saf_span span, float *given,
                             bool get) {
    saf_status st = SAF_OK;
    int64_t at = 0; /* where this rank's part of the chunk lies in its state */
    for (int64_t c = 0; c < saf__reduction_chunks(t->reduction); c++) {
        saf_span own = saf__reduction_part(t->reduction, c, t->rank);
        for (int r = 0; r < t->ranks; r++) {
            saf_span part = saf__reduction_part(t->reduction, c, r);
            part.begin = saf_i64_max(part.begin, span.begin);
            part.end = saf_i64_min(part.end, span.end);
            if (part.begin < part.end && (t->rank == 0 || t->rank == r))
                SAF_TRY(move_part(t, r, t->rank == r ? state + at + (part.begin - own.begin) : NULL,
                                  part, t->rank == 0 ? given + (part.begin - span.begin) : NULL,
                                  get));
        }
        at += own.end - own.begin;
    }
out:
    return st;
}

static bool parted(const saf_train *t, saf_train_state which) {
    return t->settings.shard && which != SAF_TRAIN_PARAMETERS;
}

saf_status saf_train_state_get(saf_train *train, saf_train_state which, saf_span span, float *out) {
    saf_status st = check(train, which, span, out);
    SAF_TRY(saf_comm_agree(train->comm, st));
    float *state = state_of(train, which);
    if (parted(train, which))
        SAF_TRY(saf__unagreed(train->comm, move_parts(train, state, span, out, true)));
    else if (train->rank == 0 && span.begin < span.end)
        memcpy(out, state + span.begin, (size_t)(span.end - span.begin) * sizeof *out);
out:
    return st;
}

saf_status saf_train_state_put(saf_train *train, saf_train_state which, saf_span span,
                               const float *in) {
    saf_status st = check(train, which, span, in);
    SAF_TRY(saf_comm_agree(train->comm, st));
    float *state = state_of(train, which);
    if (parted(train, which)) {
        /* in: only sent */
        SAF_TRY(saf__unagreed(train->comm, move_parts(train, state, span, (float *)in, false)));
    } else {
        saf_tensor values = values_of(state + span.begin, span);
        if (train->rank == 0 && span.begin < span.end)
            memcpy(state + span.begin, in, (size_t)(span.end - span.begin) * sizeof *in);
        SAF_TRY(saf__unagreed(train->comm, saf_comm_bcast(train->comm, 0, &values)));
    }
out:
    return st;
}
