/* The words that start the ranks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/launch.h"

static const char *const count_options[] = {"-n",
                                            "-np",
                                            "--n",
                                            "--np",
                                            "-c",
                                            "-N",
                                            "-npernode",
                                            "--npernode",
                                            "--host",
                                            "-host",
                                            "-H",
                                            "--app",
                                            "-app",
                                            "-ppn",
                                            "-hostfile",
                                            "--hostfile",
                                            "-f",
                                            "-hosts",
                                            "-machinefile",
                                            "--machinefile",
                                            "--default-hostfile",
                                            NULL};
static const char *const bind_options[] = {"--bind-to", "-bind-to", "-rf", "--rankfile", NULL};
static const char *const map_options[] = {"--map-by",  "-map-by",  "-rf", "--rankfile",
                                          "--rank-by", "-rank-by", NULL};

static bool is_any(const char *word, const char *const *names) {
    for (; word && *names; names++)
        if (strcmp(word, *names) == 0) return true;
    return false;
}

const char *saf__launch_option(const saf__words *words, const char *const *names) {
    for (char **w = words->items; w && *w; w++)
        if (is_any(*w, names)) return w[1] ? w[1] : "";
    return NULL;
}

const char *saf__launch_mca(const saf__words *words, const char *name) {
    static const char *const options[] = {"--mca", "-mca", "--gmca", "-gmca", NULL};
    const char *const names[] = {name, NULL};
    for (char **w = words->items; w && *w; w++)
        if (is_any(*w, options) && is_any(w[1], names) && w[2]) return w[2];
    return NULL;
}

bool saf__launch_in_allocation(void) {
    static const char *const batch[] = {"SLURM_JOB_ID", "PBS_NODEFILE", "LSB_JOBID", "PE_HOSTFILE",
                                        "LOADLBATCH"};
    for (size_t i = 0; i < sizeof batch / sizeof batch[0]; i++)
        if (getenv(batch[i])) return true;
    return false;
}

saf_status saf__launch_words(const saf__launch_request *q, saf__words *out) {
    return q->mpirun ? saf__words_split(out, q->mpirun) : SAF_OK;
}

/* What ranks of saf need of Open MPI's mpirun unless somebody said otherwise: they find their cores
 * by themselves, and neighbours are on one host. */
static saf_status add_defaults(const saf__launch_request *q, const saf__words *given,
                               saf__words *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__words_add(out, "mpirun"));
    if (!saf__launch_option(given, bind_options) &&
        !saf__launch_mca(given, "hwloc_base_binding_policy") &&
        !getenv("OMPI_MCA_hwloc_base_binding_policy")) {
        SAF_TRY(saf__words_add(out, "--bind-to"));
        SAF_TRY(saf__words_add(out, "none"));
    }
    if (q->hostfile && !saf__launch_option(given, map_options) &&
        !saf__launch_mca(given, "rmaps_base_mapping_policy") &&
        !getenv("OMPI_MCA_rmaps_base_mapping_policy")) {
        SAF_TRY(saf__words_add(out, "--map-by"));
        SAF_TRY(saf__words_add(out, "slot"));
    }
out:
    return st;
}

/* This program as the user called it, which other hosts may see at the same path; one found in PATH
 * by its whole path. */
static saf_status add_program(saf__words *out) {
    char self[4096];
    if (strchr(program_invocation_name, '/')) return saf__words_add(out, program_invocation_name);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return saf_fail(SAF_FAILED, "/proc/self/exe: %s", strerror(errno));
    self[n] = 0;
    return saf__words_add(out, self);
}

static saf_status add_count(const saf__launch_request *q, int32_t ranks, const saf__words *given,
                            saf__words *out) {
    saf_status st = SAF_OK;
    char number[16];
    /* Alone on a host, one rank uses all cores; mpirun would start as many ranks as there are. */
    if (ranks == 0 && !q->hostfile && !saf__launch_in_allocation() &&
        !saf__launch_option(given, count_options) && !getenv("OMPI_MCA_orte_default_hostfile"))
        ranks = 1;
    if (ranks == 0) return SAF_OK;
    snprintf(number, sizeof number, "%d", (int)ranks);
    SAF_TRY(saf__words_add(out, "-n"));
    SAF_TRY(saf__words_add(out, number));
out:
    return st;
}

saf_status saf__launch_command(const saf__launch_request *q, const char *hostfile, int32_t ranks,
                               bool again, saf__words *out) {
    saf_status st = SAF_OK;
    saf__words given = {0};
    SAF_TRY(saf__launch_words(q, &given));
    if (given.n == 0 || given.items[0][0] == '-') SAF_TRY(add_defaults(q, &given, out));
    for (int32_t i = 0; i < given.n; i++) SAF_TRY(saf__words_add(out, given.items[i]));
    SAF_TRY(add_count(q, ranks, &given, out));
    if (hostfile) {
        SAF_TRY(saf__words_add(out, "--hostfile"));
        SAF_TRY(saf__words_add(out, hostfile));
    }
    SAF_TRY(add_program(out));
    SAF_TRY(saf__words_add(out, "run"));
    for (int32_t i = 0; i < q->n_run; i++)
        if (!again || strcmp(q->run[i], "--fresh") != 0) SAF_TRY(saf__words_add(out, q->run[i]));
out:
    saf__words_free(&given);
    return st;
}
