/* Which hosts of a hostfile answer, by the means that mpirun itself has to start a command there.
 */
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/launch.h"

enum { ASKED_AT_ONCE = 64, NAMES_SHOWN = 8 };
static const double answer_s = 10; /* ssh gives a connection up after 5 */

/* ---- the agent ----------------------------------------------------------------------------- */

static bool is_program(const char *path) {
    return access(path, X_OK) == 0;
}

static bool is_in_path(const char *name) {
    saf_buf path = {0};
    bool found = false;
    const char *folders = getenv("PATH");
    if (strchr(name, '/')) return is_program(name);
    while (folders && *folders && !found) {
        size_t len = strcspn(folders, ":");
        saf_buf_clear(&path);
        found = saf_buf_append(&path, folders, len) == SAF_OK &&
                saf_buf_printf(&path, "/%s", name) == SAF_OK && is_program(path.data);
        folders += len + (folders[len] == ':');
    }
    saf_buf_free(&path);
    return found;
}

/* Of alternatives parted by colons, the first that is there; none leaves *out empty. */
static saf_status choose_agent(const char *alternatives, saf__words *out) {
    saf_status st = SAF_OK;
    saf_buf one = {0};
    for (const char *at = alternatives; *at;) {
        size_t len = strcspn(at, ":");
        saf_buf_clear(&one);
        SAF_TRY(saf_buf_append(&one, at, len));
        SAF_TRY(saf__words_split(out, one.data));
        if (out->n > 0 && is_in_path(out->items[0])) break;
        saf__words_free(out);
        at += len + (at[len] == ':');
    }
out:
    saf_buf_free(&one);
    return st;
}

static saf_status find_agent(const saf__words *words, saf__words *out) {
    static const char *const names[] = {"plm_rsh_agent", "orte_rsh_agent", "pls_rsh_agent"};
    static const char *const variables[] = {"OMPI_MCA_plm_rsh_agent", "OMPI_MCA_orte_rsh_agent",
                                            "OMPI_MCA_pls_rsh_agent"};
    saf_status st = SAF_OK;
    const char *agent = NULL;
    for (size_t i = 0; !agent && i < 3; i++) agent = saf__launch_mca(words, names[i]);
    for (size_t i = 0; !agent && i < 3; i++) agent = getenv(variables[i]);
    /* Slurm's mpirun starts ranks by srun, and Slurm ends jobs whose nodes are lost. */
    if (!agent && getenv("SLURM_JOB_ID")) return SAF_OK;
    SAF_TRY(choose_agent(agent ? agent : "ssh:rsh", out));
    if (out->n == 0) return SAF_OK;
    const char *slash = strrchr(out->items[0], '/');
    if (strcmp(slash ? slash + 1 : out->items[0], "ssh") != 0) return SAF_OK;
    SAF_TRY(saf__words_add(out, "-o"));
    SAF_TRY(saf__words_add(out, "BatchMode=yes"));
    SAF_TRY(saf__words_add(out, "-o"));
    SAF_TRY(saf__words_add(out, "ConnectTimeout=5"));
out:
    return st;
}

/* ---- this host ----------------------------------------------------------------------------- */

static bool same_address(const struct sockaddr *a, const struct sockaddr *b) {
    if (!a || !b || a->sa_family != b->sa_family) return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    if (a->sa_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                      &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                      sizeof(struct in6_addr)) == 0;
    return false;
}

/* Whether mpirun takes a name for its own host, which it reaches without an agent. */
static bool is_this_host(const char *name, const struct ifaddrs *own) {
    char me[SAF_HOST_NAME_MAX + 1] = "";
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM};
    bool local = false;
    const char *at = strchr(name, '@');
    if (at) name = at + 1;
    if (strcmp(name, "localhost") == 0) return true;
    if (gethostname(me, sizeof me - 1) == 0 && strcmp(name, me) == 0) return true;
    if (getaddrinfo(name, NULL, &hints, &found) != 0) return false;
    for (const struct addrinfo *a = found; a && !local; a = a->ai_next)
        for (const struct ifaddrs *i = own; i && !local; i = i->ifa_next)
            local = same_address(a->ai_addr, i->ifa_addr);
    freeaddrinfo(found);
    return local;
}

