/* Yardsticks whenever somebody asks: `build/bench-yard [THREADS]`. For every line of standard input
 * it measures the host, by so many threads (all cores), and prints medians of three: read
 * bandwidth, that of one core alone, int8, f32, each a second, the share of int8 that saf's
 * products reach, that of reading and computing that hides, and 1 or 0: whether there are tile
 * units. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/hw.h"

enum { SAMPLES = 3 };

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
        double v[6][SAMPLES];
        if (c != '\n') continue;
        for (int i = 0; i < SAMPLES; i++) {
            saf_hw_yardstick_sample(y, &r);
            v[0][i] = r.read_bytes_s;
            v[1][i] = saf_hw_yardstick_read_one(y);
            v[2][i] = r.int8_ops_s;
            v[3][i] = r.f32_ops_s;
            v[4][i] = r.product_share;
            v[5][i] = r.hidden_share;
        }
        for (int k = 0; k < 6; k++) printf("%.6g ", saf_median(v[k], SAMPLES));
        printf("%d\n", r.tile_ops_s > 0);
        fflush(stdout);
    }
    saf_hw_yardstick_free(&y);
    return 0;
}
