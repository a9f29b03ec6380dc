/* Hosts that are one machine, as containers of it are: all reading at once, each reads less of the
 * memory that they share than by itself. Plans must know both, since the stages of a pipeline may
 * work by turns and the parts of a tensor split all at once. */
#include <math.h>
#include <omp.h>

#include "job/plan/detect.h"
#include "saf/hw.h"

enum { SAMPLES = 5 };

/* What `threads` of this host read by themselves. */
static void set_rate(saf_buf *rates, int32_t threads, double read_bytes_s) {
    saf_profile_rate *r = (void *)rates->data;
    int64_t n = saf_profile_rows(SAF_PROFILE_RATES, rates);
    for (int64_t i = 0; i < n; i++)
        if (r[i].threads == threads) r[i].read_bytes_s = read_bytes_s;
}

static void read_alone(saf_hw_yardstick *y, saf_profile_host *h, saf_buf *rates) {
    double all[SAMPLES], one[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        all[i] = saf_hw_yardstick_read(y);
        one[i] = saf_hw_yardstick_read_one(y);
        saf_alive();
    }
    h->read_bytes_s = saf_median(all, SAMPLES);
    set_rate(rates, 1, saf_median(one, SAMPLES));
    set_rate(rates, h->usable_cores, h->read_bytes_s);
}

saf_status saf__detect_machine_measure(saf_comm *machine, size_t read_bytes,
                                       saf_buf tables[SAF_PROFILE_TABLES]) {
    saf_status st = SAF_OK;
    saf_hw_yardstick *y = NULL;
    saf_profile_host *h = (void *)tables[SAF_PROFILE_HOSTS].data;
    double together[SAMPLES];
    int before = omp_get_max_threads();
    omp_set_num_threads(h->usable_cores);
    SAF_TRY(saf_comm_agree(machine, saf_hw_yardstick_new(read_bytes, &y)));
    for (int turn = 0; turn < saf_comm_size(machine); turn++) {
        if (turn == saf_comm_rank(machine)) read_alone(y, h, &tables[SAF_PROFILE_RATES]);
        SAF_TRY(saf_comm_barrier(machine));
    }
    for (int i = 0; i < SAMPLES; i++) {
        SAF_TRY(saf_comm_barrier(machine));
        together[i] = saf_hw_yardstick_read(y);
    }
    h->together_read_bytes_s = fmin(h->read_bytes_s, saf_median(together, SAMPLES));
out:
    saf_hw_yardstick_free(&y);
    omp_set_num_threads(before);
    return st;
}
