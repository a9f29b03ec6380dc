/* Children and signals of `saf launch`. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/launch.h"

/* Seconds. mpirun takes two to end its ranks; a request by USR1 that comes before mpirun has ranks
 * to hand it to is lost, so it is made again. */
static const double repeat_s = 5, patience_s = 20, lost_s = 30, orphans_s = 3;

/* ---- signals ------------------------------------------------------------------------------- */

saf_status saf__signals_begin(saf__signals *s) {
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    *s = (saf__signals){0};
    sigemptyset(&s->taken);
    sigaddset(&s->taken, SIGCHLD);
    sigaddset(&s->taken, SIGUSR1);
    /* what the caller ignores (nohup, a shell's background) stays ignored */
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        struct sigaction now;
        if (sigaction(stops[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&s->taken, stops[i]);
    }
    if (sigprocmask(SIG_BLOCK, &s->taken, &s->before) != 0)
        return saf_fail(SAF_FAILED, "cannot hold signals back: %s", strerror(errno));
    sigdelset(&s->before, SIGUSR1);
    /* Held back, these are taken all the same. Children inherit that USR1 is ignored, of which
     * mpirun would die until it has its own handler. */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    /* ranks whose mpirun is gone become children of this process */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    return SAF_OK;
}

/* The next signal within these seconds; 0: none. Notes what asks to stop. */
static int take(saf__signals *s, double seconds) {
    if (seconds < 0) seconds = 0;
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    int number = sigtimedwait(&s->taken, NULL, &t);
    if (number <= 0 || number == SIGCHLD) return number < 0 ? 0 : number;
    if (number == SIGINT && s->asked == SIGINT) s->at_once = true;
    /* USR1 lets the job end in order; what does not wait for that counts more */
    if (s->asked == 0 || s->asked == SIGUSR1) s->asked = number;
    return number;
}

void saf__signals_wait(saf__signals *s, double seconds) {
    (void)take(s, seconds);
}

/* ---- starting ------------------------------------------------------------------------------ */

/* In the child; comes back only with an error. */
static int become(const saf__signals *s, char *const *words, int orphaned, bool silent,
                  pid_t parent) {
    if (setpgid(0, 0) != 0) return errno;
    if (prctl(PR_SET_PDEATHSIG, orphaned, 0, 0, 0) != 0) return errno;
    if (getppid() != parent) return ESRCH;
    if (silent) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0) return errno;
    }
    if (sigprocmask(SIG_SETMASK, &s->before, NULL) != 0) return errno;
    execvp(words[0], words);
    return errno;
}

saf_status saf__process_start(const saf__signals *s, char *const *words, int orphaned, bool silent,
                              pid_t *out) {
    saf_status st = SAF_OK;
    int ends[2] = {-1, -1}, error = 0;
    pid_t parent = getpid(), pid = -1;
    if (pipe2(ends, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        st = saf_fail(SAF_FAILED, "cannot start %s: %s", words[0], strerror(errno));
        goto out;
    }
    if (pid == 0) {
        error = become(s, words, orphaned, silent, parent);
        _exit(write(ends[1], &error, sizeof error) == (ssize_t)sizeof error ? 127 : 126);
    }
    (void)setpgid(pid, pid); /* whoever is first: it is to be there when this returns */
    close(ends[1]);
    ends[1] = -1;
    if (read(ends[0], &error, sizeof error) == (ssize_t)sizeof error) {
        (void)waitpid(pid, NULL, 0);
        st = saf_fail(SAF_FAILED, "cannot start %s: %s", words[0], strerror(error));
        goto out;
    }
    *out = pid;
out:
    if (ends[0] >= 0) close(ends[0]);
    if (ends[1] >= 0) close(ends[1]);
    return st;
}

int saf__process_code(int status) {
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 1;
}

/* ---- ranks of this host ---------------------------------------------------------------------- */

static bool runs_saf(pid_t pid) {
    char path[64];
    struct stat mine, its;
    snprintf(path, sizeof path, "/proc/%ld/exe", (long)pid);
    return stat("/proc/self/exe", &mine) == 0 && stat(path, &its) == 0 &&
           mine.st_dev == its.st_dev && mine.st_ino == its.st_ino;
}

/* Of the children that one thread of a process has started: those that run saf get the signal. */
static int signal_children(const char *list, int number) {
    int found = 0;
    long pid = 0;
    FILE *f = fopen(list, "re");
    if (!f) return 0;
    while (fscanf(f, "%ld", &pid) == 1) {
        if (pid <= 1 || !runs_saf((pid_t)pid)) continue;
        found++;
        if (number) (void)kill((pid_t)pid, number);
    }
    fclose(f);
    return found;
}

/* How many ranks are children of this process; each gets the signal, unless that is 0. */
static int ranks_below(pid_t parent, int number) {
    char path[64];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)parent);
    DIR *threads = opendir(path);
    if (!threads) return 0;
    for (struct dirent *entry; (entry = readdir(threads));) {
        char list[sizeof path + sizeof entry->d_name + 16];
        if (entry->d_name[0] == '.') continue;
        snprintf(list, sizeof list, "%s/%s/children", path, entry->d_name);
        found += signal_children(list, number);
    }
    closedir(threads);
    return found;
}

