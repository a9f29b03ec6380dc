/* Memory that is counted, files to read from, promises that are checked. */
#include "fuzz.h"

#include <fcntl.h>
#include <sanitizer/allocator_interface.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- memory ---------------------------------------------------------------------------------- */

enum { MEMORY_FIXED = 64 << 20, MEMORY_TIMES = 4 };

static bool counting;
static size_t held, allowed;

/* Of processor time, which another program on this machine does not make longer. */
enum { SECONDS_MAX = 1 };

static void set_timer(time_t seconds) {
    const struct itimerval timer = {.it_value.tv_sec = seconds};
    FUZZ_CHECK(setitimer(ITIMER_PROF, &timer, NULL) == 0);
}

static void on_timer(int signal) {
    static const char text[] = "fuzz: one input took a second\n";
    (void)signal;
    counting = false;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    abort();
}

void fuzz_begin(size_t file_bytes) {
    set_timer(SECONDS_MAX);
    held = 0;
    allowed = MEMORY_FIXED + MEMORY_TIMES * file_bytes;
    counting = true;
}

void fuzz_end(void) {
    counting = false;
    set_timer(0);
}

static void take(size_t bytes) {
    if (!counting) return;
    held += bytes;
    if (held <= allowed) return;
    counting = false;
    (void)fprintf(stderr,
                  "fuzz: %zu bytes are held, of which %zu were just asked for; allowed are %zu\n",
                  held, bytes, allowed);
    abort();
}

static void give_back(size_t bytes) {
    if (counting) held -= bytes < held ? bytes : held;
}

static void on_malloc(const volatile void *at, size_t bytes) {
    (void)at;
    take(bytes);
}

static void on_free(const volatile void *at) {
    if (at && counting) give_back(__sanitizer_get_allocated_size((const void *)(uintptr_t)at));
}

/* The linker puts these in place of the calls in saf (--wrap). */
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    take(bytes);
    return __real_mmap(at, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t bytes) {
    give_back(bytes);
    return __real_munmap(at, bytes);
}

/* That there is so much memory: the sanitizer has a shadow of it to clear each time, which takes
 * longer than all that targets do with HDF5. */
saf_status __wrap_saf_memory_spare(size_t bytes, const char *what_for);
saf_status __wrap_saf_memory_spare(size_t bytes, const char *what_for) {
    (void)what_for;
    take(bytes);
    give_back(bytes);
    return SAF_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

enum { FILES_MAX = 8 };

static char folder[256];
static bool folder_is_own;
static struct {
    char name[64], path[384];
    int fd;
} files[FILES_MAX];
static int n_files;

static void remove_files(void) {
    for (int i = 0; i < n_files; i++) (void)unlink(files[i].path);
    if (folder_is_own) (void)rmdir(folder);
}

static void make_folder(void) {
    const char *given = getenv("SAF_FUZZ_FOLDER");
    if (given && strlen(given) < sizeof folder) {
        memcpy(folder, given, strlen(given) + 1);
    } else {
        memcpy(folder, "/dev/shm/saf-fuzz-XXXXXX", sizeof "/dev/shm/saf-fuzz-XXXXXX");
        FUZZ_CHECK(mkdtemp(folder));
        folder_is_own = true;
    }
    FUZZ_CHECK(atexit(remove_files) == 0);
}

static int open_file(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0);
    return fd;
}

static int file_of(const char *name) {
    int i = 0;
    while (i < n_files && strcmp(files[i].name, name) != 0) i++;
    if (i < n_files) return i;
    FUZZ_CHECK(n_files < FILES_MAX && strlen(name) < sizeof files[0].name);
    memcpy(files[i].name, name, strlen(name) + 1);
    (void)snprintf(files[i].path, sizeof files[i].path, "%s/%s", folder, name);
    files[i].fd = open_file(files[i].path);
    return n_files++;
}

const char *fuzz_file(const char *name, const void *bytes, size_t len) {
    int i = file_of(name);
    struct stat s;
    FUZZ_CHECK(fstat(files[i].fd, &s) == 0);
    if (s.st_nlink == 0) { /* the target has put another file in its place, or removed it */
        close(files[i].fd);
        files[i].fd = open_file(files[i].path);
    }
    FUZZ_CHECK(ftruncate(files[i].fd, 0) == 0);
    FUZZ_CHECK(pwrite(files[i].fd, bytes, len, 0) == (ssize_t)len);
    return files[i].path;
}

/* ---- promises -------------------------------------------------------------------------------- */

_Noreturn void fuzz_broken(const char *file, int line, const char *what) {
    counting = false;
    (void)fprintf(stderr, "fuzz: %s:%d: not so: %s (last message: %s)\n", file, line, what,
                  saf_error_text());
    abort();
}

/* Whole characters, none of which moves a terminal's cursor. */
static bool is_shown(const char *text) {
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t c;
        int n = saf_utf8_decode(text + i, len - i, &c);
        if (n == 0 || c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;
        i += (size_t)n;
    }
    return len > 0;
}

bool fuzz_accepted(saf_status st, saf_status refused) {
    if (st == SAF_OK) return true;
    FUZZ_CHECK(st == refused);
    FUZZ_CHECK(is_shown(saf_error_text()));
    return false;
}

uint32_t fuzz_below(fuzz_random *r, uint32_t n) {
    r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return n ? (uint32_t)(r->state >> 33) % n : 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    make_folder();
    FUZZ_CHECK(signal(SIGPROF, on_timer) != SIG_ERR);
    return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) ? 0 : 1;
}

/* libconfig 1.5 loses the string it was reading when it meets a syntax error. The unwinder does not
 * always see strbuf_append, whose place the scanner takes for an empty string. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:strbuf_append\nleak:libconfig_yylex\n";
}
