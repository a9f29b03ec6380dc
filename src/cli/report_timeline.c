/* The timeline of a run: shares of each rank's time as a table, and all of it as Chrome trace JSON.
 */
#include <cjson/cJSON.h>
#include <inttypes.h>

#include "cli/grid.h"
#include "cli/report.h"

/* ---- shares ---- */

enum { KINDS = 6 };
static const char *const kinds[KINDS] = {"compute", "sample",  "exchange",
                                         "send",    "receive", "wait"};

typedef struct {
    double seconds[KINDS]; /* what is inside of another entry counts as what it is itself */
    double dropped_s;      /* from the start of the run on */
} rank_shares;

/* Entries of a rank come in the order in which they ended, those inside of another before it: they
 * wait on a stack until it comes, or for ever. */
static saf_status sum_shares(const saf_results *r, rank_shares *ranks) {
    const saf_result_entry **waiting = NULL;
    int64_t n = 0;
    saf_status st = saf_alloc((size_t)r->n_entries, sizeof *waiting, &waiting);
    if (st != SAF_OK) return st;
    for (int64_t i = 0; i < r->n_entries; i++) {
        const saf_result_entry *e = &r->timeline[i];
        rank_shares *to = &ranks[e->rank];
        double own_s = e->end_s - e->start_s;
        if (i > 0 && e->rank != e[-1].rank) n = 0;
        while (n > 0 && waiting[n - 1]->start_s >= e->start_s) {
            n--;
            own_s -= waiting[n]->end_s - waiting[n]->start_s;
        }
        waiting[n++] = e;
        for (int k = 0; k < KINDS; k++)
            if (strcmp(e->kind, kinds[k]) == 0 && own_s > 0) to->seconds[k] += own_s;
        if (strcmp(e->kind, "dropped") == 0) to->dropped_s = e->end_s;
    }
    saf_free(&waiting);
    return SAF_OK;
}

saf_status saf__report_timeline(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    rank_shares *ranks = NULL;
    SAF_TRY(saf_alloc((size_t)r->n_ranks, sizeof *ranks, &ranks));
    SAF_TRY(sum_shares(r, ranks));
    SAF_TRY(saf__grid_begin(&g,
                            "rank|<host|compute %|sample %|exchange %|send %|receive %|wait %|"
                            "idle %"));
    for (int64_t i = 0; i < r->n_ranks; i++) {
        double known_s = r->run_s - ranks[i].dropped_s, idle_s = known_s;
        SAF_TRY(saf__grid_cell(&g, "%d", (int)i));
        SAF_TRY(saf__grid_cell(&g, "%.63s", r->ranks[i].host));
        for (int k = 0; k < KINDS; k++) {
            idle_s -= ranks[i].seconds[k];
            SAF_TRY(
                saf__grid_cell(&g, "%.1f", known_s > 0 ? 100 * ranks[i].seconds[k] / known_s : 0));
        }
        SAF_TRY(saf__grid_cell(&g, "%.1f", idle_s > 0 ? 100 * idle_s / known_s : 0));
    }
    SAF_TRY(saf__grid_print(&g, out));
    for (int64_t i = 0; i < r->n_ranks; i++)
        if (ranks[i].dropped_s > 0)
            fprintf(out, "rank %d: from second %.3f of the run on; what was before is not kept\n",
                    (int)i, ranks[i].dropped_s);
out:
    saf_free(&ranks);
    saf__grid_free(&g);
    return st;
}

/* ---- trace ---- */

/* A process is a host, a thread is a rank. Viewers hold the numbers of both in one space, where 0
 * is somebody else: threads come first, then a process for each rank that is the first of its host.
 */
typedef struct {
    FILE *out;
    const saf_results *r;
    int64_t *process;     /* [ranks] */
    bool parts, replicas; /* there is more than one of a stage, of the model */
    bool any;             /* an object was written */
} tracer;

static int64_t thread_of(int64_t rank) {
    return rank + 1;
}

static saf_status look_at_ranks(tracer *t) {
    saf_status st = saf_alloc((size_t)t->r->n_ranks, sizeof *t->process, &t->process);
    if (st != SAF_OK) return st;
    for (int64_t i = 0; i < t->r->n_ranks; i++) {
        int64_t first = 0;
        while (strcmp(t->r->ranks[first].host, t->r->ranks[i].host) != 0) first++;
        t->process[i] = thread_of(t->r->n_ranks + first);
        t->parts |= t->r->ranks[i].part > 0;
        t->replicas |= t->r->ranks[i].replica > 0;
    }
    return SAF_OK;
}

