/* Memory bandwidth: reading, writing and copying by a number of threads, on one NUMA node. */
#include <omp.h>
#include <stdio.h>

#include "hw/loops.h"
#include "hw/topology.h"
#include "saf/hw.h"
#include "saf/hw_host.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

struct saf_hw_memory {
    saf__hw_loops loops;
    char *from, *to;
    size_t part_bytes; /* of each thread */
    int threads;
    uint64_t sink;
};

const char *saf_memory_kind_name(saf_memory_kind kind) {
    static const char *const names[SAF_MEMORY_KINDS] = {"read", "write", "write, streaming", "copy",
                                                        "copy, streaming"};
    return (unsigned)kind < SAF_MEMORY_KINDS ? names[kind] : "unknown";
}

bool saf_memory_kind_there(saf_memory_kind kind) {
#if defined(__x86_64__)
    (void)kind;
    return true;
#else
    return kind != SAF_MEMORY_STREAM && kind != SAF_MEMORY_COPY_STREAM;
#endif
}

int saf_memory_kind_traffic(saf_memory_kind kind) {
    static const int traffic[SAF_MEMORY_KINDS] = {1, 2, 1, 3, 2};
    return traffic[kind];
}

/* ---- loops over a thread's part, a line at a time ---- */

typedef uint64_t line __attribute__((vector_size(SAF__READ_LINE), aligned(SAF__READ_LINE)));

/* Between two lines, or the compiler would call memset and memcpy, which choose their stores. */
#define LINE_END() __asm__ volatile("" ::: "memory")

static void write_plain(char *to, size_t bytes) {
    line one = {1};
    for (size_t at = 0; at < bytes; at += SAF__READ_LINE) {
        *(line *)(void *)(to + at) = one;
        LINE_END();
    }
}

static void copy_plain(char *to, const char *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += SAF__READ_LINE) {
        *(line *)(void *)(to + at) = *(const line *)(const void *)(from + at);
        LINE_END();
    }
}

#if defined(__x86_64__)
static void stream_line(char *to, __m256i low, __m256i high) {
    _mm256_stream_si256((__m256i *)(void *)to, low);
    _mm256_stream_si256((__m256i *)(void *)(to + SAF__READ_LINE / 2), high);
}

static void write_stream(char *to, size_t bytes) {
    __m256i one = _mm256_set1_epi64x(1);
    for (size_t at = 0; at < bytes; at += SAF__READ_LINE) stream_line(to + at, one, one);
    _mm_sfence();
}

static void copy_stream(char *to, const char *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += SAF__READ_LINE) {
        const __m256i *p = (const __m256i *)(const void *)(from + at);
        stream_line(to + at, _mm256_load_si256(p), _mm256_load_si256(p + 1));
    }
    _mm_sfence();
}
#else
static void write_stream(char *to, size_t bytes) {
    write_plain(to, bytes);
}
static void copy_stream(char *to, const char *from, size_t bytes) {
    copy_plain(to, from, bytes);
}
#endif

static uint64_t run_part(const saf_hw_memory *m, saf_memory_kind kind, char *to, const char *from) {
    switch (kind) {
        case SAF_MEMORY_READ:
            return m->loops.read(from, m->part_bytes);
        case SAF_MEMORY_WRITE:
            write_plain(to, m->part_bytes);
            return 0;
        case SAF_MEMORY_STREAM:
            write_stream(to, m->part_bytes);
            return 0;
        case SAF_MEMORY_COPY:
            copy_plain(to, from, m->part_bytes);
            return 0;
        case SAF_MEMORY_COPY_STREAM:
            copy_stream(to, from, m->part_bytes);
            return 0;
        case SAF_MEMORY_KINDS:
            break;
    }
    return 0;
}

double saf_hw_memory_sample(saf_hw_memory *m, saf_memory_kind kind) {
    double start = 0, end = 0;
    uint64_t sink = 0;
#pragma omp parallel num_threads(m->threads) reduction(+ : sink)
    {
        size_t at = (size_t)omp_get_thread_num() * m->part_bytes;
#pragma omp barrier
#pragma omp master
        start = saf_clock_s();
        sink += run_part(m, kind, m->to + at, m->from + at);
#pragma omp barrier
#pragma omp master
        end = saf_clock_s();
    }
    m->sink += sink;
    return end > start ? end - start : 1e-9;
}

/* ---- where the memory is ---- */

saf_status saf_hw_memory_nodes(int32_t *out) {
    hwloc_topology_t topology;
    saf_status st = saf__hw_topology(false, &topology);
    if (st != SAF_OK) return st;
    *out = (int32_t)saf_i64_max(1, hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE));
    hwloc_topology_destroy(topology);
    return SAF_OK;
}

