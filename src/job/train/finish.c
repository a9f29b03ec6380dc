/* The end of a training: what each rank did, the model, the results. */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "job/share.h"
#include "job/train/train.h"

/* ---- ranks ---- */

static void fill_row(const saf__training *x, double run_s, saf_result_rank *out) {
    saf_train_counters c;
    saf_train_count(x->train, &c);
    int64_t bytes = 4 * saf_train_parameters(&x->shape);
    *out = (saf_result_rank){.rank = x->rank,
                             .replica = x->rank,
                             .weights_from = x->rank,
                             .threads = x->settings.threads,
                             .cores = x->host_share.binding.cores,
                             .layer1 = (int32_t)x->shape.layers,
                             .head1 = (int32_t)x->shape.heads,
                             .weight_bytes = bytes,
                             .memory_weights_bytes = bytes,
                             .peak_memory_bytes = (int64_t)saf_peak_memory_bytes(),
                             .compute_s = c.compute_s,
                             .wait_s = c.wait_s,
                             .busy = run_s > 0 ? c.compute_s / run_s : 0};
    snprintf(out->host, sizeof out->host, "%s", saf_comm_host(x->world));
    snprintf(out->kernels, sizeof out->kernels, "%s", saf_train_core());
    saf__calls_fill(out);
}

static saf_status gather(saf__training *x) {
    saf_status st = SAF_OK;
    saf_buf mine = {0}, *all = NULL;
    saf_result_rank row;
    saf_train_counters c;
    fill_row(x, saf_clock_s() - x->steps.run_start_s, &row);
    saf_train_count(x->train, &c);
    st = saf_buf_append(&mine, &row, sizeof row);
    if (st == SAF_OK) st = saf_alloc((size_t)x->ranks, sizeof *all, &all);
    if (st == SAF_OK && x->rank == 0)
        st = saf_alloc((size_t)x->ranks, sizeof row, &x->results.ranks);
    SAF_TRY(saf_comm_agree(x->world, st));
    assert(all); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(x->world, 0, &mine, all));
    x->operations = c.operations;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, &x->operations, 1);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_SUM, &t));
    if (x->rank == 0) x->results.n_ranks = x->ranks;
    for (int r = 0; x->rank == 0 && r < x->ranks; r++)
        memcpy(&x->results.ranks[r], all[r].data, sizeof row);
out:
    for (int r = 0; all && r < x->ranks; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    saf_buf_free(&mine);
    return st;
}

/* ---- the model ---- */

typedef struct {
    saf_train_tensor *tensors;
    int64_t n, next; /* next: they are asked for in their order */
    const float *values;
} source;

static saf_status values_of(void *ctx, const char *tensor, int64_t at, int64_t n, float *out) {
    source *s = ctx;
    for (int64_t i = 0; i < s->n; i++, s->next = (s->next + 1) % s->n) {
        const saf_train_tensor *t = &s->tensors[s->next];
        if (strcmp(t->name, tensor) != 0) continue;
        if (at + n > t->count) break;
        memcpy(out, s->values + t->offset + at, (size_t)n * sizeof *out);
        return SAF_OK;
    }
    return saf_fail(SAF_DEFECT, "tensor \"%s\" has not been trained", tensor);
}

/* "stories" of models/stories.gguf. */
static void name_of(const char *path, char *out, size_t room) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    int n = dot && dot > name ? (int)(dot - name) : (int)strlen(name);
    snprintf(out, room, "%.*s", n, name);
}

static saf_status write_model(const saf__training *x) {
    saf_status st = SAF_OK;
    const saf_train_shape *p = &x->shape;
    source s = {.values = saf_train_values(x->train)};
    char name[100];
    name_of(x->job->output.model, name, sizeof name);
    saf_model_write_options o = {.arch = p->arch,
                                 .name = name,
                                 .layers = p->layers,
                                 .width = p->width,
                                 .heads = p->heads,
                                 .kv_heads = p->kv_heads,
                                 .head_width = p->head_width,
                                 .ff_width = p->ff_width,
                                 .context = p->context,
                                 .rope_base = p->rope_base,
                                 .norm_eps = p->norm_eps,
                                 .tied = p->tied,
                                 .vocab_path = x->job->train.vocab,
                                 .dtype = saf_job_model_type(x->job)};
    SAF_TRY(saf_train_tensors(p, &s.tensors, &s.n));
    st = saf_model_write(x->job->output.model, &o, values_of, &s);
out:
    saf_free(&s.tensors);
    return st;
}

/* ---- the results ---- */