static void find_local(saf__hosts *h) {
    struct ifaddrs *own = NULL;
    if (getifaddrs(&own) != 0) own = NULL;
    for (int32_t i = 0, next = 0; i < h->file.n; i++)
        if (h->file.lines[i].host == next)
            h->is_local[next++] = is_this_host(h->file.lines[i].name, own);
    if (own) freeifaddrs(own);
}

saf_status saf__hosts_open(const char *path, const saf__words *words, saf__hosts *out) {
    saf_status st = SAF_OK;
    saf__hosts h = {0};
    SAF_TRY(saf_hostfile_read(path, &h.file));
    SAF_TRY(saf_alloc((size_t)h.file.n_hosts, sizeof *h.is_local, &h.is_local));
    SAF_TRY(saf_alloc((size_t)h.file.n_hosts, sizeof *h.answers, &h.answers));
    SAF_TRY(find_agent(words, &h.agent));
    if (h.agent.n > 0) find_local(&h);
    memset(h.answers, true, (size_t)h.file.n_hosts * sizeof *h.answers);
    h.n_answer = h.file.n_hosts;
    *out = h;
    return SAF_OK;
out:
    saf__hosts_free(&h);
    return st;
}

void saf__hosts_free(saf__hosts *h) {
    saf_hostfile_free(&h->file);
    saf__words_free(&h->agent);
    saf_free(&h->is_local);
    saf_free(&h->answers);
    *h = (saf__hosts){0};
}

/* ---- asking -------------------------------------------------------------------------------- */

typedef struct {
    pid_t pid;  /* of the agent; 0: not asked (yet), or it has ended */
    double end; /* it has to answer until then */
    bool asked, good;
} question;

static saf_status ask(const saf__hosts *h, const saf__signals *s, const char *name, question *q) {
    saf_status st = SAF_OK;
    saf__words words = {0};
    for (int32_t i = 0; i < h->agent.n; i++) SAF_TRY(saf__words_add(&words, h->agent.items[i]));
    SAF_TRY(saf__words_add(&words, name));
    SAF_TRY(saf__words_add(&words, "true"));
    SAF_TRY(saf__process_start(s, words.items, SIGKILL, true, &q->pid));
    q->end = saf_clock_s() + answer_s;
out:
    saf__words_free(&words);
    return st;
}

/* Whether it is still under way. */
static bool look(question *q, bool give_up) {
    siginfo_t ended = {0};
    int status = 0;
    if (q->pid == 0) return false;
    if (give_up || saf_clock_s() > q->end) (void)kill(-q->pid, SIGKILL);
    int options = WEXITED | WNOWAIT | (give_up ? 0 : WNOHANG);
    if (waitid(P_PID, (id_t)q->pid, &ended, options) == 0 && ended.si_pid == 0) return true;
    (void)kill(-q->pid, SIGKILL); /* whom the agent has left behind */
    q->good = waitpid(q->pid, &status, 0) == q->pid && saf__process_code(status) == 0 && !give_up;
    q->pid = 0;
    return false;
}

/* names[host] for each; questions[host] zeroed. */
static saf_status ask_all(const saf__hosts *h, saf__signals *s, const char *const *names,
                          question *questions) {
    saf_status st = SAF_OK;
    for (;;) {
        int under_way = 0;
        bool all = true;
        for (int32_t i = 0; i < h->file.n_hosts; i++) under_way += look(&questions[i], s->asked);
        if (s->asked) break;
        for (int32_t i = 0; i < h->file.n_hosts; i++) {
            question *q = &questions[i];
            if (q->asked) continue;
            q->asked = h->is_local[i] || under_way < ASKED_AT_ONCE;
            all &= q->asked;
            q->good = h->is_local[i];
            if (!q->asked || h->is_local[i]) continue;
            SAF_TRY(ask(h, s, names[i], q));
            under_way++;
        }
        if (all && under_way == 0) break;
        saf__signals_wait(s, 0.1);
    }
out:
    if (st != SAF_OK || s->asked)
        for (int32_t i = 0; i < h->file.n_hosts; i++) (void)look(&questions[i], true);
    return st;
}

