/* inject.so, preloaded into saf, makes the k-th call of one kind fail. In the environment:
 *
 *   SAF_INJECT_KIND     one of KINDS below
 *   SAF_INJECT_K        which call fails, from 1; 0 or unset: none, calls are only counted
 *   SAF_INJECT_ERROR    EIO ENOSPC ENOMEM EMFILE EINTR; SHORT: half the bytes are read or written
 *   SAF_INJECT_STICKY   1: all from the k-th on fail, as on a disk that stays full
 *   SAF_INJECT_STOP     KIND K: that call also sends the process USR1, which asks a job to stop
 *   SAF_INJECT_FILE     of reads, only those from a file with this in its path count
 *   SAF_INJECT_REPORT   a file that gets "hit KIND K MODULE+0xOFFSET ..." (the stack) when a call
 *                       fails, and "count KIND N" for every kind at the end of main or at _exit
 *
 * Only calls made on saf's behalf count: those whose return address lies in the program itself or
 * in a library that does saf's files for it (HDF5, libconfig, cJSON, PCRE2). Who calls, and not
 * what is called, is the question because the same malloc serves everybody: the C library, the
 * dynamic linker, OpenBLAS, hwloc and MPI would be made to fail before saf has run at all, in code
 * that nobody here can mend, and k would count their calls, which differ from machine to machine.
 * What a library does inside of libc (fopen calling open) has its return address there, so that one
 * call of saf's counts once. Addresses are looked up at start: saf loads none of these libraries
 * later.
 *
 * Memory that HDF5 and libconfig ask for is a kind by itself, "library": as Debian ships them
 * (1.10.8, 1.5) they crash at every other such call that fails, which their caller cannot mend. saf
 * makes sure before it calls them that there is memory (saf_memory_spare); all that can be asked of
 * the rest is that no result is wrong or lost.
 *
 * Nothing fails after main has returned: what runs there (a coverage build writes its counts) is
 * not saf. A call that fails leaves things as a real failure would: a file whose close fails is
 * closed, a file that was not renamed has its old name. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KINDS(X) \
    X(open)      \
    X(read)      \
    X(write)     \
    X(fsync)     \
    X(rename) X(close) X(truncate) X(mmap) X(malloc) X(library) X(stat) X(unlink) X(lock) X(thread)
enum {
#define X(name) KIND_##name,
    KINDS(X)
#undef X
        N_KINDS,
    MAX_RANGES = 64,
    SHORT = -1
};
static const char *const kind_names[] = {
#define X(name) #name,
    KINDS(X)
#undef X
};

static struct {
    uintptr_t begin, end;
    bool fragile;
} ranges[MAX_RANGES];
static int n_ranges, victim = -1, stop_kind = -1, error = EIO;
static long victim_k, stop_k;
static bool sticky;
static const char *report_path, *part_of_path;
static atomic_bool ready;
static atomic_long counts[N_KINDS];

/* ---- who calls ------------------------------------------------------------------------------ */

static int add_ranges(struct dl_phdr_info *info, size_t size, void *data) {
    static const char *const libraries[] = {"libcjson", "libpcre2", "libhdf5", "libconfig"};
    enum { FRAGILE_FROM = 2 };
    (void)size, (void)data;
    const char *slash = strrchr(info->dlpi_name, '/');
    bool wanted = info->dlpi_name[0] == 0; /* the program */
    bool fragile = false;
    for (size_t i = 0; slash && i < sizeof libraries / sizeof libraries[0]; i++) {
        if (strncmp(slash + 1, libraries[i], strlen(libraries[i])) != 0) continue;
        wanted = true;
        fragile = i >= FRAGILE_FROM;
    }
    for (int i = 0; wanted && i < info->dlpi_phnum && n_ranges < MAX_RANGES; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        ranges[n_ranges].begin = (uintptr_t)info->dlpi_addr + p->p_vaddr;
        ranges[n_ranges].end = ranges[n_ranges].begin + p->p_memsz;
        ranges[n_ranges].fragile = fragile;
        n_ranges++;
    }
    return 0;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
    char line[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!report_path || n <= 0) return;
    long fd = syscall(SYS_openat, AT_FDCWD, report_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0) return;
    size_t len = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    if (syscall(SYS_write, fd, line, len) != (long)len) abort();
    syscall(SYS_close, fd);
}

static void say_counts(void) {
    if (!atomic_exchange(&ready, false)) return;
    for (int i = 0; i < N_KINDS; i++) say("count %s %ld\n", kind_names[i], atomic_load(&counts[i]));
}

