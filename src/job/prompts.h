/* The requests of a job, read from its input. */
#ifndef SAF_JOB_PROMPTS_H
#define SAF_JOB_PROMPTS_H

#include "job/where.h"
#include "saf/job.h"

typedef enum {
    SAF__PROMPTS_UNKNOWN,
    SAF__PROMPTS_TEXT,  /* FILE.txt */
    SAF__PROMPTS_JSONL, /* FILE.jsonl */
    SAF__PROMPTS_HDF5   /* FILE.h5:/DATASET */
} saf__prompts_form;

/* By the end of the name. */
saf__prompts_form saf__prompts_form_of(const char *name);

enum { SAF__PROMPTS_MAX = 1 << 24, SAF__PROMPTS_ID_BYTES = 256 };

/* A growing array of requests. `lines` says where each came from, for errors. */
typedef struct {
    const saf_job *job;
    const char *file;
    saf_prompt *items;
    int64_t *lines;
    int64_t n, cap;
} saf__prompt_list;

/* Adds a request with the job's own settings; *out is its place, valid until the next one. */
saf_status saf__prompt_list_add(saf__prompt_list *list, int64_t line, saf_prompt **out);

/* One line of a .jsonl file; text[len] is a zero byte. Errors: BAD_INPUT. */
saf_status saf__prompt_from_json(saf__prompt_list *list, const char *text, size_t len,
                                 int64_t line);

#endif
