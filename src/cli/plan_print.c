#include "cli/plan_print.h"

#include <math.h>

#include "cli/grid.h"
#include "cli/json.h"

/* ---- a layout in words ---- */

static int32_t ranks_of(const saf_plan_choice *c) {
    return c->replicas * c->stages * c->tensor;
}

/* Layers of each stage of a choice, "10,9,9". */
static saf_status list_stages(const saf_plan_choice *c, saf_buf *out) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < c->stages; i++)
        SAF_TRY(saf_buf_printf(out, "%s%d", i ? "," : "", c->first[i + 1] - c->first[i]));
out:
    return st;
}

saf_status saf__plan_keys(const saf_job_plan *p, const saf_plan_choice *c, saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_printf(out, "layout.replicas=%d layout.pipeline=%d layout.tensor=%d",
                           c->replicas, c->stages, c->tensor));
    if (c->stages > 1) {
        SAF_TRY(saf_buf_printf(out, " 'layout.stages=["));
        SAF_TRY(list_stages(c, out));
        SAF_TRY(saf_buf_printf(out, "]'"));
    }
    if (p->work.sequences == 0)
        SAF_TRY(saf_buf_printf(out, " run.sequences=%d", c->schedule.sequences));
out:
    return st;
}

/* Which hosts a layout takes. */
static const char *order_text(const saf_job_plan *p, const saf_plan_choice *c) {
    if (p->cluster.n == 1) return p->classes[0].name;
    if (c->order >= 2) return p->classes[c->order - 2].name;
    return c->order == 1 ? "those of most memory" : "the fastest";
}

/* ---- text ---- */

static double gb(double bytes) {
    return bytes * 1e-9;
}

static void print_model(const saf_job_plan *p, FILE *out) {
    const saf_plan_model *m = &p->model;
    const saf_model_params *x = m->params;
    double L = (double)x->layers, D = (double)x->width;
    const saf_plan_part *all = &m->sums[x->layers];
    fprintf(out, "model      %lld layers, width %lld, %s, file %.2f GB\n", (long long)x->layers,
            (long long)x->width, saf_dtype_name(m->dtype), gb(m->file_bytes));
    fprintf(out, "a layer    %.2f MB read a flight, %.1f Mop a token, on average\n",
            all->bytes / L * 1e-6, (all->int8_ops + all->float_ops) / L * 1e-6);
    fprintf(out, "the head   %.2f MB, %.1f Mop a sampled token\n", m->head.bytes * 1e-6,
            (m->head.int8_ops + m->head.float_ops) * 1e-6);
    fprintf(out, "attention  %.1f KB of cache a position, %.2f Mop a token for each\n",
            m->kv_position_bytes * 1e-3, m->pair_ops * L * 1e-6);
    fprintf(out,
            "links      a row: %.1f KB from stage to stage; %.1f KB a layer of a tensor split\n",
            4 * D * 1e-3, m->share_row_bytes * 1e-3);
}

static void print_work(const saf_job_plan *p, FILE *out) {
    const saf_plan_work *w = &p->work;
    fprintf(out, "job        %lld request%s of %.0f tokens", (long long)w->requests,
            w->requests == 1 ? "" : "s", w->prompt_tokens);
    if (w->completion_tokens > 0) fprintf(out, ", %.0f to complete", w->completion_tokens);
    fprintf(out, ", the longest %lld positions\n", (long long)w->longest);
}

