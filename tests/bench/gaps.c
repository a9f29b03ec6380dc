/* How much of a core others take: `build/bench-gaps [SECONDS]`, bound to the core by taskset. A
 * loop that reads the clock and does nothing else sees every moment in which it did not run; what
 * is longer than 5 microseconds counts. Prints the share that was lost, in percent, and the longest
 * gap in milliseconds. */
#include <stdio.h>
#include <stdlib.h>

#include "saf/core.h"

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? strtod(argv[1], NULL) : 1, gap_s = 5e-6;
    double start = saf_clock_s(), last = start, lost = 0, longest = 0;
    while (last - start < seconds) {
        double now = saf_clock_s(), gap = now - last;
        if (gap > gap_s) lost += gap;
        if (gap > longest) longest = gap;
        last = now;
    }
    printf("%.2f %.2f\n", 100 * lost / (last - start), 1e3 * longest);
    return 0;
}
