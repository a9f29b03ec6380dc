/* Memory that the ranks of a host share, as MPI's shared windows give it. It is used like memory:
 * its users order what they read and write by atomic flags in it, and no call of MPI is ever made
 * on a window between its making and its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "comm/mpi_comm.h"

/* MPI_Win is a pointer in one library and an int in another. */
typedef union {
    MPI_Win win;
    uintptr_t handle;
} win_bits;

saf_status saf__mpi_find_host(saf_comm *comm, int *lowest) {
    saf_status st = SAF_OK;
    MPI_Comm near = MPI_COMM_NULL;
    int first = comm->rank;
    SAF_TRY(saf__mpi_check(comm, "MPI_Comm_split_type",
                           MPI_Comm_split_type(saf__mpi_comm(comm), MPI_COMM_TYPE_SHARED,
                                               comm->rank, MPI_INFO_NULL, &near)));
    SAF_TRY(saf__mpi_check(comm, "MPI_Comm_set_errhandler",
                           MPI_Comm_set_errhandler(near, MPI_ERRORS_RETURN)));
    SAF_TRY(saf__mpi_check(comm, "MPI_Bcast", MPI_Bcast(&first, 1, MPI_INT, 0, near)));
    *lowest = first;
out:
    if (near != MPI_COMM_NULL) (void)MPI_Comm_free(&near);
    return st;
}

/* Where MPI libraries keep the memory of a window: Open MPI as it was told or in its folder of
 * temporary files where there is no /dev/shm, the others in /dev/shm. */
static const char *backing_folder(void) {
    const char *told = getenv("OMPI_MCA_osc_sm_backing_directory"), *temporary = getenv("TMPDIR");
    if (told && told[0]) return told;
    if (access("/dev/shm", W_OK) == 0) return "/dev/shm";
    return temporary && temporary[0] ? temporary : "/tmp";
}

/* Asked before MPI is: Open MPI 4.1 finds a file system too small on one rank only, while the
 * others wait for it. It wants a twentieth to spare. */
static saf_status check_room(const saf_comm *comm, size_t bytes) {
    struct statvfs fs;
    const char *folder = backing_folder();
    if (bytes > PTRDIFF_MAX / 2)
        return saf__comm_fail(comm, SAF_NO_MEMORY, "no %zu bytes of shared memory", bytes);
    if (statvfs(folder, &fs) != 0 || fs.f_blocks == 0)
        return SAF_OK; /* unknown, or without a limit */
    size_t free_bytes = SIZE_MAX;
    (void)saf_size_mul(fs.f_bavail, fs.f_frsize, &free_bytes);
    if (bytes + bytes / 16 + ((size_t)1 << 16) <= free_bytes) return SAF_OK;
    return saf__comm_fail(comm, SAF_NO_MEMORY,
                          "no %zu bytes of shared memory: %s has %zu bytes left", bytes, folder,
                          free_bytes);
}

/* Touches every page through the kernel: where a page cannot be had, a write of our own would end
 * the process by SIGBUS, and a read from a file only fails. */
static saf_status zero(const saf_comm *comm, char *base, size_t bytes) {
    saf_status st = SAF_OK;
    size_t at = 0;
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return saf__comm_fail(comm, SAF_IO, "/dev/zero: %s", strerror(errno));
    while (st == SAF_OK && at < bytes) {
        ssize_t n = read(fd, base + at, bytes - at);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno != EINTR)
            st = saf__comm_fail(comm, SAF_NO_MEMORY,
                                "of %zu bytes of shared memory in %s only %zu can be had: %s",
                                bytes, backing_folder(), at, n == 0 ? "no zeros" : strerror(errno));
    }
    (void)close(fd);
    return st;
}

/* This rank's address of the memory, which the first rank has taken and clears. The address is
 * aligned alike on all ranks: it begins as far into a page on each. */
static saf_status find_base(saf_comm *comm, MPI_Win win, size_t bytes, char **out) {
    saf_status st = SAF_OK;
    void *at = NULL;
    MPI_Aint size = 0;
    int unit = 0, skip = 0, code = MPI_Win_set_errhandler(win, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS) code = MPI_Win_shared_query(win, 0, &size, &unit, &at);
    if (comm->rank == 0) skip = (int)(-(uintptr_t)at % SAF__WINDOW_ALIGN);
    /* Also after a failure: the others wait for it. */
    int told = MPI_Bcast(&skip, 1, MPI_INT, 0, saf__mpi_comm(comm));
    SAF_TRY(saf__mpi_check(comm, "MPI_Win_shared_query", code));
    SAF_TRY(saf__mpi_check(comm, "MPI_Bcast", told));
    char *base = (char *)at + skip;
    if (skip < 0 || skip >= SAF__WINDOW_ALIGN || (uintptr_t)base % SAF__WINDOW_ALIGN != 0 ||
        size < (MPI_Aint)bytes + skip) {
        st = saf__comm_fail(comm, SAF_COMM, "MPI gives %lld bytes of shared memory at %p, not %zu",
                            (long long)size, at, bytes);
        goto out;
    }
    if (comm->rank == 0) SAF_TRY(zero(comm, base, bytes));
    *out = base;
out:
    return st;
}

saf_status saf__mpi_share(saf_comm *comm, size_t bytes, saf__window *out) {
    saf_status st = SAF_OK;
    MPI_Win win = MPI_WIN_NULL;
    void *mine = NULL;
    bool first = comm->rank == 0;
    size_t taken = 0;
    if (!saf_size_add(bytes, SAF__WINDOW_ALIGN, &taken)) taken = SIZE_MAX;
    SAF_TRY(saf__agree(comm, first ? check_room(comm, taken) : SAF_OK));
    int code = MPI_Win_allocate_shared(first ? (MPI_Aint)taken : 0, 1, MPI_INFO_NULL,
                                       saf__mpi_comm(comm), &mine, &win);
    /* A window that only some ranks have stays: its end would wait for the others. */
    SAF_TRY(saf__agree(comm, saf__mpi_check(comm, "MPI_Win_allocate_shared", code)));
    win_bits bits = {.handle = 0};
    bits.win = win;
    *out = (saf__window){.handle = bits.handle};
    st = saf__agree(comm, find_base(comm, win, bytes, &out->base));
    if (st != SAF_OK) saf__mpi_unshare(out);
out:
    return st;
}

void saf__mpi_unshare(saf__window *window) {
    win_bits bits = {.handle = window->handle};
    (void)MPI_Win_free(&bits.win);
    *window = (saf__window){.base = NULL};
}