static saf_status print_hosts(const saf_job_plan *p, FILE *out) {
    saf_status st = SAF_OK;
    saf__grid grid = {0};
    SAF_TRY(saf__grid_begin(&grid,
                            "<hosts|count|cores|ranks|memory GB|kept free|read GB/s|int8 "
                            "Gop/s|f32 Gop/s|link Gbit/s|latency us"));
    for (int32_t i = 0; i < p->cluster.n; i++) {
        const saf_plan_host *c = &p->classes[i];
        SAF_TRY(saf__grid_cell(&grid, "%s", c->name));
        SAF_TRY(saf__grid_cell(&grid, "%d", c->count));
        SAF_TRY(saf__grid_cell(&grid, "%d", c->cores));
        SAF_TRY(saf__grid_cell(&grid, "%d", c->ranks));
        SAF_TRY(saf__grid_cell(&grid, "%.1f", gb(c->memory_bytes)));
        SAF_TRY(saf__grid_cell(&grid, "%.1f", gb(c->reserve_bytes)));
        SAF_TRY(saf__grid_cell(&grid, "%.1f", c->read_bytes_s * 1e-9));
        SAF_TRY(saf__grid_cell(&grid, "%.0f%s", c->int8_ops_s * 1e-9, c->tiles ? " + tiles" : ""));
        SAF_TRY(saf__grid_cell(&grid, "%.0f", c->f32_ops_s * 1e-9));
        SAF_TRY(saf__grid_cell(&grid, "%g", c->link.bytes_s * 8e-9));
        SAF_TRY(saf__grid_cell(&grid, "%g", c->link.latency_s * 1e6));
    }
    SAF_TRY(saf__grid_print(&grid, out));
out:
    saf__grid_free(&grid);
    return st;
}

static saf_status add_choice(saf__grid *grid, const saf_job_plan *p, const saf_plan_choice *c) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__grid_cell(grid, "%d x %d x %d", c->replicas, c->stages, c->tensor));
    SAF_TRY(saf__grid_cell(grid, "%d", c->hosts));
    SAF_TRY(saf__grid_cell(grid, "%s", order_text(p, c)));
    SAF_TRY(saf__grid_cell(grid, "%d", ranks_of(c)));
    SAF_TRY(saf__grid_cell(grid, "%d", c->schedule.sequences));
    if (c->fits)
        SAF_TRY(saf__grid_cell(grid, "yes"));
    else
        SAF_TRY(saf__grid_cell(grid, "no, %.3g GB short", gb(c->short_bytes)));
    SAF_TRY(saf__grid_cell(grid, "%.2f", gb(c->memory_bytes)));
    SAF_TRY(saf__grid_cell(grid, "%.3g", c->first_token_s));
    SAF_TRY(saf__grid_cell(grid, "%.3g", c->prefill_tokens_s));
    SAF_TRY(saf__grid_cell(grid, "%.3g", c->decode_tokens_s));
    SAF_TRY(saf__grid_cell(grid, "%.3g", c->token_s * 1e3));
    SAF_TRY(saf__grid_cell(grid, "%.4g", c->job_s));
    SAF_TRY(saf__grid_cell(grid, "%.0f", 100 * c->network_share));
out:
    return st;
}

static saf_status print_choices(const saf_job_plan *p, FILE *out) {
    saf_status st = SAF_OK;
    saf__grid grid = {0};
    SAF_TRY(saf__grid_begin(&grid,
                            "<replicas x pipeline x tensor|hosts|<which|ranks|sequences|<fits"
                            "|GB a rank|first token s|prompt tokens/s|tokens/s|ms a "
                            "token|job s|network %"));
    for (int32_t i = 0; i < p->plan.n; i++) SAF_TRY(add_choice(&grid, p, &p->plan.choices[i]));
    SAF_TRY(saf__grid_print(&grid, out));
out:
    saf__grid_free(&grid);
    return st;
}

