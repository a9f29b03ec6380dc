/* Yardsticks whenever somebody asks: `build/bench-yard [THREADS]`. For every line of standard input
 * it measures the host once, by so many threads (all cores), and prints read bandwidth, int8, f32,
 * saf's products of bytes, each a second, and 1 or 0: whether there are tile units. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/hw.h"

int main(int argc, char **argv) {
    saf_hw_binding host;
    saf_hw_yardstick *y = NULL;
    saf_hw_rates r;
    if (saf_hw_binding_read(&host) != SAF_OK) return 1;
    omp_set_num_threads(argc > 1 ? atoi(argv[1]) : host.cores);
    if (saf_hw_yardstick_new(0, &y) != SAF_OK) {
        fprintf(stderr, "%s\n", saf_error_text());
        return 1;
    }
    for (int c = getchar(); c != EOF; c = getchar()) {
        if (c != '\n') continue;
        saf_hw_yardstick_sample(y, &r);
        printf("%.6g %.6g %.6g %.6g %d\n", r.read_bytes_s, r.int8_ops_s, r.f32_ops_s,
               r.product_ops_s, r.tile_ops_s > 0);
        fflush(stdout);
    }
    saf_hw_yardstick_free(&y);
    return 0;
}
