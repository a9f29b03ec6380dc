/* --dry-run: what each rank would hold. */
#include <stdio.h>

#include "job/session.h"

static double mib(double bytes) {
    return bytes / 0x1p20;
}

/* "with 10-9-9 layers", or what is said of many stages. */
static saf_status name_equal(const saf__session *s, saf_buf *out) {
    enum { FEW = 12 };
    saf_status st = SAF_OK;
    int64_t stages = s->layout.stages, each = s->params.layers / stages,
            more = s->params.layers % stages;
    if (stages > FEW) return saf_buf_printf(out, "with equal numbers of layers");
    SAF_TRY(saf_buf_printf(out, "with "));
    for (int64_t i = 0; i < stages; i++)
        SAF_TRY(saf_buf_printf(out, "%s%lld", i ? "-" : "", (long long)(each + (i < more))));
    SAF_TRY(saf_buf_printf(out, " layers"));
out:
    return st;
}

/* How much slower stages are whose largest costs `cost`, where another cut's costs `best`. */
static void print_slower(double cost, double best) {
    int percent = (int)(100 * (1 - best / cost) + 0.5);
    if (percent > 0)
        printf(" (%d %% slower)\n", percent);
    else
        printf(" (as fast)\n");
}

/* What the cut into stages is worth; operations count as the bytes that could be read meanwhile. */
static saf_status print_gain(const saf__session *s) {
    saf_status st = SAF_OK;
    saf_layout_wish wish = saf__layout_wish(s);
    saf_layout_gains gain;
    saf_buf equal = {0};
    if (s->layout.stages == 1) return SAF_OK;
    SAF_TRY(saf_layout_gain(s->gguf, &s->params, &wish, &s->layout, &gain));
    SAF_TRY(name_equal(s, &equal));
    if (wish.layers) {
        printf("cut by hand: the largest stage costs %.1f MiB a micro-batch", mib(gain.chosen));
        if (gain.chosen > gain.best)
            print_slower(gain.chosen, gain.best);
        else
            printf("\n");
        printf("cut by cost it would be %.1f, ", mib(gain.best));
    } else {
        printf("cut by cost: the largest stage costs %.1f MiB a micro-batch, ", mib(gain.chosen));
    }
    printf("%s %.1f", equal.data, mib(gain.equal));
    print_slower(gain.equal, gain.best);
out:
    saf_buf_free(&equal);
    return st;
}

/* "0-9", "4", "none": a run of numbers without its end. */
static const char *run_text(int32_t begin, int32_t end, char out[32]) {
    if (end <= begin)
        snprintf(out, 32, "none");
    else if (end == begin + 1)
        snprintf(out, 32, "%d", begin);
    else
        snprintf(out, 32, "%d-%d", begin, end - 1);
    return out;
}

static void print_ranks(const saf__session *s) {
    int wide = 4;
    for (int i = 0; i < s->ranks; i++) {
        int n = (int)strlen(s->results.ranks[i].host);
        wide = n > wide ? n : wide;
    }
    printf("%5s %-*s %7s %5s %4s %9s %9s %7s %11s %14s %9s\n", "rank", wide, "host", "replica",
           "stage", "part", "layers", "heads", "threads", "weights MiB", "replicated MiB",
           "cache MiB");
    for (int i = 0; i < saf_layout_ranks(&s->layout); i++) {
        const saf_result_rank *r = &s->results.ranks[i];
        char layers[32], heads[32];
        size_t cache =
            saf_kv_cache_slot_bytes(&s->params, saf_layout_range(&s->layout, i),
                                    (saf_kv_type)s->settings.kv_type, s->schedule.capacity);
        printf("%5d %-*s %7d %5d %4d %9s %9s %7d %11.1f %14.1f %9.1f\n", r->rank, wide, r->host,
               r->replica, r->stage, r->part, run_text(r->layer0, r->layer1, layers),
               run_text(r->head0, r->head1, heads), r->threads, mib((double)r->weight_bytes),
               mib((double)r->replicated_bytes), mib((double)cache * s->schedule.sequences));
    }
}

void saf__plan_warn(const saf__session *s) {
    int no_heads = 0, no_rows = 0;
    for (int i = 0; i < s->ranks; i++) {
        saf_slice_range r = saf_layout_range(&s->layout, i);
        no_heads += r.heads.end <= r.heads.begin;
        no_rows += r.width.end <= r.width.begin || r.ff.end <= r.ff.begin;
    }
    if (no_heads == 0 && no_rows == 0) return;
    saf_log(SAF_LOG_WARNING,
            "of %d ranks %d have no attention heads and %d no rows of some matrix: fewer parts "
            "(layout.tensor) or other shares (layout.share) leave none idle",
            s->ranks, no_heads, no_rows);
}

saf_status saf__plan_print(saf__session *s) {
    saf_status st = saf__ranks_gather(s);
    saf_buf layout = {0};
    if (st != SAF_OK || s->rank != 0) return st;
    if (s->settings.kind == SAF_JOB_BENCH) saf__bench_plan(s);
    if (saf_layout_ranks(&s->layout) == 0) return SAF_OK;
    SAF_TRY(saf_layout_text(&s->layout, &layout));
    printf("%s\n", layout.data);
    SAF_TRY(print_gain(s));
    if (s->settings.kind != SAF_JOB_BENCH)
        printf(
            "%d requests, %d in flight%s in micro-batches of %d, %d rows at a time, %d "
            "positions each\n",
            s->work.n_requests, s->schedule.sequences,
            s->layout.replicas > 1 ? " in each replica" : "", s->schedule.micro_batch,
            s->schedule.chunk, s->schedule.capacity);
    print_ranks(s);
out:
    saf_buf_free(&layout);
    return st;
}
