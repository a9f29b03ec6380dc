/* A file that is written as PATH.part and takes its name only when it is whole and durable.
 *
 * The .part is held under an exclusive lock of its open file description, so two jobs that were
 * given the same output notice each other, while what a dead process left behind is taken over.
 */
#ifndef SAF_STORE_PART_H
#define SAF_STORE_PART_H

#include <sys/types.h>

#include "saf/core.h"

typedef struct {
    char *path, *part; /* the name it will have, and has now */
    int fd;            /* holds the lock; -1: nothing open */
} saf__part;

#define SAF__PART_EMPTY \
    { NULL, NULL, -1 }

/* `mode` is less what the umask takes. Errors: CANNOT_CREATE (a missing folder, no permission, PATH
 * is no regular file, another process is writing it), IO (disk full). */
saf_status saf__part_open(const char *path, mode_t mode, saf__part *out);
/* Flushes what any descriptor wrote to the .part down to the disk. Errors: IO. */
saf_status saf__part_sync(const saf__part *p);
/* Renames it to PATH, flushes the folder, and lets go. Errors: CANNOT_CREATE, IO. */
saf_status saf__part_commit(saf__part *p);
/* Removes a .part that was not committed; fine on an empty one. */
void saf__part_abandon(saf__part *p);

/* Whether a process holds the lock of this .part right now. */
bool saf__part_is_locked(const char *part);
/* Removes a .part that a dead process left behind; fine when there is none. What is no regular
 * file, or may not be opened, stays. Errors: CANNOT_CREATE (a process is writing it). */
saf_status saf__part_remove_dead(const char *part);
/* Flushes the folder that holds `path`. Errors: IO. */
saf_status saf__folder_sync(const char *path);

#endif
