/* One replica on given hosts: how long flights take it, and its work. */
#include <math.h>

#include "parallel/flight.h"
#include "parallel/plan.h"

double saf__plan_read_bytes_s(const saf_plan_host *host, int32_t at_work) {
    int32_t n = at_work < host->machine_hosts ? at_work : host->machine_hosts;
    if (n <= 1 || host->machine_read_bytes_s <= 0) return host->read_bytes_s;
    return fmin(host->read_bytes_s, host->machine_read_bytes_s / n);
}

saf_plan_rates saf__plan_rates_of(const saf_plan_model *m, const saf_plan_work *work,
                                  const saf_plan_host *host, int32_t ranks_per_host,
                                  int32_t at_work) {
    int32_t threads = host->cores / ranks_per_host;
    if (work->threads > 0 && work->threads < threads) threads = work->threads;
    if (threads < 1) threads = 1;
    /* So many of the host's cores: what each of them has of the host's rates; fewer than all may
     * read as much. */
    double part = fmin((double)threads / host->cores, 1.0 / ranks_per_host);
    double read = saf__plan_read_bytes_s(host, at_work);
    double cores = fmin(threads * host->core_read_bytes_s, read / ranks_per_host);
    return (saf_plan_rates){.read_bytes_s = fmax(read * part, cores),
                            .int8_ops_s = host->int8_ops_s * part,
                            .f32_ops_s = host->f32_ops_s * part,
                            .product_share = host->product_share,
                            .hidden_share = host->hidden_share,
                            .tiles = host->tiles,
                            .threads = threads,
                            .dtype = m->dtype};
}

/* The ranks of a stage, where they meet. */
typedef struct {
    const saf_plan_host *host;
    int32_t here, hosts, ranks;
} group;

/* What all hosts write alike, and what one of them writes alone. */
static double meet_s(const group *g, double bytes) {
    return saf_plan_meeting_s(g->host, g->here, g->hosts, bytes, bytes / g->hosts);
}
static double tell_s(const group *g, double bytes) {
    return saf_plan_meeting_s(g->host, g->here, g->hosts, bytes, bytes);
}

/* Every row of the embedding is written by the rank that has its token, and tokens are as frequent
 * as their rank in the vocabulary says (Zipf's law): the first of h hosts has the first h-th of V
 * tokens, and with them ln(V / h) / ln(V) of all rows. */
static double embed_s(const saf_plan_model *m, const group *g, double rows) {
    double V = fmax(2, (double)m->params->vocab), each = 4 * (double)m->params->width;
    double most = fmax(1, rows * (1 - log(g->hosts) / log(V)));
    most = fmin(rows, fmax(most, rows / g->hosts));
    return saf_plan_meeting_s(g->host, g->here, g->hosts, each * rows, each * most);
}

/* Of logits, some rows at a time: all of them, and then what is drawn from them; or what they come
 * to, a pair of numbers for each segment and some of the likeliest tokens of each part. */
static double logits_s(const saf_plan_model *m, const saf_plan_work *work, const group *g,
                       double logits) {
    double blocks = fmax(fmin(1, logits), logits / SAF_LOGIT_ROWS), rows = logits / blocks;
    double vocab = (double)m->params->vocab, segment = sizeof(saf_logit_segment);
    double each = vocab / SAF_LOGIT_SEGMENT * segment +
                  (double)work->candidates * g->ranks * sizeof(saf_candidate);
    if (!work->whole_rows) return blocks * meet_s(g, each * rows);
    return blocks * (meet_s(g, 4 * vocab * rows) + meet_s(g, 8 * rows));
}

static double meetings_s(const saf_plan_model *m, const saf_plan_work *work,
                         const saf__plan_replica *r, int32_t stage, const saf__plan_batch *f,
                         bool networks) {
    const saf__plan_split *split = r->split;
    const saf_schedule *s = &r->schedule;
    group g = {&r->host[stage], (int32_t)saf_i64_max(1, split->parts / r->hosts_per_stage),
               networks ? r->hosts_per_stage : 1, split->parts};
    double width = 4 * (double)m->params->width;
    if (split->parts == 1) return 0;
    /* The first rank tells the others of the flight; to a later stage it hands the rows as well. */
    double words = 2 + SAF__FLIGHT_HEAD + s->micro_batch * SAF__FLIGHT_RUN + s->chunk;
    double all = tell_s(&g, 4 * words);
    all += stage == 0 ? embed_s(m, &g, f->rows) : tell_s(&g, width * f->rows);
    all += 4.0 * saf__plan_layers_of(r, stage) * meet_s(&g, m->share_row_bytes / 4 * f->rows);
    bool last = stage == r->stages - 1 && f->logits > 0;
    return last ? all + logits_s(m, work, &g, f->logits) : all;
}

/* What a rank reads while the other stages of its host rest: what its cores can by themselves, but
 * with the ranks of its own stage no more than the host. */
static double alone_bytes_s(const saf__plan_replica *r, int32_t stage, int32_t i,
                            const saf_plan_rates *rates) {
    const saf_plan_host *host = saf__plan_part_host(r, stage, i);
    int32_t ranks = r->stages * r->split->parts;
    int32_t here = (int32_t)saf_i64_max(1, r->split->parts / r->hosts_per_stage);
    double most = r->alone                     ? r->alone[stage * r->split->parts + i]
                  : r->ranks_per_host <= ranks ? saf__plan_read_bytes_s(host, r->hosts_alone) / here
                                               : 0;
    return fmax(rates->read_bytes_s, fmin(rates->threads * host->core_read_bytes_s, most));
}

