/* What a train job did, as JSON. */
#include "cli/json.h"
#include "cli/report.h"

static cJSON *make_step(saf__json *b, const saf_result_train_step *s) {
    cJSON *o = cJSON_CreateObject();
    saf__json_whole(b, o, "step", s->step);
    saf__json_number(b, o, "loss", s->loss);
    saf__json_number(b, o, "learning_rate", s->learning_rate);
    saf__json_number(b, o, "gradient_norm", s->gradient_norm);
    saf__json_whole(b, o, "tokens", s->tokens);
    saf__json_number(b, o, "seconds", s->seconds);
    return o;
}

static cJSON *make_evaluation(saf__json *b, const saf_result_evaluation *e) {
    cJSON *o = cJSON_CreateObject();
    saf__json_whole(b, o, "step", e->step);
    saf__json_number(b, o, "loss", e->loss);
    saf__json_number(b, o, "loss_per_byte", e->loss_per_byte);
    saf__json_whole(b, o, "tokens", e->tokens);
    saf__json_whole(b, o, "bytes", e->bytes);
    saf__json_number(b, o, "seconds", e->seconds);
    return o;
}

cJSON *saf__json_training(saf__json *b, const saf_result_training *t) {
    cJSON *o = cJSON_CreateObject();
    cJSON *curve = cJSON_CreateArray(), *evaluations = cJSON_CreateArray();
    saf__json_text(b, o, "arch", t->arch);
    saf__json_text(b, o, "shape", t->shape);
    saf__json_text(b, o, "vocabulary", t->vocabulary);
    saf__json_text(b, o, "model", t->model);
    saf__json_text(b, o, "model_type", t->model_type);
    saf__json_whole(b, o, "vocab", t->vocab);
    saf__json_whole(b, o, "parameters", t->parameters);
    saf__json_whole(b, o, "steps", t->steps);
    saf__json_whole(b, o, "batch", t->batch);
    saf__json_whole(b, o, "micro_batches", t->micro_batches);
    saf__json_whole(b, o, "context", t->context);
    saf__json_whole(b, o, "text_tokens", t->text_tokens);
    saf__json_whole(b, o, "text_bytes", t->text_bytes);
    saf__json_whole(b, o, "held_out_tokens", t->held_out_tokens);
    saf__json_whole(b, o, "held_out_bytes", t->held_out_bytes);
    saf__json_number(b, o, "held_out_loss", t->held_out_loss);
    saf__json_number(b, o, "held_out_loss_per_byte", t->held_out_loss_per_byte);
    saf__json_number(b, o, "tokens_per_s", t->tokens_per_s);
    saf__json_number(b, o, "flops_per_s", t->flops_per_s);
    saf__json_text(b, o, "openblas_core", t->core);
    saf__json_text(b, o, "weights_sha256", t->weights_sha256);
    for (int64_t i = 0; i < t->n_curve && !b->failed; i++)
        saf__json_item(b, curve, make_step(b, &t->curve[i]));
    for (int64_t i = 0; i < t->n_evaluations && !b->failed; i++)
        saf__json_item(b, evaluations, make_evaluation(b, &t->evaluations[i]));
    saf__json_add(b, o, "curve", curve);
    saf__json_add(b, o, "evaluations", evaluations);
    return o;
}
