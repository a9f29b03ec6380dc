/* How long things take: a roofline for each kind of operation, meetings, messages. The constants
 * are shares of the yardsticks that saf's own loops reach; doc/performance.md has the measurements.
 */
#include <math.h>

#include "parallel/plan.h"

/* Where there are tile units they take flights of many rows, and fewer where most of sixteen of
 * their rows are used (src/kernel/amx). */
enum { MANY_ROWS = 48, TILE_ROWS = 16, NEARLY_FULL = 13 };

/* Of the read bandwidth: weights that are multiplied as they are read, others; keys and values. */
#define READ_BYTES 0.96
#define READ_OTHERS 0.95
#define READ_CACHE 0.80
/* Of the shorter of reading and computing, what hides behind the longer: by tile units; without
 * them, where nobody has measured it. */
#define HIDDEN_TILES 0.10
#define HIDDEN 0.60
/* From so many rows on, weights that are not bytes are unpacked, which takes as long as products by
 * so many more rows; for tile units it is done meanwhile. (AVX-512 on AMD unpacks from four rows
 * on, beside products by the first ones; others beforehand.) */
enum { UNPACKING_ROWS = 2 };
#define UNPACKED_ROWS 0.5
/* Of the int8 peak, products of Q8_0 by few rows with weights in the caches, where nobody has
 * measured it; of these, types with a minimum, and with scales for halves of a block. */
#define PRODUCTS 0.64
#define WITH_MINIMUM 0.97
#define BY_HALVES 0.80
/* Of the f32 peak: products of float weights, and attention of many rows. */
#define FLOAT_PRODUCTS 0.80
#define ATTENTION 0.68
/* f32 operations that norms, rotation, SiLU and quantising are worth, a value. */
#define VALUE_OPS 60
/* Of a logit that a thread looks at. */
#define SAMPLED_VALUE_S 1e-9
/* Between ranks of one host: a meeting of two, of each more; bytes written and read, beyond what a
 * rank by itself would. */
#define MEETING_S 0.3e-6
#define MEETING_RANK_S 0.05e-6
#define SHARED_BYTES_S 10e9

/* Between hosts: a message keeps a processor at each end busy for a part of its latency, but no
 * longer than over TCP. */
#define OVERHEAD_SHARE 0.125
#define OVERHEAD_MOST_S 3.2e-6

static double longer_and_rest(double a, double b, double hidden) {
    return a > b ? a + (1 - hidden) * b : b + (1 - hidden) * a;
}

/* What they take: src/kernel/amx. */
static bool by_tiles(const saf_plan_rates *r, double rows) {
    if (!r->tiles || !saf_dtype_is_quantised(r->dtype)) return false;
    if (rows >= MANY_ROWS) return true;
    if (r->dtype == SAF_DTYPE_Q6_K || r->dtype == SAF_DTYPE_Q2_K) return false;
    return rows >= NEARLY_FULL * ceil(rows / TILE_ROWS);
}

/* Of the int8 peak of vector instructions: without tile units, by nearly full tiles, by many. */
static double int8_share(const saf_plan_rates *r, double rows) {
    const double few = r->product_share > 0 ? r->product_share : PRODUCTS;
    const bool full = by_tiles(r, rows), many = full && rows >= MANY_ROWS;
    switch (r->dtype) {
        case SAF_DTYPE_Q2_K:
        case SAF_DTYPE_Q3_K:
        case SAF_DTYPE_Q6_K:
            return many ? 0.44 : full ? 0.53 : BY_HALVES * few;
        case SAF_DTYPE_Q4_K:
        case SAF_DTYPE_Q5_K:
        case SAF_DTYPE_Q4_1:
        case SAF_DTYPE_Q5_1:
            return many ? 0.56 : full ? 0.65 : WITH_MINIMUM * few;
        default:
            return many ? 0.70 : full ? 0.77 : few;
    }
}

static bool rows_unpacked(const saf_plan_rates *r, double rows) {
    return rows >= UNPACKING_ROWS && !by_tiles(r, rows) && saf_dtype_is_quantised(r->dtype) &&
           r->dtype != SAF_DTYPE_Q8_0;
}

double saf_plan_flight_s(const saf_plan_rates *r, const saf_plan_flight *f) {
    bool bytes = r->dtype == SAF_DTYPE_Q8_0;
    double read = r->read_bytes_s * (bytes ? READ_BYTES : READ_OTHERS);
    double int8 = r->int8_ops_s * int8_share(r, f->rows);
    double unpacked = rows_unpacked(r, f->rows) ? 1 + UNPACKED_ROWS / f->rows : 1;
    double products =
        f->int8_ops / int8 * unpacked + f->float_ops / (r->f32_ops_s * FLOAT_PRODUCTS);
    double hidden = r->hidden_share > 0 ? r->hidden_share : HIDDEN;
    if (by_tiles(r, f->rows)) hidden = HIDDEN_TILES;
    double cache = f->kv_bytes / (r->read_bytes_s * READ_CACHE);
    double attention = f->attention_ops / (r->f32_ops_s * ATTENTION);
    return longer_and_rest(f->weight_bytes / read, products, hidden) +
           (cache > attention ? cache : attention) + f->row_values * VALUE_OPS / r->f32_ops_s +
           f->sampled_values * SAMPLED_VALUE_S;
}

double saf_plan_overhead_s(const saf_plan_host *host) {
    return fmin(OVERHEAD_SHARE * host->link.latency_s, OVERHEAD_MOST_S);
}

saf_plan_link saf_plan_slower_link(const saf_plan_link *a, const saf_plan_link *b) {
    bool known = a->short_s > 0 && b->short_s > 0;
    return (saf_plan_link){fmin(a->bytes_s, b->bytes_s), fmax(a->latency_s, b->latency_s),
                           known ? fmax(a->short_s, b->short_s) : 0};
}

/* Beyond the latency: to a short message by what that takes, then by the link's rate. */
static double bytes_s(const saf_plan_link *l, double bytes) {
    if (l->short_s <= 0) return bytes / l->bytes_s;
    double more = fmax(0, l->short_s - l->latency_s);
    if (bytes <= SAF_PLAN_SHORT_BYTES) return more * bytes / SAF_PLAN_SHORT_BYTES;
    return more + (bytes - SAF_PLAN_SHORT_BYTES) / l->bytes_s;
}

/* The first rank of each host sends what its host has to those of all others, one message after the
 * other, and then takes theirs. */
double saf_plan_meeting_s(const saf_plan_host *host, int32_t here, int32_t hosts, double bytes,
                          double most) {
    double seconds = here > 1 ? MEETING_S + MEETING_RANK_S * here + bytes / SHARED_BYTES_S : 0;
    if (hosts == 1) return seconds;
    double each = saf_plan_overhead_s(host), others = hosts - 1;
    double last_s = host->link.latency_s + (others - 1) * each; /* until the last one is there, */
    double busy_s = 2 * others * each;                          /* and has been taken */
    return seconds + fmax(last_s, busy_s) + bytes_s(&host->link, others * most);
}

double saf_plan_message_s(const saf_plan_host *host, double bytes) {
    if (!host) return MEETING_S + bytes / SHARED_BYTES_S;
    return host->link.latency_s + bytes_s(&host->link, bytes);
}
