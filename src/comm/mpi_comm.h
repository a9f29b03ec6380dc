/* comm/mpi_comm.h: what the files of the MPI transport know of a communicator. Only they include
 * it. */
#ifndef SAF_COMM_MPI_COMM_H
#define SAF_COMM_MPI_COMM_H

#include <mpi.h>

#include "comm/transport.h"

typedef struct {
    MPI_Comm comm;
    bool finalize; /* the world, when saf initialised MPI */
} saf__mpi_state;

static inline MPI_Comm saf__mpi_comm(const saf_comm *comm) {
    return ((const saf__mpi_state *)comm->state)->comm;
}

/* SAF_OK, or MPI's own text of what `call` returned. */
saf_status saf__mpi_check(const saf_comm *comm, const char *call, int code);

/* Of the transport's table (mpi_window.c). */
saf_status saf__mpi_find_host(saf_comm *comm, int *lowest);
saf_status saf__mpi_share(saf_comm *comm, size_t bytes, saf__window *out);
void saf__mpi_unshare(saf__window *window);

#endif