saf_status saf__plan_text(const saf_job_plan *p, FILE *out) {
    saf_status st = SAF_OK;
    saf_buf keys = {0};
    const saf_plan_choice *best = &p->plan.choices[0];
    print_model(p, out);
    print_work(p, out);
    fprintf(out, "\n");
    SAF_TRY(print_hosts(p, out));
    fprintf(out, "%s\n\n",
            p->measured   ? "(rates measured on this host)"
            : p->profiled ? "(rates and links of the profile)"
                          : "(rates as given)");
    SAF_TRY(print_choices(p, out));
    fprintf(out, "\n%lld layouts in %.2f s\n", (long long)p->plan.looked_at, p->seconds);
    fprintf(out, "why        %s\n", p->plan.why);
    fprintf(out,
            "a rank     %.2f GB of weights, %.2f of caches, %.2f of buffers at most; a host "
            "%.2f of %.2f GB\n",
            gb(best->weight_bytes), gb(best->cache_bytes), gb(best->buffer_bytes),
            gb(best->host_bytes), gb(best->room_bytes));
    for (int i = 0; i < 2; i++)
        if (p->plan.rules[i][0]) fprintf(out, "rule       %s\n", p->plan.rules[i]);
    SAF_TRY(saf__plan_keys(p, best, &keys));
    fprintf(out, "to run it  on %d rank%s: %s\n", ranks_of(best), ranks_of(best) == 1 ? "" : "s",
            keys.data);
out:
    saf_buf_free(&keys);
    return st;
}

/* ---- JSON ---- */

static cJSON *host_json(saf__json *b, const saf_plan_host *c) {
    cJSON *o = cJSON_CreateObject();
    saf__json_text(b, o, "name", c->name);
    saf__json_whole(b, o, "count", c->count);
    saf__json_whole(b, o, "cores", c->cores);
    saf__json_whole(b, o, "ranks", c->ranks);
    saf__json_number(b, o, "memory_bytes", c->memory_bytes);
    saf__json_number(b, o, "reserve_bytes", c->reserve_bytes);
    saf__json_number(b, o, "read_bytes_s", c->read_bytes_s);
    if (c->machine_hosts > 1) {
        saf__json_whole(b, o, "machine_hosts", c->machine_hosts);
        saf__json_number(b, o, "machine_read_bytes_s", c->machine_read_bytes_s);
    }
    saf__json_number(b, o, "int8_ops_s", c->int8_ops_s);
    saf__json_number(b, o, "f32_ops_s", c->f32_ops_s);
    saf__json_add(b, o, "tiles", cJSON_CreateBool(c->tiles));
    saf__json_number(b, o, "link_bytes_s", c->link.bytes_s);
    saf__json_number(b, o, "latency_s", c->link.latency_s);
    if (c->link.short_s > 0) saf__json_number(b, o, "short_message_s", c->link.short_s);
    return o;
}

static cJSON *part_json(saf__json *b, const saf_plan_part *from, const saf_plan_part *to) {
    static const saf_plan_part zero;
    cJSON *o = cJSON_CreateObject();
    if (!to) to = &zero;
    if (!from) from = &zero;
    saf__json_number(b, o, "bytes", to->bytes - from->bytes);
    saf__json_number(b, o, "packed_bytes", to->packed_bytes - from->packed_bytes);
    saf__json_number(b, o, "int8_ops", to->int8_ops - from->int8_ops);
    saf__json_number(b, o, "float_ops", to->float_ops - from->float_ops);
    return o;
}

static cJSON *model_json(saf__json *b, const saf_plan_model *m) {
    cJSON *o = cJSON_CreateObject(), *layers = cJSON_CreateArray();
    saf__json_number(b, o, "file_bytes", m->file_bytes);
    saf__json_text(b, o, "type", saf_dtype_name(m->dtype));
    saf__json_number(b, o, "kv_bytes_per_position", m->kv_position_bytes);
    saf__json_number(b, o, "attention_ops_per_pair_and_layer", m->pair_ops);
    saf__json_number(b, o, "pipeline_bytes_per_row", 4 * (double)m->params->width);
    saf__json_number(b, o, "tensor_bytes_per_row_and_layer", m->share_row_bytes);
    saf__json_number(b, o, "embedding_bytes", m->embedding_bytes);
    saf__json_add(b, o, "head", part_json(b, NULL, &m->head));
    for (int64_t i = 0; i < m->params->layers; i++)
        saf__json_item(b, layers, part_json(b, &m->sums[i], &m->sums[i + 1]));
    saf__json_add(b, o, "layers", layers);
    return o;
}

