/* A job that was run before: it is done already, or goes on from its newest checkpoint, unless what
 * is there is of another job. Rank 0. */
#include <stdio.h>
#include <unistd.h>

#include "job/saver.h"
#include "job/state.h"
#include "saf/core_signals.h"

/* The text of a single prompt belongs on stdout, this time as well. */
static saf_status say_again(const saf__session *s, const saf_results *r) {
    saf_log(SAF_LOG_INFO,
            "%s has the results of this job: nothing to compute (--fresh starts over)",
            s->job->output.file);
    if (s->options->quiet || s->work.score || s->n_live != 1 || r->n_requests != 1) return SAF_OK;
    const char *text = r->requests[0].completion ? r->requests[0].completion : "";
    if (printf("%s\n", text) < 0 || fflush(stdout) != 0)
        return saf_fail(SAF_IO, "cannot write to standard output");
    return SAF_OK;
}

/* What cannot be read, of an older saf or of something else, is replaced only when asked for. */
saf_status saf__results_read(const char *file, saf_results *r) {
    char why[512];
    saf_status st = saf_results_read(file, r);
    if (st != SAF_BAD_INPUT) return st;
    snprintf(why, sizeof why, "%s", saf_error_text());
    return saf_fail(st, "%s; --fresh replaces the file, or choose another output.file", why);
}

saf_status saf__results_check(const saf_identity *now, const saf_results *r, const char *file) {
    if (r->identity.n > 0) return saf_identity_check(now, &r->identity, file);
    return saf_fail(SAF_BAD_INPUT,
                    "%s is there already and does not say of which job it is (a %s job%s); --fresh "
                    "replaces it, or choose another output.file",
                    file, r->kind ? r->kind : "foreign", r->version ? ", or of an older saf" : "");
}

static saf_status go_on(saf__session *s, saf_checkpoint **c) {
    saf_status st = SAF_OK;
    const saf_checkpoint_head *head = saf_checkpoint_head_of(*c);
    SAF_TRY(saf__kept_restore(s, *c));
    SAF_TRY(saf_strdup(head->start_time, &s->results.start_time));
    SAF_TRY(saf_strdup(saf_checkpoint_path(*c), &s->caches.checkpoint));
    s->before_s = head->seconds;
    s->before_tokens = head->tokens;
    s->results.resumes = head->resumes + 1;
    saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED)); /* there is what goes on from here */
    if (!s->options->quiet)
        saf_log(SAF_LOG_INFO, "goes on from %s: %lld of %lld requests done, %lld tokens",
                saf_checkpoint_path(*c), (long long)head->done, (long long)head->total,
                (long long)head->tokens);
    s->restored = *c;
    *c = NULL;
out:
    return st;
}

/* One that a finished job could not remove. Another job's stay: a mistaken command costs nobody
 * what is in them. */
static void remove_left_over(const saf__session *s) {
    saf_checkpoint *c = NULL;
    const char *file = s->job->output.file;
    if (saf_checkpoint_open_newest(file, &c) == SAF_OK && c &&
        saf_identity_check(&s->results.identity, &saf_checkpoint_head_of(c)->identity, file) ==
            SAF_OK)
        (void)saf_checkpoints_remove(file);
    saf_checkpoint_free(&c);
}

saf_status saf__again_look(saf__session *s) {
    saf_status st = SAF_OK;
    const char *file = s->job->output.file;
    saf_results r = {0};
    saf_checkpoint *c = NULL;
    SAF_TRY(saf__identity_make(s, &s->results.identity));
    if (s->options->fresh) return SAF_OK;
    bool exists = access(file, F_OK) == 0;
    if (exists) SAF_TRY(saf__results_read(file, &r));
    if (exists && saf__results_check(&s->results.identity, &r, file) == SAF_OK) {
        s->over = true;
        remove_left_over(s);
        st = say_again(s, &r);
        goto out;
    }
    SAF_TRY(saf_checkpoint_open_newest(file, &c));
    /* A checkpoint of this job beside results of another: those were to be replaced. */
    if (c) {
        st = saf_identity_check(&s->results.identity, &saf_checkpoint_head_of(c)->identity,
                                saf_checkpoint_path(c));
        if (st == SAF_OK) st = go_on(s, &c);
        if (st != SAF_BAD_INPUT || !exists) goto out;
    }
    if (exists) st = saf__results_check(&s->results.identity, &r, file);
out:
    saf_checkpoint_free(&c);
    saf_results_free(&r);
    return st;
}
