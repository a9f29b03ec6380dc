/* Communicators: start and end, parts and copies, who and where. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/transport.h"

static bool started;

/* What launchers leave in the environment of the ranks they start. Slurm's own variables are no
 * sign: a batch script has them as well. */
static bool was_launched(void) {
    static const char *const signs[] = {
        "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "PMI_FD",
        "MV2_COMM_WORLD_SIZE",
    };
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
        if (getenv(signs[i])) return true;
    return false;
}

saf_status saf__comm_fail(const saf_comm *comm, saf_status status, const char *format, ...) {
    char text[1500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return saf_fail(status, "rank %d on %s: %s", comm->rank, comm->host, text);
}

static void comm_free(saf_comm **comm) {
    if (*comm) saf_free(&(*comm)->places);
    if (*comm) saf_free(&(*comm)->room);
    saf_free(comm);
}

saf_status saf_comm_start(int *argc, char ***argv, saf_comm **world) {
    saf_status st = SAF_OK;
    saf_comm *w = NULL;
    if (started) return saf_fail(SAF_DEFECT, "saf_comm_start: called twice");
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    w->world = true;
    w->rank = 0;
    w->size = 1;
    if (gethostname(w->host, sizeof w->host - 1) != 0) snprintf(w->host, sizeof w->host, "unknown");
    if (was_launched()) {
        SAF_TRY(saf__watch_launch(w->host));
        SAF_TRY(saf__mpi_start(argc, argv, w));
    } else {
        SAF_TRY(saf__serial_start(w));
    }
    started = true;
    SAF_TRY(saf__near_start(w));
    SAF_TRY(saf__watch_launched(w));
    SAF_TRY(saf__bells_hang(w));
    *world = w;
    w = NULL;
out:
    if (st != SAF_OK) saf__watch_stop();
    comm_free(&w);
    return st;
}

void saf_comm_stop(saf_comm **world) {
    if (!*world) return;
    saf__drop_requests(*world);
    /* The end of MPI waits for all ranks and spins: meet them politely first. */
    saf_comm_watch_phase("ending");
    (void)saf_comm_barrier(*world);
    saf__watch_leave();
    saf__bells_take_down();
    saf__near_stop(*world);
    saf__watch_inside("MPI_Finalize");
    (*world)->transport->stop(*world);
    saf__watch_stop();
    started = false;
    comm_free(world);
}

static volatile sig_atomic_t abort_code;

static void end_at_once(int signal_number) {
    (void)signal_number;
    _exit(abort_code);
}

void saf_comm_abort(saf_comm *comm, int exit_code) {
    enum { PATIENCE_S = 5 };
    /* 0 would make the launcher report success, and codes wrap at 256. */
    bool sound =
        (exit_code >= 1 && exit_code <= 109) || exit_code == saf_status_exit_code(SAF_WATCHDOG);
    abort_code = sound ? exit_code : saf_status_exit_code(SAF_DEFECT);
    /* The launcher is asked to end everybody, and cut off it cannot be. */
    signal(SIGALRM, end_at_once);
    alarm(PATIENCE_S);
    comm->transport->abort(abort_code);
}

static saf_status derive(saf_comm *comm, saf_comm **out) {
    saf_comm *c = NULL;
    saf_status st = saf_alloc(1, sizeof *c, &c);
    st = saf__agree(comm, st); /* and nobody enters MPI's own waiting long before the others */
    if (st != SAF_OK) {
        saf_free(&c);
        return st;
    }
    c->transport = comm->transport;
    c->crowded = comm->crowded;
    memcpy(c->host, comm->host, sizeof c->host);
    *out = c;
    return SAF_OK;
}

saf_status saf_comm_split(saf_comm *comm, int color, int key, saf_comm **out) {
    saf_status st = SAF_OK;
    saf_comm *c = NULL;
    bool member = false;
    SAF_TRY(derive(comm, &c));
    saf__watch_inside("MPI_Comm_split");
    st = comm->transport->split(comm, color, key, c, &member);
    saf__watch_inside(NULL);
    if (st != SAF_OK) goto out;
    if (!member) comm_free(&c);
    *out = c;
    c = NULL;
out:
    comm_free(&c);
    return st;
}

saf_status saf_comm_dup(saf_comm *comm, saf_comm **out) {
    saf_status st = SAF_OK;
    saf_comm *c = NULL;
    SAF_TRY(derive(comm, &c));
    saf__watch_inside("MPI_Comm_dup");
    st = comm->transport->dup(comm, c);
    saf__watch_inside(NULL);
    if (st != SAF_OK) goto out;
    *out = c;
    c = NULL;
out:
    comm_free(&c);
    return st;
}

void saf_comm_free(saf_comm **comm) {
    if (!*comm) return;
    saf__drop_requests(*comm);
    (*comm)->transport->free(*comm);
    comm_free(comm);
}

int saf_comm_rank(const saf_comm *comm) {
    return comm->rank;
}
int saf_comm_size(const saf_comm *comm) {
    return comm->size;
}
const char *saf_comm_host(const saf_comm *comm) {
    return comm->host;
}