static cJSON *choice_json(saf__json *b, const saf_job_plan *p, const saf_plan_choice *c) {
    cJSON *o = cJSON_CreateObject(), *stages = cJSON_CreateArray();
    saf__json_whole(b, o, "replicas", c->replicas);
    saf__json_whole(b, o, "pipeline", c->stages);
    saf__json_whole(b, o, "tensor", c->tensor);
    for (int32_t i = 0; i < c->stages; i++)
        saf__json_item(b, stages, cJSON_CreateNumber(c->first[i + 1] - c->first[i]));
    saf__json_add(b, o, "stages", stages);
    saf__json_whole(b, o, "hosts", c->hosts);
    saf__json_text(b, o, "which", order_text(p, c));
    saf__json_whole(b, o, "ranks", ranks_of(c));
    saf__json_whole(b, o, "ranks_per_host", c->ranks_per_host);
    saf__json_whole(b, o, "sequences", c->schedule.sequences);
    saf__json_whole(b, o, "micro_batch", c->schedule.micro_batch);
    saf__json_whole(b, o, "chunk", c->schedule.chunk);
    saf__json_add(b, o, "fits", cJSON_CreateBool(c->fits));
    saf__json_number(b, o, "short_bytes", c->short_bytes);
    saf__json_number(b, o, "rank_bytes", c->memory_bytes);
    saf__json_number(b, o, "weight_bytes", c->weight_bytes);
    saf__json_number(b, o, "cache_bytes", c->cache_bytes);
    saf__json_number(b, o, "buffer_bytes", c->buffer_bytes);
    saf__json_number(b, o, "host_bytes", c->host_bytes);
    saf__json_number(b, o, "host_room_bytes", c->room_bytes);
    saf__json_number(b, o, "first_token_s", c->first_token_s);
    saf__json_number(b, o, "prefill_tokens_s", c->prefill_tokens_s);
    saf__json_number(b, o, "decode_tokens_s", c->decode_tokens_s);
    saf__json_number(b, o, "token_s", c->token_s);
    saf__json_number(b, o, "job_s", c->job_s);
    saf__json_number(b, o, "network_share", c->network_share);
    saf__json_number(b, o, "token_network_share", c->token_network_share);
    return o;
}

saf_status saf__plan_json(const saf_job_plan *p, FILE *out) {
    saf__json b = {0};
    cJSON *root = cJSON_CreateObject(), *hosts = cJSON_CreateArray(), *list = cJSON_CreateArray(),
          *rules = cJSON_CreateArray(), *work = cJSON_CreateObject();
    saf__json_add(&b, root, "model", model_json(&b, &p->model));
    saf__json_whole(&b, work, "requests", p->work.requests);
    saf__json_number(&b, work, "prompt_tokens", p->work.prompt_tokens);
    saf__json_number(&b, work, "completion_tokens", p->work.completion_tokens);
    saf__json_whole(&b, work, "longest", p->work.longest);
    saf__json_add(&b, root, "work", work);
    for (int32_t i = 0; i < p->cluster.n; i++)
        saf__json_item(&b, hosts, host_json(&b, &p->classes[i]));
    saf__json_add(&b, root, "hosts", hosts);
    saf__json_add(&b, root, "measured", cJSON_CreateBool(p->measured));
    for (int32_t i = 0; i < p->plan.n; i++)
        saf__json_item(&b, list, choice_json(&b, p, &p->plan.choices[i]));
    saf__json_add(&b, root, "layouts", list);
    saf__json_text(&b, root, "why", p->plan.why);
    for (int i = 0; i < 2; i++)
        if (p->plan.rules[i][0]) saf__json_item(&b, rules, cJSON_CreateString(p->plan.rules[i]));
    saf__json_add(&b, root, "rules", rules);
    saf__json_whole(&b, root, "looked_at", p->plan.looked_at);
    saf__json_number(&b, root, "seconds", p->seconds);
    saf_status st = saf__json_print(&b, out, root);
    cJSON_Delete(root);
    return st;
}
