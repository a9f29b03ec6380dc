/* Checkpoints beside the computing, and when a job is to stop. Rank 0's thread of its own writes
 * them; the other heads report what they have as often. */
#ifndef SAF_JOB_SAVER_H
#define SAF_JOB_SAVER_H

#include "job/session.h"

/* again.c, rank 0: what earlier runs of this output left is looked at and, where it is of this job,
 * taken up: s->over, or s->restored with the requests that are left. Errors: BAD_INPUT. */
saf_status saf__again_look(saf__session *s);
/* identity.c: of this job. Errors: IO (the model), NO_MEMORY. */
saf_status saf__identity_make(const saf__session *s, saf_identity *id);

/* Adds the settings of the job's kind that make it another job. */
saf_status saf__identity_settings(const saf_job *job, saf_identity *id);
/* again.c: results that are there; whether they are of this job. Errors: BAD_INPUT. */
saf_status saf__results_read(const char *file, saf_results *out);
saf_status saf__results_check(const saf_identity *now, const saf_results *r, const char *file);

/* saver.c. From begin to end checkpoints are written at intervals and, when the process is told to
 * end now, at once, whereupon it ends. Rank 0; elsewhere begin only grants rank 0 its time. */
saf_status saf__saver_begin(saf__session *s);
/* From now on the rows of logits cannot be read back, and nothing but an end needs a checkpoint. */
void saf__saver_results(saf__session *s);
/* One is written now, anyway or unless the last one has it all; waits for it. Errors: those of
 * writing. */
saf_status saf__saver_flush(saf__session *s, bool anyway);
void saf__saver_end(saf__session *s);      /* also without begin */
double saf__saver_took_s(saf__session *s); /* the last one, from beginning to end; any thread */

/* What events change of the requests at rank 0 is not looked at between these. */
void saf__state_lock(saf__session *s);
void saf__state_unlock(saf__session *s);

/* stop.c: whether this head wants the run to stop; an event of the engine. */
bool saf__stop_wanted(void *ctx);
/* Rank 0: finds out until when the job, which started at start_s, may run. A limit that cannot be
 * found is a warning. */
void saf__stop_limit(const saf_job *job, double start_s, saf__stop *stop);
/* A limit in words ("90s", "MM", "HH:MM:SS", "D-HH:MM:SS") in seconds, above 0. */
bool saf__time_limit_read(const char *text, double *seconds);

#endif