/* Of this run's steps: earlier ones may have had other ranks. */
static void fill_speed(const saf__training *x, saf_result_training *t) {
    double tokens = 0, seconds = 0, run_s = x->results.run_s - x->steps.before_s;
    for (int64_t i = x->before_steps; i < t->n_curve; i++) {
        tokens += (double)t->curve[i].tokens;
        seconds += t->curve[i].seconds;
    }
    t->tokens_per_s = seconds > 0 ? tokens / seconds : NAN;
    t->flops_per_s = run_s > 0 ? x->operations / run_s : NAN;
}

static saf_status fill_training(saf__training *x) {
    saf_status st = SAF_OK;
    saf_result_training *t = &x->results.training;
    const saf__texts *texts = &x->texts;
    const saf_result_evaluation *last =
        t->n_evaluations > 0 ? &t->evaluations[t->n_evaluations - 1] : NULL;
    uint8_t digest[32];
    char hex[65];
    t->there = true;
    t->vocab = x->shape.vocab;
    t->parameters = saf_train_parameters(&x->shape);
    t->steps = x->settings.steps;
    t->batch = x->settings.batch;
    t->micro_batches = x->settings.micro_batches;
    t->context = x->shape.context;
    t->text_tokens = texts->n_learn;
    t->text_bytes = texts->bytes;
    t->held_out_tokens = texts->n_held;
    t->held_out_bytes = texts->held_bytes;
    t->held_out_loss = last ? last->loss : NAN;
    t->held_out_loss_per_byte = last ? last->loss_per_byte : NAN;
    fill_speed(x, t);
    SAF_TRY(saf_strdup(saf_arch_name(x->shape.arch), &t->arch));
    SAF_TRY(saf_strdup(x->job->train.shape, &t->shape));
    SAF_TRY(saf_strdup(x->job->train.vocab, &t->vocabulary));
    SAF_TRY(saf_strdup(x->job->output.model, &t->model));
    SAF_TRY(saf_strdup(saf_dtype_name(saf_job_model_type(x->job)), &t->model_type));
    SAF_TRY(saf_strdup(saf_train_core(), &t->core));
    SAF_TRY(
        saf_sha256_of(saf_train_values(x->train), (size_t)t->parameters * sizeof(float), digest));
    saf_hex(digest, sizeof digest, hex);
    st = saf_strdup(hex, &t->weights_sha256);
out:
    return st;
}

static saf_status write_file(saf__training *x) {
    saf_status st = SAF_OK;
    saf_results *r = &x->results;
    saf_buf layout = {0};
    saf__steps_fill(&x->steps);
    r->vocab = x->shape.vocab;
    SAF_TRY(fill_training(x));
    SAF_TRY(saf_buf_printf(&layout, "%d rank%s, %lld micro-batches%s", x->ranks,
                           x->ranks == 1 ? "" : "s", (long long)x->settings.micro_batches,
                           x->settings.shard ? ", the optimizer's state in parts" : ""));
    SAF_TRY(saf_strdup(layout.data, &r->layout));
    SAF_TRY(saf_strdup(saf_train_core(), &r->kernels));
    SAF_TRY(saf__header_fill(r, x->job, x->options));
    /* The model first: results without it would count as done. */
    SAF_TRY(saf__vocab_check(x));
    SAF_TRY(write_model(x));
    st = saf_results_finish(x->writer, r);
out:
    saf_buf_free(&layout);
    return st;
}

/* What was learnt is not lost with an output that cannot be written. */
static saf_status keep_work(saf__training *x, saf_status failed) {
    saf_status st = SAF_OK;
    char *why = NULL;
    SAF_TRY(saf_comm_agree(x->world, saf_strdup(saf_error_text(), &why)));
    assert(why);
    st = saf__steps_keep(&x->steps);
    if (st == SAF_COMM) goto out;
    if (st != SAF_OK && x->rank == 0)
        saf_log(SAF_LOG_WARNING, "no checkpoint: %s", saf_error_text());
    st = st == SAF_OK
             ? saf_fail(failed,
                        "%s; all steps are kept in %s.ckpt-*: once this is mended, the same "
                        "command goes on",
                        why, x->job->output.file)
             : saf_fail(failed, "%s", why);
out:
    saf_free(&why);
    return st;
}

saf_status saf__train_finish(saf__training *x) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("writing");
    SAF_TRY(gather(x));
    st = saf_comm_agree(x->world, x->rank == 0 ? write_file(x) : SAF_OK);
    if (st != SAF_OK && st != SAF_COMM) st = keep_work(x, st);
    if (st != SAF_OK) goto out;
    st = x->rank == 0 ? saf_checkpoints_remove(x->job->output.file) : SAF_OK;
    SAF_TRY(saf_comm_agree(x->world, st));
    saf__steps_say(&x->steps);
out:
    return st;
}
