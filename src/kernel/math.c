/* Elementary functions: ranges reduced exactly, then polynomials by fma in Horner's order. C
 * libraries change their last bit between versions and processors; these do not. */
#include <math.h>

#include "kernel/expf.h"
#include "saf/kernel.h"

/* ln 2 and pi/2 as sums of doubles (the first the nearest double, and so on); LOG_* has a short
 * first part, whose product with an exponent is exact. */
static const double LN2_1 = 0x1.62e42fefa39efp-1, LN2_2 = 0x1.abc9e3b39803fp-56;
static const double LOG_LN2_1 = 0x1.62e42fefp-1, LOG_LN2_2 = 0x1.473de6af278edp-34;
static const double LOG2_E = 0x1.71547652b82fep+0, TWO_OVER_PI = 0x1.45f306dc9c883p-1;
static const double PIO2_1 = 0x1.921fb54442d18p+0, PIO2_2 = 0x1.1a62633145c07p-54,
                    PIO2_3 = -0x1.f1976b7ed8fbcp-110;
static const double ROUND_MAGIC = 0x1.8p52; /* adding it rounds to an integer, nearest even */

static double double_from_bits(uint64_t u) {
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}
static uint64_t double_to_bits(double d) {
    uint64_t u;
    memcpy(&u, &d, sizeof u);
    return u;
}
/* Horner's rule, c[n-1] the highest. */
static double polynomial(const double *c, int n, double x) {
    double p = c[n - 1];
    for (int i = n - 2; i >= 0; i--) p = __builtin_fma(p, x, c[i]);
    return p;
}

float saf_math_expf(float x) {
    return saf__expf(x);
}

double saf_math_exp(double x) {
    static const double c[] = {1.0,
                               1.0,
                               1.0 / 2,
                               1.0 / 6,
                               1.0 / 24,
                               1.0 / 120,
                               1.0 / 720,
                               1.0 / 5040,
                               1.0 / 40320,
                               1.0 / 362880,
                               1.0 / 3628800,
                               1.0 / 39916800,
                               1.0 / 479001600,
                               1.0 / 6227020800};
    if (x != x) return x;
    if (x > 710.0) x = 710.0; /* both give what lies beyond: infinity and 0 */
    if (x < -746.0) x = -746.0;
    double t = __builtin_fma(x, LOG2_E, ROUND_MAGIC);
    double n = t - ROUND_MAGIC;
    double r = __builtin_fma(n, -LN2_1, x); /* exact: a multiple of 2^-53 below 1/2 */
    r = __builtin_fma(n, -LN2_2, r);
    double p = polynomial(c, sizeof c / sizeof c[0], r);
    int64_t e = (int64_t)n, half = e / 2; /* 2^e in two steps, for denormals and infinity */
    double lo = double_from_bits((uint64_t)(half + 1023) << 52);
    double hi = double_from_bits((uint64_t)(e - half + 1023) << 52);
    return p * lo * hi;
}

/* log(2^e m) = e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)). */
double saf_math_log(double x) {
    static const double c[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11,
                               2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21};
    if (x != x || x == INFINITY) return x;
    if (x == 0) return -INFINITY;
    if (x < 0) return NAN;
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits = double_to_bits(x);
    e += (int64_t)(bits >> 52) - 1023;
    double m = double_from_bits((bits & 0xFFFFFFFFFFFFF) | (uint64_t)1023 << 52);
    if (m > 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        e += 1;
    }
    double f = m - 1.0, s = f / (m + 1.0), z = s * s;
    double tail = s * z * polynomial(c, sizeof c / sizeof c[0], z);
    /* 2s = f - s f, where f is exact: the rounding of s only counts against the small part. */
    double small = __builtin_fma(-s, f, tail);
    small = __builtin_fma((double)e, LOG_LN2_2, small);
    double big = (double)e * LOG_LN2_1;                          /* exact */
    double sum = big + f, lost = big == 0 ? 0 : f - (sum - big); /* exact: |big| > |f| */
    return sum + (lost + small);
}

double saf_math_pow(double x, double y) {
    return saf_math_exp(y * saf_math_log(x));
}

/* x - n pi/2 as high + low. With fma the first subtraction is exact: the difference is a multiple
 * of 2^-52 and below 1 in size. */
static int64_t reduce_quarter(double x, double *high, double *low) {
    double n = __builtin_fma(x, TWO_OVER_PI, ROUND_MAGIC) - ROUND_MAGIC;
    double r = __builtin_fma(-n, PIO2_1, x);
    double w = n * PIO2_2, w_error = __builtin_fma(n, PIO2_2, -w);
    double h = r - w, v = h - r;
    double h_error = (r - (h - v)) - (w + v);
    *low = __builtin_fma(-n, PIO2_3, h_error - w_error);
    *high = h;
    return (int64_t)n;
}

void saf_math_sincos(double x, double *sine, double *cosine) {
    static const double sin_c[] = {
        -1.0 / 6,        1.0 / 120,        -1.0 / 5040,          1.0 / 362880,
        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000};
    static const double cos_c[] = {
        1.0 / 24,        -1.0 / 720,         1.0 / 40320,          -1.0 / 3628800,
        1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000};
    if (!(x > -0x1p31 && x < 0x1p31)) {
        *sine = *cosine = NAN;
        return;
    }
    double r, low;
    int64_t n = reduce_quarter(x, &r, &low);
    double z = r * r;
    /* sin(r + low) = r + (low (1 - z/2) + r^3 S(z)); cos(r + low) = 1 - z/2 + (z^2 C(z) - r low) */
    double half_z = 0.5 * z;
    double s = r * z * polynomial(sin_c, sizeof sin_c / sizeof sin_c[0], z);
    s = r + (s + low * (1.0 - half_z));
    double head = 1.0 - half_z, head_error = (1.0 - head) - half_z;
    double c = z * z * polynomial(cos_c, sizeof cos_c / sizeof cos_c[0], z);
    c = head + (head_error + (c - r * low));
    double swapped_s = n & 1 ? c : s, swapped_c = n & 1 ? s : c;
    *sine = n & 2 ? -swapped_s : swapped_s;
    *cosine = (n + 1) & 2 ? -swapped_c : swapped_c;
}