double saf__plan_rank_s(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, int32_t stage, int32_t i,
                        const saf__plan_batch *f) {
    const saf__plan_split *split = saf__plan_part_split(r, stage, i);
    const saf_plan_part *a = &m->sums[r->first[stage]], *b = &m->sums[r->first[stage + 1]];
    const saf_plan_host *host = saf__plan_part_host(r, stage, i);
    saf_plan_rates rates =
        saf__plan_rates_of(m, work, host, r->ranks_per_host, f->alone ? r->hosts_alone : r->hosts);
    double layers = saf__plan_layers_of(r, stage);
    double kv = m->kv_position_bytes * layers / (double)m->params->layers;
    saf_plan_flight x = {.weight_bytes = (b->bytes - a->bytes) * split->bytes,
                         .int8_ops = (b->int8_ops - a->int8_ops) * split->ops * f->rows,
                         .float_ops = (b->float_ops - a->float_ops) * split->ops * f->rows,
                         .kv_bytes = kv * f->context * f->sequences * split->kv,
                         .attention_ops = m->pair_ops * layers * f->rows * f->context * split->q,
                         .rows = f->rows,
                         .row_values = m->row_values * layers * f->rows * split->values};
    if (stage == r->stages - 1 && f->logits > 0) {
        x.weight_bytes += m->head.bytes * split->head_bytes;
        x.int8_ops += m->head.int8_ops * split->head_ops * f->logits;
        x.float_ops += m->head.float_ops * split->head_ops * f->logits;
        x.sampled_values = (double)m->params->vocab * f->logits;
        /* of the rank's own part all threads look through some */
        if (!work->whole_rows) x.sampled_values *= split->head_ops / rates.threads;
    }
    if (f->alone) rates.read_bytes_s = alone_bytes_s(r, stage, i, &rates);
    return saf_plan_flight_s(&rates, &x);
}

/* The slowest of its ranks, and their meetings. */
static double stage_s(const saf_plan_model *m, const saf_plan_work *work,
                      const saf__plan_replica *r, int32_t stage, const saf__plan_batch *f,
                      bool networks) {
    double slowest = 0;
    for (int32_t i = 0; i < saf__plan_different(r); i++)
        slowest = fmax(slowest, saf__plan_rank_s(m, work, r, stage, i, f));
    return slowest + meetings_s(m, work, r, stage, f, networks);
}

/* What a flight takes from end to end, and the slowest of what works on flights side by side: the
 * stages, and the links between them. */
typedef struct {
    double whole_s, slowest_s;
} passage;

static passage pass(const saf_plan_model *m, const saf_plan_work *work, const saf__plan_replica *r,
                    const saf__plan_batch *f, bool networks) {
    passage out = {0, 0};
    for (int32_t s = 0; s < r->stages; s++) {
        double own = stage_s(m, work, r, s, f, networks), hop = 0, busy = 0;
        bool last = s == r->stages - 1;
        if (r->stages > 1) {
            /* rows go on; from the last stage ids go back */
            double bytes = last ? 16 * f->logits : 4 * (double)m->params->width * f->rows;
            int32_t ranks = (s + 1) * r->split->parts;
            bool inside = last ? ranks <= r->ranks_per_host : ranks % r->ranks_per_host != 0;
            if (r->inside) inside = r->inside[s];
            const saf_plan_host *link = inside ? NULL : &r->host[s];
            if (inside || networks) {
                hop = saf_plan_message_s(link, bytes);
                /* others may follow it closely */
                busy = inside ? hop - saf_plan_message_s(link, 0) : bytes / link->link.bytes_s;
            }
        }
        out.whole_s += own + hop;
        out.slowest_s = fmax(out.slowest_s, fmax(own, busy));
    }
    return out;
}

/* n prompts, in pieces, of which several may go together. The last one has the most to attend to;
 * it goes through all stages when the others have gone through the slowest. */
static double prompts_s(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, double n, bool networks) {
    double P = fmax(1, work->prompt_tokens), pieces = ceil(n * P / r->schedule.chunk);
    double rows = n * P / pieces, sequences = fmax(1, rows / P);
    bool score = work->completion_tokens < 1;
    double context = rows < P ? P - rows / 2 : P / 2, logits = fmax(1, n / pieces);
    saf__plan_batch last = {rows, sequences, context, score ? rows : logits, pieces < 2};
    double seconds = pass(m, work, r, &last, networks).whole_s;
    if (pieces < 2) return seconds;
    context = fmax(rows / sequences / 2, (pieces * P / 2 - context) / (pieces - 1));
    logits = fmax(0, (n - logits) / (pieces - 1));
    saf__plan_batch before = {rows, sequences, context, score ? rows : logits, false};
    return seconds + (pieces - 1) * pass(m, work, r, &before, networks).slowest_s;
}

void saf__plan_times_of(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, bool networks, saf__plan_times *out) {
    double P = fmax(1, work->prompt_tokens), C = work->completion_tokens, n = r->requests;
    const saf_schedule *s = &r->schedule;
    *out = (saf__plan_times){.first_token_s = prompts_s(m, work, r, 1, networks),
                             .job_s = prompts_s(m, work, r, n, networks)};
    out->prefill_tokens_s = n * P / out->job_s;
    if (C <= 1) return;
    /* Groups follow each other through the stages; no more are on their way than there are. */
    double groups = ceil((double)s->sequences / s->micro_batch);
    double each = s->sequences / groups;
    saf__plan_batch step = {each, each, P + C / 2, each, groups < 2};
    passage decode = pass(m, work, r, &step, networks);
    out->token_s = fmax(decode.whole_s * fmax(1, groups / r->stages), groups * decode.slowest_s);
    out->decode_tokens_s = s->sequences / out->token_s;
    out->job_s += (C - 1) * fmax(1, n / s->sequences) * out->token_s;
}
