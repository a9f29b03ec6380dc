#include "comm/transport.h"

static saf_comm_counter counters[SAF_COUNT_KINDS];

void saf__count(saf_count_kind kind, int64_t calls, size_t bytes, double wait_s) {
    counters[kind].calls += calls;
    counters[kind].bytes += (int64_t)bytes;
    counters[kind].wait_s += wait_s;
}

enum { SHORT_BYTES = 32768 };

saf__stopwatch saf__stopwatch_start(size_t bytes) {
    bool by_clock = bytes > SHORT_BYTES;
    return (saf__stopwatch){by_clock, by_clock ? saf_clock_s() : saf__waited_s()};
}

double saf__stopwatch_s(const saf__stopwatch *watch) {
    return (watch->by_clock ? saf_clock_s() : saf__waited_s()) - watch->start;
}

const char *saf_count_kind_name(saf_count_kind kind) {
    static const char *const names[SAF_COUNT_KINDS] = {
        "send", "recv", "bcast", "allreduce", "allgather", "gather", "barrier", "meet",
    };
    return names[kind];
}

void saf_comm_counters(saf_comm_counter out[SAF_COUNT_KINDS]) {
    memcpy(out, counters, sizeof counters);
}

void saf_comm_counters_reset(void) {
    memset(counters, 0, sizeof counters);
}
