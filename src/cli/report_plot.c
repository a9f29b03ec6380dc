/* The curve of a training as a picture, drawn by gnuplot. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/report.h"
#include "saf/core_signals.h"

extern char **environ;

/* Nothing of the file but numbers comes into it: a program's input from a file that anybody may
 * have made. */
static void write_script(FILE *out, const saf_result_training *t) {
    bool held = t->n_evaluations > 0;
    fprintf(out, "set terminal svg size 900,540 font 'sans-serif,14' background rgb 'white'\n");
    fprintf(out, "set title '%lld parameters, %lld steps'\n", (long long)t->parameters,
            (long long)t->steps);
    fprintf(out,
            "set xlabel 'step'\nset ylabel 'loss, nats per token'\nset grid\nset key top right\n");
    fprintf(out, "$learnt << END\n");
    for (int64_t i = 0; i < t->n_curve; i++)
        if (isfinite(t->curve[i].loss))
            fprintf(out, "%lld %.6g\n", (long long)t->curve[i].step, t->curve[i].loss);
    fprintf(out, "END\n$held << END\n");
    for (int64_t i = 0; i < t->n_evaluations; i++)
        if (isfinite(t->evaluations[i].loss))
            fprintf(out, "%lld %.6g\n", (long long)t->evaluations[i].step, t->evaluations[i].loss);
    fprintf(out,
            "END\nplot $learnt using 1:2 with lines lw 1 lc rgb '#7aa6d6' title 'learnt text'%s",
            held ? ", $held using 1:2 with linespoints lw 2 pt 7 ps 0.5 lc rgb '#c0392b' title "
                   "'held-out text'\n"
                 : "\n");
}

/* gnuplot, reading from and writing to these files; *code: as waitpid has it. Errors: FAILED. */
static saf_status run_gnuplot(int from, int to, int *code) {
    char name[] = "gnuplot";
    char *const argv[] = {name, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t mask;
    pid_t child = -1;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return saf_fail(SAF_NO_MEMORY, "no memory to start gnuplot");
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return saf_fail(SAF_NO_MEMORY, "no memory to start gnuplot");
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    saf_signals_for_child(&mask);
    int error = posix_spawn_file_actions_adddup2(&actions, from, STDIN_FILENO);
    if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, to, STDOUT_FILENO);
    if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &mask);
    if (error == 0) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (error == 0) error = posix_spawnp(&child, name, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        return saf_fail(SAF_FAILED, "cannot start gnuplot, which draws the picture: %s%s",
                        strerror(error),
                        error == ENOENT ? " (Debian's package gnuplot-nox has it)" : "");
    while (waitpid(child, code, 0) < 0)
        if (errno != EINTR) return saf_fail(SAF_FAILED, "gnuplot is lost: %s", strerror(errno));
    return SAF_OK;
}

static saf_status draw(FILE *script, const char *part, int to) {
    saf_status st = SAF_OK;
    int code = 0;
    if (fflush(script) != 0 || ferror(script) || lseek(fileno(script), 0, SEEK_SET) != 0)
        return saf_fail(SAF_IO, "cannot write what gnuplot is to draw: %s", strerror(errno));
    SAF_TRY(run_gnuplot(fileno(script), to, &code));
    if (!WIFEXITED(code) || WEXITSTATUS(code) != 0)
        return saf_fail(SAF_FAILED, "gnuplot failed (%s %d) and %s is not written",
                        WIFEXITED(code) ? "exit code" : "signal",
                        WIFEXITED(code) ? WEXITSTATUS(code) : WTERMSIG(code), part);
    if (fsync(to) != 0 && errno != EINVAL)
        st = saf_fail(SAF_IO, "cannot write %s: %s", part, strerror(errno));
out:
    return st;
}

saf_status saf__report_plot(const char *picture, const char *path, const saf_results *r) {
    saf_status st = SAF_OK;
    saf_buf part = {0};
    FILE *script = NULL;
    int to = -1;
    if (!r->training.there || r->training.n_curve == 0)
        return saf_fail(SAF_BAD_INPUT, "%s has no curve to draw: it is of no train job", path);
    if (saf_file_is_same(picture, path))
        return saf_fail(SAF_USAGE, "%s would be replaced by its picture: expected another name",
                        path);
    SAF_TRY(saf_buf_printf(&part, "%s.part", picture));
    script = tmpfile();
    if (!script) SAF_TRY(saf_fail(SAF_IO, "no temporary file for gnuplot: %s", strerror(errno)));
    to = open(part.data, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (to < 0) SAF_TRY(saf_fail(SAF_CANNOT_CREATE, "%s: %s", part.data, strerror(errno)));
    write_script(script, &r->training);
    st = draw(script, part.data, to);
    if (st == SAF_OK && rename(part.data, picture) != 0)
        st = saf_fail(SAF_IO, "cannot name %s: %s", picture, strerror(errno));
    if (st != SAF_OK) unlink(part.data);
out:
    if (to >= 0) close(to);
    if (script) fclose(script);
    saf_buf_free(&part);
    return st;
}