static bool add_whole(cJSON *o, const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return cJSON_AddRawToObject(o, name, text);
}

/* To the nanosecond, which is all that a clock says. */
static bool add_micros(cJSON *o, const char *name, double seconds) {
    char text[400];
    snprintf(text, sizeof text, "%.3f", seconds * 1e6);
    return cJSON_AddRawToObject(o, name, text);
}

/* An object of the kind `phase` with what all have; NULL when there is no memory. */
static cJSON *begin(const tracer *t, int64_t rank, const char *name, const char *phase) {
    cJSON *o = cJSON_CreateObject();
    if (o && cJSON_AddStringToObject(o, "name", name) && cJSON_AddStringToObject(o, "ph", phase) &&
        add_whole(o, "pid", t->process[rank]) && add_whole(o, "tid", thread_of(rank)))
        return o;
    cJSON_Delete(o);
    return NULL;
}

/* Writes an object and frees it. */
static saf_status put(tracer *t, cJSON *o, bool good) {
    char *text = o && good ? cJSON_PrintUnformatted(o) : NULL;
    if (text) fprintf(t->out, "%s%s", t->any ? ",\n" : "", text);
    t->any = true;
    cJSON_free(text);
    cJSON_Delete(o);
    return text ? SAF_OK : saf_fail(SAF_NO_MEMORY, "out of memory: the timeline as JSON");
}

/* A fact about a process or thread: its name, or (NULL) its place among the others. */
static saf_status put_fact(tracer *t, int64_t rank, const char *what, const char *name,
                           int64_t place) {
    cJSON *o = begin(t, rank, what, "M"), *args = o ? cJSON_AddObjectToObject(o, "args") : NULL;
    return put(t, o,
               args && (name ? cJSON_AddStringToObject(args, "name", name) != NULL
                             : add_whole(args, "sort_index", place)));
}

static saf_status put_rank(tracer *t, int64_t i) {
    saf_status st = SAF_OK;
    const saf_result_rank *k = &t->r->ranks[i];
    char name[100], part[20] = "", replica[24] = "";
    if (t->parts) snprintf(part, sizeof part, ", part %d", (int)k->part);
    if (t->replicas) snprintf(replica, sizeof replica, ", replica %d", (int)k->replica);
    snprintf(name, sizeof name, "rank %d: layers %d-%d%s%s", (int)i, (int)k->layer0,
             (int)k->layer1 - 1, part, replica);
    SAF_TRY(put_fact(t, i, "process_name", k->host, 0));
    SAF_TRY(put_fact(t, i, "process_sort_index", NULL, t->process[i]));
    SAF_TRY(put_fact(t, i, "thread_name", name, 0));
    SAF_TRY(put_fact(t, i, "thread_sort_index", NULL, i));
out:
    return st;
}

static saf_status put_entry(tracer *t, const saf_result_entry *e) {
    cJSON *o = begin(t, e->rank, e->kind, "X"), *args = NULL;
    bool good = o && add_micros(o, "ts", e->start_s) &&
                add_micros(o, "dur", e->end_s - e->start_s) &&
                (args = cJSON_AddObjectToObject(o, "args")) != NULL;
    if (good && e->flight >= 0) good = add_whole(args, "flight", e->flight);
    if (good && e->tokens > 0) good = add_whole(args, "tokens", e->tokens);
    return put(t, o, good);
}

saf_status saf__report_trace(FILE *out, const char *path, const saf_results *r) {
    saf_status st = SAF_OK;
    tracer t = {.out = out, .r = r};
    if (r->n_entries == 0)
        return saf_fail(SAF_BAD_INPUT, "%s has no timeline: it is recorded with run.trace = true",
                        path);
    SAF_TRY(look_at_ranks(&t));
    fprintf(out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    for (int64_t i = 0; i < r->n_ranks; i++) SAF_TRY(put_rank(&t, i));
    for (int64_t i = 0; i < r->n_entries; i++) SAF_TRY(put_entry(&t, &r->timeline[i]));
    fprintf(out, "\n]}\n");
    st = saf__report_flush(out);
out:
    saf_free(&t.process);
    return st;
}