/* "h3 and 2 others" of the hosts where one answer was `before` and the other is not. */
static saf_status say_changes(const saf__hosts *h, const char *const *names,
                              const question *questions) {
    saf_status st = SAF_OK;
    saf_buf away = {0}, back = {0};
    int32_t n_away = 0, n_back = 0;
    for (int32_t i = 0; i < h->file.n_hosts; i++) {
        bool gone = !questions[i].good, returned = questions[i].good && !h->answers[i];
        saf_buf *list = gone ? &away : &back;
        int32_t *n = gone ? &n_away : &n_back;
        if (!gone && !returned) continue;
        if ((*n)++ < NAMES_SHOWN)
            SAF_TRY(saf_buf_printf(list, "%s%s", list->len ? ", " : "", names[i]));
    }
    if (n_back > 0)
        saf_log(SAF_LOG_WARNING, "%s%s answer%s again", back.data,
                n_back > NAMES_SHOWN ? ", ..." : "", n_back == 1 ? "s" : "");
    if (n_away > 0)
        saf_log(SAF_LOG_WARNING, "%s%s: no answer; %d of %d hosts are left out", away.data,
                n_away > NAMES_SHOWN ? ", ..." : "", (int)n_away, (int)h->file.n_hosts);
out:
    saf_buf_free(&away);
    saf_buf_free(&back);
    return st;
}

saf_status saf__hosts_ask(saf__hosts *h, saf__signals *s) {
    saf_status st = SAF_OK;
    question *questions = NULL;
    const char **names = NULL;
    if (h->agent.n == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)h->file.n_hosts, sizeof *questions, &questions));
    SAF_TRY(saf_alloc((size_t)h->file.n_hosts, sizeof *names, (void *)&names));
    for (int32_t i = h->file.n - 1; i >= 0; i--)
        names[h->file.lines[i].host] = h->file.lines[i].name;
    SAF_TRY(ask_all(h, s, names, questions));
    if (s->asked) goto out;
    SAF_TRY(say_changes(h, names, questions));
    h->n_answer = 0;
    for (int32_t i = 0; i < h->file.n_hosts; i++) {
        h->answers[i] = questions[i].good;
        h->n_answer += questions[i].good;
    }
out:
    saf_free(&questions);
    saf_free((void *)&names);
    return st;
}

/* ---- the hostfile of those that answer ------------------------------------------------------ */

saf_status saf__hosts_write(const saf__hosts *h, char **path) {
    saf_status st = SAF_OK;
    saf_buf text = {0}, name = {0};
    const char *folder = getenv("TMPDIR");
    int fd = -1;
    SAF_TRY(saf_hostfile_write(&h->file, h->answers, &text));
    SAF_TRY(saf_buf_printf(&name, "%s/saf-hosts-XXXXXX", folder && *folder ? folder : "/tmp"));
    fd = mkostemp(name.data, O_CLOEXEC);
    if (fd < 0) {
        st = saf_fail(SAF_CANNOT_CREATE, "%s: %s", name.data, strerror(errno));
        goto out;
    }
    ssize_t written = write(fd, text.data, text.len);
    if (written != (ssize_t)text.len)
        st = saf_fail(SAF_IO, "%s: %s", name.data, written < 0 ? strerror(errno) : "no room");
    if (close(fd) != 0 && st == SAF_OK) st = saf_fail(SAF_IO, "%s: %s", name.data, strerror(errno));
    if (st == SAF_OK) st = saf_strdup(name.data, path);
    if (st != SAF_OK) (void)unlink(name.data);
out:
    saf_buf_free(&text);
    saf_buf_free(&name);
    return st;
}
