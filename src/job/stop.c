/* When a job is to stop in order: it was asked to, or its time is over. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "job/caches.h"
#include "job/saver.h"
#include "saf/core_signals.h"

extern char **environ;

/* ---- limits in words ---- */

/* A number of at most nine digits; *text moves on. */
static bool take_number(const char **text, double *out) {
    const char *p = *text;
    *out = 0;
    while (*p >= '0' && *p <= '9' && p - *text < 9) *out = 10 * *out + (*p++ - '0');
    bool any = p > *text;
    *text = p;
    return any;
}

/* As Slurm reads its own: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS. */
bool saf__time_limit_read(const char *text, double *seconds) {
    static const double units[2][3] = {{60, 1, 0}, {3600, 60, 1}};
    double part[3] = {0}, days = 0;
    int n = 0;
    bool dash = false;
    if (!take_number(&text, &part[n++])) return false;
    if (strcmp(text, "s") == 0) {
        *seconds = part[0];
        return *seconds > 0;
    }
    if (*text == '-') {
        dash = true;
        days = part[0];
        text++;
        if (!take_number(&text, &part[0])) return false;
    }
    while (*text == ':' && n < 3) {
        text++;
        if (!take_number(&text, &part[n++])) return false;
    }
    if (*text) return false;
    const double *unit = units[dash || n == 3];
    *seconds = 86400 * days + unit[0] * part[0] + unit[1] * part[1] + unit[2] * part[2];
    return *seconds > 0;
}

/* ---- Slurm's ---- */

/* What a command prints first, of at most len - 1 bytes, within so many seconds. */
static bool first_words(char *const argv[], double within_s, char *out, size_t len) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t mask;
    int ends[2] = {-1, -1}, status = -1;
    pid_t child = -1;
    size_t n = 0;
    double until = saf_clock_s() + within_s;
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    saf_signals_for_child(&mask);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawnattr_setsigmask(&attributes, &mask);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (posix_spawnp(&child, argv[0], &actions, &attributes, argv, environ) != 0) child = -1;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    while (child > 0 && n < len - 1) {
        struct pollfd p = {.fd = ends[0], .events = POLLIN};
        double left = until - saf_clock_s();
        if (left <= 0 || poll(&p, 1, (int)(left * 1000) + 1) <= 0) break;
        ssize_t got = read(ends[0], out + n, len - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(ends[0]);
    if (child > 0) {
        kill(child, SIGKILL); /* it has said what it had to say, or takes too long */
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    out[n] = 0;
    out[strcspn(out, " \n")] = 0;
    return n > 0;
}

/* Until the allocation ends; 0: it does not. */
static bool slurm_left(double *seconds) {
    const char *end = getenv("SLURM_JOB_END_TIME"), *id = getenv("SLURM_JOB_ID");
    char said[64], job[64];
    int n;
    struct tm local = {.tm_isdst = -1};
    char *rest = NULL;
    if (end && *end) {
        long long at = strtoll(end, &rest, 10);
        if (*rest == 0 && at > 0) {
            *seconds = (double)(at - (long long)time(NULL));
            return true;
        }
    }
    n = id ? snprintf(job, sizeof job, "%s", id) : -1;
    if (n <= 0 || (size_t)n >= sizeof job) return false;
    char squeue[] = "squeue", no_header[] = "-h", of[] = "-j", form[] = "-o", ends_at[] = "%e";
    char *const argv[] = {squeue, no_header, of, job, form, ends_at, NULL};
    bool answered = first_words(argv, 5, said, sizeof said);
    /* Once more: a controller that is busy may not answer the first time. */
    if (!answered) answered = first_words(argv, 5, said, sizeof said);
    if (!answered) return false;
    *seconds = 0;
    if (strcmp(said, "NONE") == 0 || strcmp(said, "N/A") == 0 || strcmp(said, "Unknown") == 0)
        return true;
    const char *after = strptime(said, "%Y-%m-%dT%H:%M:%S", &local);
    if (!after || *after) return false;
    *seconds = difftime(mktime(&local), time(NULL));
    return true;
}

void saf__stop_limit(const saf_job *job, double start_s, saf__stop *stop) {
    const char *limit = job->run.time_limit;
    double seconds = 0;
    bool slurm = !limit || !*limit || strcmp(limit, "slurm") == 0;
    if (!slurm) {
        if (strcmp(limit, "none") == 0 || !saf__time_limit_read(limit, &seconds)) return;
        stop->at_s = start_s + seconds;
        stop->limit_s = seconds;
        return;
    }
    if (!getenv("SLURM_JOB_ID")) {
        if (limit && *limit)
            saf_log(SAF_LOG_WARNING, "run.time_limit is slurm, but this is no job of Slurm's");
        return;
    }
    if (!slurm_left(&seconds)) {
        saf_log(SAF_LOG_WARNING, "Slurm does not tell when the job's time is over: no limit");
        return;
    }
    if (seconds == 0) return;
    stop->at_s = saf_clock_s() + seconds;
    stop->limit_s = stop->at_s - start_s;
}

/* ---- asking ---- */

/* What is left at least when a job stops: room for the last steps, the checkpoint and the caches,
 * and ten seconds more, or a tenth of a short limit. */
static double margin_s(saf__session *s) {
    double spare = s->stop.limit_s / 10 < 10 ? s->stop.limit_s / 10 : 10;
    return spare + 3 * saf__saver_took_s(s) + 2 * s->stop.longest_s + saf__caches_take_s(s);
}

bool saf__stop_wanted(void *ctx) {
    saf__session *s = ctx;
    double now = saf_clock_s();
    if (s->stop.asked_s > 0 && now - s->stop.asked_s > s->stop.longest_s)
        s->stop.longest_s = now - s->stop.asked_s;
    s->stop.asked_s = now;
    if (saf_signals_stop_asked()) return true;
    return s->stop.at_s > 0 && s->stop.at_s - now < margin_s(s);
}
