/* The text of a job file with its includes in place, made safe for libconfig, and where each of
 * its lines came from.
 *
 * libconfig 1.5 cuts an integer without the suffix L to 32 bits and says nothing, keeps an escape
 * it does not know as it stands, and ends a string at \x00: the scanner gives every integer its
 * suffix and refuses the rest. Including here, not in libconfig, bounds depth and size.
 */
#ifndef SAF_JOB_SOURCE_H
#define SAF_JOB_SOURCE_H

#include "job/where.h"

enum {
    SAF__SOURCE_FILES_MAX = 64,
    SAF__SOURCE_DEPTH_MAX = 10,
    SAF__SOURCE_BYTES_MAX = 1 << 20,
    SAF__SOURCE_SETTINGS_MAX = 4096 /* libconfig compares each with all others of its group */
};

typedef struct {
    saf_buf text;    /* what libconfig parses */
    saf_buf origins; /* of each line: an index into files and a line number */
    char *files[SAF__SOURCE_FILES_MAX];
    int n_files;
    int n_settings; /* so far: what has an = or : behind its name */
} saf__source;

/* Errors: NO_INPUT (the job file itself), USAGE (everything inside it). */
saf_status saf__source_read(const char *path, saf__source *out);
/* From a text that came from elsewhere; includes are not followed. */
saf_status saf__source_of_text(const char *text, const saf__where *at, saf__source *out);
void saf__source_free(saf__source *source);

/* Where a line (1-based) of the text came from. */
saf__where saf__source_where(const saf__source *source, int64_t line);

#endif
