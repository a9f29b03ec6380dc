/* What makes two runs the same job: kind, arithmetic, model, the settings of the kind, the input.
 */
#include <stdio.h>

#include "job/fields.h"
#include "job/saver.h"

/* ---- the input: requests as they were read ---- */

static saf_status add_text(saf_sha256 *sha, const char *text) {
    return saf_sha256_add_prefixed(sha, text ? text : "", text ? strlen(text) : 0);
}

static saf_status add_sampling(saf_sha256 *sha, const saf_prompt *p) {
    saf_status st = SAF_OK;
    const saf_sampling *s = &p->sampling;
    const double reals[] = {s->temperature, s->top_p, s->min_p, s->repeat_penalty};
    const uint64_t wholes[] = {(uint64_t)s->top_k, (uint64_t)s->repeat_last, s->seed,
                               (uint64_t)p->max_tokens};
    SAF_TRY(saf_sha256_add(sha, reals, sizeof reals));
    st = saf_sha256_add(sha, wholes, sizeof wholes);
out:
    return st;
}

static saf_status add_prompt(saf_sha256 *sha, const saf_prompt *p) {
    saf_status st = SAF_OK;
    const uint64_t counts[] = {(uint64_t)p->n_messages, (uint64_t)p->n_ids};
    SAF_TRY(add_text(sha, p->id));
    SAF_TRY(add_text(sha, p->text));
    SAF_TRY(saf_sha256_add(sha, counts, sizeof counts));
    for (int32_t i = 0; i < p->n_messages; i++) {
        SAF_TRY(add_text(sha, p->messages[i].role));
        SAF_TRY(add_text(sha, p->messages[i].content));
    }
    SAF_TRY(saf_sha256_add(sha, p->ids, (size_t)p->n_ids * sizeof *p->ids));
    st = add_sampling(sha, p);
out:
    return st;
}

static saf_status input_hash(const saf__session *s, char hex[65]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    uint8_t digest[32];
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t i = 0; i < s->n_prompts; i++) SAF_TRY(add_prompt(sha, &s->prompts[i]));
    SAF_TRY(saf_sha256_final(sha, digest));
    saf_hex(digest, sizeof digest, hex);
out:
    saf_sha256_free(&sha);
    return st;
}

/* ---- the settings ---- */

/* The settings come before the input, which holds those of each request: what differs first is what
 * a message names. */
saf_status saf__identity_settings(const saf_job *job, saf_identity *id) {
    saf_status st = SAF_OK;
    saf_buf value = {0};
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!f->identity || !(f->kinds & 1u << job->kind)) continue;
        if (!saf__field_is_list(f) && !saf__field_has_value(job, f)) continue;
        saf_buf_clear(&value);
        SAF_TRY(saf__field_write(job, f, &value));
        SAF_TRY(saf_identity_add(id, f->key, value.data));
    }
out:
    saf_buf_free(&value);
    return st;
}

saf_status saf__identity_make(const saf__session *s, saf_identity *id) {
    saf_status st = SAF_OK;
    uint8_t fingerprint[16];
    char model[65 + 1 + 33], input[65], numbers[16];
    SAF_TRY(saf_identity_add(id, "job", saf_job_kind_name(s->job->kind)));
    snprintf(numbers, sizeof numbers, "%d", SAF_NUMBERS);
    SAF_TRY(saf_identity_add(id, "numbers", numbers));
    SAF_TRY(saf_gguf_fingerprint(s->gguf, fingerprint));
    memcpy(model, s->model_sha256, 64);
    model[64] = '-';
    saf_hex(fingerprint, sizeof fingerprint, model + 65);
    SAF_TRY(saf_identity_add(id, "model", model));
    SAF_TRY(saf__identity_settings(s->job, id));
    SAF_TRY(input_hash(s, input));
    st = saf_identity_add(id, "input", input);
out:
    return st;
}
