/* saf launch: mpirun is started with `saf run`, and again after a failure, on the hosts that
 * answer. Nothing here knows MPI; one thread. */
#ifndef SAF_CLI_LAUNCH_H
#define SAF_CLI_LAUNCH_H

#include <signal.h>
#include <sys/types.h>

#include "cli/words.h"
#include "saf/job_hosts.h"

/* ---- processes and signals (launch_process.c) --------------------------------------------------
 * From saf__signals_begin on, requests to stop (INT, TERM, HUP, USR1) and the ends of children are
 * held back, and taken only inside of the waits below. */

typedef struct {
    sigset_t taken, before; /* before: what children start with */
    int asked;              /* the first signal that asked to stop; 0: none */
    bool at_once;           /* INT came again: nothing more is waited for */
} saf__signals;

saf_status saf__signals_begin(saf__signals *s);
/* Waits for as long, or until somebody asks to stop or a child ends. */
void saf__signals_wait(saf__signals *s, double seconds);

/* Starts words[0], looked for in PATH, in a process group of its own; it gets the signal
 * `orphaned` when saf itself ends. `silent`: without standard input and output. */
saf_status saf__process_start(const saf__signals *s, char *const *words, int orphaned, bool silent,
                              pid_t *out);
/* Waits for the end of a launcher, hands on to it what asks to stop, and leaves no rank on this
 * host. Returns its exit code, 128 and the signal if it died of one. */
int saf__process_wait(saf__signals *s, pid_t launcher);
/* The exit code of waitpid's status. */
int saf__process_code(int status);

/* ---- hosts (launch_hosts.c) ---------------------------------------------------------------------
 */

typedef struct {
    saf_hostfile file;
    saf__words agent; /* what starts a command on another host; none: no host is asked */
    bool *is_local;   /* [file.n_hosts] */
    bool *answers;    /* [file.n_hosts], of the newest saf__hosts_ask; all at first */
    int32_t n_answer;
} saf__hosts;

/* `words` are mpirun's, which may name the agent. Errors: as saf_hostfile_read. */
saf_status saf__hosts_open(const char *path, const saf__words *words, saf__hosts *out);
/* Asks all hosts but this one at once, and tells which stay away or are back. A request to stop
 * ends it early (s->asked). */
saf_status saf__hosts_ask(saf__hosts *h, saf__signals *s);
/* Writes those that answer into a new file; *path is its name (saf_free). */
saf_status saf__hosts_write(const saf__hosts *h, char **path);
void saf__hosts_free(saf__hosts *h);

/* ---- the command (launch_command.c) ------------------------------------------------------------
 */

typedef struct {
    const char *mpirun; /* --mpirun; NULL: mpirun itself */
    const char *hostfile;
    int32_t ranks; /* 0: not given */
    char **run;    /* [n_run] the job file and what follows it */
    int32_t n_run;
} saf__launch_request;

/* Splits --mpirun: the program (NULL: mpirun, with saf's options) and its words. */
saf_status saf__launch_words(const saf__launch_request *q, saf__words *out);
/* The value that words give to an option of mpirun, by any of these names; or, for
 * "--mca NAME VALUE", to NAME; NULL if there is none. */
const char *saf__launch_option(const saf__words *words, const char *const *names);
const char *saf__launch_mca(const saf__words *words, const char *name);
/* Whether a batch system says which hosts there are. */
bool saf__launch_in_allocation(void);
/* The whole command. `again`: the job goes on, so that --fresh is left out. */
saf_status saf__launch_command(const saf__launch_request *q, const char *hostfile, int32_t ranks,
                               bool again, saf__words *out);

#endif
