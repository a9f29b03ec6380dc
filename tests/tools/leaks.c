/* Leaks on purpose what its words name (buffer, communicator, nothing): test_leaks.py checks that
 * the suppressions for MPI's own leaks do not hide one of saf's. */
#include <stdio.h>
#include <stdlib.h>

#include "saf/comm.h"

/* In a frame of its own, so that no pointer stays on the stack or in a register. */
static __attribute__((noinline)) saf_status leak(saf_comm *world, const char *what) {
    saf_status st = SAF_OK;
    char *buffer = NULL;
    saf_comm *copy = NULL;
    if (strcmp(what, "buffer") == 0) {
        SAF_TRY(saf_alloc(1000, 1, &buffer));
        snprintf(buffer, 1000, "%d", saf_comm_rank(world));
        buffer = NULL;
    }
    if (strcmp(what, "communicator") == 0) {
        SAF_TRY(saf_comm_dup(world, &copy));
        copy = NULL;
    }
out:
    return st;
}

static __attribute__((noinline)) void wipe_stack(void) {
    volatile char bytes[65536];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = 0;
}

int main(int argc, char **argv) {
    saf_comm *world = NULL;
    if (saf_comm_start(&argc, &argv, &world) != SAF_OK) return 3;
    saf_status st = SAF_OK;
    for (int i = 1; i < argc && st == SAF_OK; i++) st = leak(world, argv[i]);
    wipe_stack();
    saf_comm_stop(&world);
    return st == SAF_OK ? 0 : 4;
}
