/* Hosts that are one machine, as containers of it are: all reading at once, each reads less of the
 * memory that they share than by itself. Plans must know both, since the stages of a pipeline may
 * work by turns and the parts of a tensor split all at once. */
#include <math.h>
#include <omp.h>
#include <time.h>

#include "job/plan/detect.h"
#include "saf/hw.h"

enum { SAMPLES = SAF__TOGETHER_SAMPLES };
#define SAMPLE_S 0.1 /* for which all of them read, */
#define ALONE_S 0.05 /* and one of them */
#define REST_S 0.1   /* for which one that waits for others may still look for messages */

static void rest(void) {
    (void)nanosleep(&(struct timespec){.tv_nsec = (long)(REST_S * 1e9)}, NULL);
}

/* Bytes a second: others that take a processor away for less than a sample show in none. All hosts
 * for the same time, as they may be unlike. */
static double read_for(saf_hw_memory *block, double seconds) {
    double start = saf_clock_s(), now = start, bytes = 0;
    for (; now - start < seconds; now = saf_clock_s()) {
        (void)saf_hw_memory_sample(block, SAF_MEMORY_READ);
        bytes += (double)saf_hw_memory_bytes(block);
    }
    saf_alive();
    return bytes / (now - start);
}

/* Of so many threads of this host, by themselves. */
static saf_status read_alone(size_t block_bytes, int32_t threads, saf_buf *rates, double *out) {
    saf_status st = SAF_OK;
    saf_hw_memory *block = NULL;
    double s[SAMPLES];
    SAF_TRY(saf_hw_memory_new(block_bytes, threads, SAF_HW_ANY_NODE, &block));
    for (int i = 0; i < SAMPLES; i++) {
        s[i] = read_for(block, ALONE_S);
    }
    *out = saf_median(s, SAMPLES);
    saf_profile_rate *r = (void *)rates->data;
    int64_t n = saf_profile_rows(SAF_PROFILE_RATES, rates);
    for (int64_t i = 0; i < n; i++) {
        if (r[i].threads != threads) continue;
        r[i].read_bytes_s = *out;
        r[i].samples = SAMPLES;
    }
out:
    saf_hw_memory_free(&block);
    return st;
}

static saf_status take_turn(const saf_profile_host *h, saf_buf *rates, double *out) {
    saf_status st = SAF_OK;
    size_t block_bytes;
    rest();
    SAF_TRY(saf__detect_choose_bytes(h, 1, &block_bytes));
    if (h->usable_cores > 1) SAF_TRY(read_alone(block_bytes, 1, rates, out));
    st = read_alone(block_bytes, h->usable_cores, rates, out);
out:
    return st;
}

saf_status saf__detect_machine_together(saf_comm *machine, const saf__detect_host *of,
                                        saf__together *samples,
                                        saf_buf tables[SAF_PROFILE_TABLES]) {
    saf_status st = SAF_OK;
    saf_hw_memory *block = NULL;
    saf_profile_host *h = (void *)tables[SAF_PROFILE_HOSTS].data;
    int before = omp_get_max_threads();
    omp_set_num_threads(h->usable_cores);
    st = saf_hw_memory_new(of->block_bytes, h->usable_cores, SAF_HW_ANY_NODE, &block);
    SAF_TRY(saf_comm_agree(machine, st));
    for (int i = 0; i < SAMPLES; i++) {
        SAF_TRY(saf_comm_barrier(machine));
        samples->bytes_s[samples->n++] = read_for(block, SAMPLE_S);
    }
    double sorted[SAF__TOGETHER_SAMPLES * SAF__TOGETHER_MOMENTS];
    memcpy(sorted, samples->bytes_s, (size_t)samples->n * sizeof *sorted);
    h->together_read_bytes_s = fmin(h->read_bytes_s, saf_median(sorted, samples->n));
out:
    saf_hw_memory_free(&block);
    omp_set_num_threads(before);
    return st;
}

saf_status saf__detect_machine_measure(saf_comm *machine, const saf__detect_host *of,
                                       saf__together *samples, saf_buf tables[SAF_PROFILE_TABLES]) {
    saf_status st = SAF_OK;
    saf_profile_host *h = (void *)tables[SAF_PROFILE_HOSTS].data;
    int before = omp_get_max_threads();
    omp_set_num_threads(h->usable_cores);
    SAF_TRY(saf__detect_machine_together(machine, of, samples, tables));
    for (int turn = 0; turn < saf_comm_size(machine); turn++) {
        if (turn == saf_comm_rank(machine))
            st = take_turn(h, &tables[SAF_PROFILE_RATES], &h->read_bytes_s);
        SAF_TRY(saf_comm_agree(machine, st));
    }
    st = saf__detect_machine_together(machine, of, samples, tables);
out:
    omp_set_num_threads(before);
    return st;
}