/* With one node all memory is on it, and systems that do not let memory be bound do no harm. */
static saf_status put_on_node(void *p, size_t bytes, int32_t node) {
    hwloc_topology_t topology;
    if (node == SAF_HW_ANY_NODE) return SAF_OK;
    saf_status st = saf__hw_topology(false, &topology);
    if (st != SAF_OK) return st;
    int n = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    hwloc_obj_t object = hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, (unsigned)node);
    if (n > 1 &&
        (!object || hwloc_set_area_membind(topology, p, bytes, object->nodeset, HWLOC_MEMBIND_BIND,
                                           HWLOC_MEMBIND_BYNODESET) != 0))
        st = saf_fail(SAF_FAILED, "memory cannot be put on NUMA node %d", node);
    hwloc_topology_destroy(topology);
    return st;
}

/* A line of /proc/meminfo, in bytes; 0: not there. */
static int64_t meminfo(const char *name) {
    saf_buf text = {0};
    long long kib = 0;
    if (saf_file_read("/proc/meminfo", 1 << 16, &text) == SAF_OK) {
        const char *at = strstr(text.data, name);
        if (!at || sscanf(at + strlen(name), " %lld kB", &kib) != 1 || kib < 0) kib = 0;
    }
    saf_buf_free(&text);
    return kib * 1024;
}

int64_t saf_hw_memory_available(void) {
    int64_t there = meminfo("MemAvailable:");
    saf_hw_limits limits;
    bool limited = saf_hw_limits_read("", &limits) == SAF_OK && limits.memory_bytes > 0;
    if (!limited) return there;
    return there > 0 ? saf_i64_min(there, limits.memory_bytes) : limits.memory_bytes;
}

/* hwloc adds up the nodes of /sys, which on some virtual machines lack what was plugged in later.
 */
int64_t saf__hw_memory_total(hwloc_topology_t topology) {
    int64_t kernel = hwloc_topology_is_thissystem(topology) ? meminfo("MemTotal:") : 0;
    return kernel > 0 ? kernel : (int64_t)hwloc_get_root_obj(topology)->total_memory;
}

static saf_status check_room(size_t bytes) {
    int64_t there = saf_hw_memory_available();
    if (there == 0 || bytes <= (size_t)there / 2) return SAF_OK;
    return saf_fail(SAF_NO_MEMORY, "a measurement over %zu MiB: %lld MiB are available",
                    bytes >> 20, (long long)there >> 20);
}

saf_status saf_hw_memory_new(size_t bytes, int threads, int32_t node, saf_hw_memory **out) {
    saf_status st = SAF_OK;
    saf_hw_memory *m = NULL;
    SAF_TRY(saf_alloc(1, sizeof *m, &m));
    m->loops = saf__hw_loops_choose();
    m->threads = threads;
    size_t pages = (size_t)saf_ceil_div((int64_t)(bytes / (size_t)threads) + 1, SAF_HUGE_PAGE);
    m->part_bytes = pages * SAF_HUGE_PAGE;
    size_t total = m->part_bytes * (size_t)threads;
    SAF_TRY(check_room(2 * total));
    SAF_TRY(saf_alloc_huge(total, &m->from));
    SAF_TRY(saf_alloc_huge(total, &m->to));
    SAF_TRY(put_on_node(m->from, total, node));
    SAF_TRY(put_on_node(m->to, total, node));
#pragma omp parallel num_threads(threads)
    {
        size_t at = (size_t)omp_get_thread_num() * m->part_bytes;
        memset(m->from + at, 1, m->part_bytes);
        memset(m->to + at, 2, m->part_bytes);
    }
    *out = m;
    m = NULL;
out:
    saf_hw_memory_free(&m);
    return st;
}

void saf_hw_memory_free(saf_hw_memory **m) {
    if (!*m) return;
    saf_free(&(*m)->from);
    saf_free(&(*m)->to);
    saf_free(m);
}

size_t saf_hw_memory_bytes(const saf_hw_memory *m) {
    return m->part_bytes * (size_t)m->threads;
}

/* ---- taking and touching ---- */

saf_status saf_hw_memory_touch(size_t bytes, int threads, double *touch_s, double *sum_s,
                               bool *right) {
    uint64_t *words = NULL, sum = 0;
    int64_t n = (int64_t)(bytes / sizeof *words);
    double start = saf_clock_s();
    saf_status st = saf_alloc((size_t)n, sizeof *words, &words);
    if (st != SAF_OK) return st;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) words[i] = (uint64_t)i + 1;
    double touched = saf_clock_s();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += words[i];
    double end = saf_clock_s();
    uint64_t whole = (uint64_t)n;
    *right = sum == (whole % 2 ? (whole + 1) / 2 * whole : whole / 2 * (whole + 1));
    *touch_s = touched - start;
    *sum_s = end - touched;
    saf_free(&words);
    return SAF_OK;
}