/* A launcher that was killed leaves ranks behind for a moment, and stopped ones for ever. None may
 * write to files that the next ones write to. */
static void end_orphans(saf__signals *s) {
    double end = saf_clock_s() + orphans_s;
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
        bool late = saf_clock_s() > end;
        if (ranks_below(getpid(), late ? SIGKILL : 0) == 0) break;
        if (saf_clock_s() > end + orphans_s) break; /* in a system call that does not come back */
        (void)take(s, 0.05);
    }
}

/* ---- waiting ------------------------------------------------------------------------------- */

typedef struct {
    pid_t pid;
    double repeat_at, kill_at; /* 0: never */
    int told;                  /* what it was told last */
    double ranks_seen;         /* when it last had ranks on this host; 0: never */
} launcher;

/* Hands a request to stop on. Of those that end it without delay it gets one: of a second, mpirun
 * ends at once and leaves ranks behind. */
static void hand_on(const saf__signals *s, launcher *l) {
    double now = saf_clock_s();
    if (s->at_once || (l->kill_at > 0 && now > l->kill_at)) {
        (void)kill(-l->pid, SIGKILL);
        l->kill_at = now + 1;
    } else if (s->asked && s->asked != l->told) {
        (void)kill(l->pid, s->asked);
        l->told = s->asked;
        l->repeat_at = s->asked == SIGUSR1 ? now + repeat_s : 0;
        if (s->asked != SIGUSR1) l->kill_at = now + patience_s;
    } else if (l->repeat_at > 0 && now > l->repeat_at) {
        (void)kill(l->pid, SIGUSR1);
        l->repeat_at = now + repeat_s;
    }
}

/* Where a host is out of reach, all ranks end by themselves, but mpirun waits for its daemon there
 * until the system gives the connection up, which takes a quarter of an hour. */
static void look_after(launcher *l) {
    double now = saf_clock_s();
    if (ranks_below(l->pid, 0) > 0) l->ranks_seen = now;
    if (l->ranks_seen == 0 || now - l->ranks_seen < lost_s || l->kill_at > 0) return;
    saf_log(SAF_LOG_WARNING,
            "mpirun has had no rank on this host for %.0f s and does not end: another host may be "
            "out of reach; mpirun is ended",
            lost_s);
    l->kill_at = now;
}

int saf__process_wait(saf__signals *s, pid_t pid) {
    launcher l = {.pid = pid};
    int status = 0;
    double look_at = 0;
    for (;;) {
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended == pid) break;
        if (ended > 0) continue;
        if (ended < 0 && errno == ECHILD) {
            status = 0x100; /* cannot be: somebody else has waited for it */
            break;
        }
        hand_on(s, &l);
        if (saf_clock_s() >= look_at) {
            look_after(&l);
            look_at = saf_clock_s() + 1;
        }
        (void)take(s, 0.5);
    }
    end_orphans(s);
    return saf__process_code(status);
}