static void say_hit(long k) {
    enum { DEPTH = 24 };
    void *stack[DEPTH];
    char line[3000];
    int n = backtrace(stack, DEPTH);
    size_t len = 0;
    line[0] = 0;
    for (int i = 2; i < n && len < sizeof line - 200; i++) {
        Dl_info info;
        const char *name = "?";
        uintptr_t at = (uintptr_t)stack[i];
        if (dladdr(stack[i], &info) && info.dli_fname) {
            const char *slash = strrchr(info.dli_fname, '/');
            name = slash ? slash + 1 : info.dli_fname;
            at -= (uintptr_t)info.dli_fbase;
        }
        len += (size_t)snprintf(line + len, sizeof line - len, " %.60s+%#lx", name, (long)at);
    }
    say("hit %s %ld%s\n", kind_names[victim], k, line);
}

/* Counts a call from `address`; whether it is to fail. */
static bool strikes(int kind, const void *address) {
    if (!atomic_load_explicit(&ready, memory_order_acquire)) return false;
    uintptr_t at = (uintptr_t)address;
    int r = 0;
    while (r < n_ranges && (at < ranges[r].begin || at >= ranges[r].end)) r++;
    if (r == n_ranges) return false;
    if (kind == KIND_malloc && ranges[r].fragile) kind = KIND_library;
    long k = atomic_fetch_add(&counts[kind], 1) + 1;
    if (kind == stop_kind && k == stop_k && kill(getpid(), SIGUSR1) != 0) abort();
    if (kind != victim || victim_k == 0) return false;
    if (sticky ? k < victim_k : k != victim_k) return false;
    if (k == victim_k) say_hit(k);
    if (error != SHORT) errno = error;
    return true;
}
#define STRIKES(kind) strikes(KIND_##kind, __builtin_return_address(0))

static int kind_of(const char *name, size_t len) {
    for (int i = 0; i < N_KINDS; i++)
        if (len > 0 && strlen(kind_names[i]) == len && strncmp(name, kind_names[i], len) == 0)
            return i;
    return -1;
}

__attribute__((constructor)) static void start(void) {
    static const struct {
        const char *name;
        int number;
    } errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM},
                  {"EMFILE", EMFILE}, {"EINTR", EINTR},   {"SHORT", SHORT}};
    const char *kind = getenv("SAF_INJECT_KIND"), *k = getenv("SAF_INJECT_K");
    const char *name = getenv("SAF_INJECT_ERROR"), *stays = getenv("SAF_INJECT_STICKY");
    const char *stop = getenv("SAF_INJECT_STOP");
    void *warm[1];
    backtrace(warm, 1); /* loads what it needs now, and not inside of a malloc */
    report_path = getenv("SAF_INJECT_REPORT");
    part_of_path = getenv("SAF_INJECT_FILE");
    victim = kind_of(kind, kind ? strlen(kind) : 0);
    stop_kind = kind_of(stop, stop ? strcspn(stop, " ") : 0);
    stop_k = stop_kind >= 0 ? strtol(stop + strcspn(stop, " "), NULL, 10) : 0;
    for (size_t i = 0; name && i < sizeof errors / sizeof errors[0]; i++)
        if (strcmp(name, errors[i].name) == 0) error = errors[i].number;
    victim_k = k ? strtol(k, NULL, 10) : 0;
    sticky = stays && strcmp(stays, "1") == 0;
    dl_iterate_phdr(add_ranges, NULL);
    atomic_store(&ready, true);
}

/* ---- the end of main ------------------------------------------------------------------------ */

static int (*real_main)(int, char **, char **);

static int main_then_report(int argc, char **argv, char **environment) {
    int code = real_main(argc, argv, environment);
    say_counts();
    return code;
}

/* The next definition of a function, looked up once. */
#define NEXT(name) ((__typeof__(&name))next(#name))
static void *next(const char *name) {
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) abort();
    return f;
}

int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void), void *end);
int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void), void *end) {
    real_main = program;
    return NEXT(__libc_start_main)(main_then_report, argc, argv, init, fini, rtld_fini, end);
}

