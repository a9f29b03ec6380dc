#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "saf/core.h"

double saf_clock_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void saf_clock_iso8601(char out[32]) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static void (*alive)(void);
static pthread_t alive_thread;

void saf_alive(void) {
    if (alive && pthread_equal(alive_thread, pthread_self())) alive();
}
void saf_alive_calls(void (*what)(void)) {
    alive_thread = pthread_self();
    alive = what;
}

/* VmHWM, not getrusage: ru_maxrss survives exec and would count the launcher's own size. */
size_t saf_peak_memory_bytes(void) {
    FILE *f = fopen("/proc/self/status", "re");
    if (f) {
        char line[256];
        unsigned long kib = 0;
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "VmHWM: %lu", &kib) == 1) break;
        fclose(f);
        if (kib > 0) return (size_t)kib * 1024;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024;
}