void _exit(int code) {
    say_counts();
    for (;;) syscall(SYS_exit_group, code);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* By the names that the C library exports for this: dlsym itself allocates. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes) {
    return STRIKES(malloc) ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t count, size_t size) {
    return STRIKES(malloc) ? NULL : __libc_calloc(count, size);
}
void *realloc(void *block, size_t bytes) {
    return STRIKES(malloc) ? NULL : __libc_realloc(block, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
    return STRIKES(malloc) ? NULL : __libc_memalign(alignment, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes) {
    if (STRIKES(malloc)) return ENOMEM;
    void *block = __libc_memalign(alignment, bytes);
    if (block) *out = block;
    return block ? 0 : ENOMEM;
}
static char *copy_text(const char *text) {
    size_t len = strlen(text) + 1;
    char *copy = __libc_malloc(len);
    if (copy) memcpy(copy, text, len);
    return copy;
}
#undef strdup
char *strdup(const char *text) {
    return STRIKES(malloc) ? NULL : copy_text(text);
}
char *__strdup(const char *text);
char *__strdup(const char *text) {
    return STRIKES(malloc) ? NULL : copy_text(text);
}
void *mmap(void *where, size_t len, int protection, int flags, int fd, off_t offset) {
    return STRIKES(mmap) ? MAP_FAILED : NEXT(mmap)(where, len, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t len, int protection, int flags, int fd, off_t offset) {
    return STRIKES(mmap) ? MAP_FAILED : NEXT(mmap)(where, len, protection, flags, fd, offset);
}

/* ---- files ---------------------------------------------------------------------------------- */

static mode_t mode_of(int flags, va_list args) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}
#define OPEN(name)                                                 \
    int name(const char *path, int flags, ...) {                   \
        va_list args;                                              \
        va_start(args, flags);                                     \
        mode_t mode = mode_of(flags, args);                        \
        va_end(args);                                              \
        return STRIKES(open) ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                       \
    int name(int folder, const char *path, int flags, ...) {               \
        va_list args;                                                      \
        va_start(args, flags);                                             \
        mode_t mode = mode_of(flags, args);                                \
        va_end(args);                                                      \
        return STRIKES(open) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
FILE *fopen(const char *path, const char *mode) {
    return STRIKES(open) ? NULL : NEXT(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    return STRIKES(open) ? NULL : NEXT(fopen64)(path, mode);
}
DIR *opendir(const char *path) {
    return STRIKES(open) ? NULL : NEXT(opendir)(path);
}

static bool is_of_file(int fd) {
    char link[32], path[4096];
    if (!part_of_path) return true;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = 0;
    return strstr(path, part_of_path) != NULL;
}
#define STRIKES_READ(fd) (is_of_file(fd) && STRIKES(read))

/* -1, or with SHORT fewer bytes than were asked for. */
static bool shortened(bool struck, size_t *len) {
    if (struck && error == SHORT && *len > 1) *len = (*len + 1) / 2;
    return struck && error != SHORT;
}
ssize_t read(int fd, void *bytes, size_t len) {
    return shortened(STRIKES_READ(fd), &len) ? -1 : NEXT(read)(fd, bytes, len);
}
ssize_t pread(int fd, void *bytes, size_t len, off_t at) {
    return shortened(STRIKES_READ(fd), &len) ? -1 : NEXT(pread)(fd, bytes, len, at);
}
ssize_t pread64(int fd, void *bytes, size_t len, off_t at) {
    return shortened(STRIKES_READ(fd), &len) ? -1 : NEXT(pread)(fd, bytes, len, at);
}
ssize_t write(int fd, const void *bytes, size_t len) {
    return shortened(STRIKES(write), &len) ? -1 : NEXT(write)(fd, bytes, len);
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return shortened(STRIKES(write), &len) ? -1 : NEXT(pwrite)(fd, bytes, len, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) {
    return shortened(STRIKES(write), &len) ? -1 : NEXT(pwrite)(fd, bytes, len, at);
}
int fsync(int fd) {
    return STRIKES(fsync) ? -1 : NEXT(fsync)(fd);
}
int fdatasync(int fd) {
    return STRIKES(fsync) ? -1 : NEXT(fdatasync)(fd);
}
int rename(const char *from, const char *to) {
    return STRIKES(rename) ? -1 : NEXT(rename)(from, to);
}
int close(int fd) {
    bool struck = STRIKES(close);
    int kept = errno, rc = (int)syscall(SYS_close, fd);
    if (struck) errno = kept;
    return struck ? -1 : rc;
}
int fclose(FILE *f) {
    bool struck = STRIKES(close);
    int kept = errno, rc = NEXT(fclose)(f);
    if (struck) errno = kept;
    return struck ? EOF : rc;
}
int ftruncate(int fd, off_t len) {
    return STRIKES(truncate) ? -1 : NEXT(ftruncate)(fd, len);
}
int ftruncate64(int fd, off_t len) {
    return STRIKES(truncate) ? -1 : NEXT(ftruncate)(fd, len);
}
int fallocate(int fd, int mode, off_t at, off_t len) {
    return STRIKES(truncate) ? -1 : NEXT(fallocate)(fd, mode, at, len);
}
int stat(const char *path, struct stat *out) {
    return STRIKES(stat) ? -1 : NEXT(stat)(path, out);
}
int lstat(const char *path, struct stat *out) {
    return STRIKES(stat) ? -1 : NEXT(lstat)(path, out);
}
int fstat(int fd, struct stat *out) {
    return STRIKES(stat) ? -1 : NEXT(fstat)(fd, out);
}
int unlink(const char *path) {
    return STRIKES(unlink) ? -1 : NEXT(unlink)(path);
}
int fcntl(int fd, int command, ...) {
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    return STRIKES(lock) ? -1 : NEXT(fcntl)(fd, command, argument);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
    return STRIKES(thread) ? EAGAIN : NEXT(pthread_create)(thread, attributes, run, argument);
}
