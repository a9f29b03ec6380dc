/* A stop in order: any head says when, and what is left goes on in a second run on the same ranks.
 */
#include <omp.h>
#include <time.h>
#include <unistd.h>

#include "mpi/mpi_test.h"
#include "saf/parallel.h"

enum { REQUESTS = 10, TOKENS_MAX = 48, PROMPT = 11, CAPACITY = 64 };

static char path[64];
static saf_gguf *gguf;
static saf_model_params params;

/* What a request has come to. */
typedef struct {
    bool done;
    int32_t n, ids[TOKENS_MAX];
} course;

/* What a head reports of it. */
typedef struct {
    int32_t request;
    course course;
} report;

typedef struct run {
    saf_group *group;
    saf_engine_times times;
    saf_status status;
    bool head;
    int32_t replica;
    /* when to stop: at this head (-1: none), after so many questions and tokens, and when all that
     * it has begun is done if it is to be idle */
    int32_t stops, after_questions, after_tokens;
    bool when_idle;
    struct timespec token; /* how long a head takes over each */
    saf_status when_stopped;
    int32_t questions, tokens, admitted, over, said_yes, stopped_calls, after_stop;
    bool mine[REQUESTS];
    /* with `keeps`, of one replica: what the slots held when it stopped, as rows; what a second run
     * takes up of the first */
    bool keeps;
    saf_kv_cache *kv;
    saf_slice_range range;
    int32_t slot[REQUESTS], positions[REQUESTS], restored[REQUESTS];
    saf_buf rows[REQUESTS];
    const struct run *first;
    course courses[REQUESTS]; /* in the end the first head's has all */
    int32_t reports;
} run;

/* ---- events ---- */

static void on_admitted(void *ctx, int32_t request) {
    run *r = ctx;
    r->admitted++;
    r->mine[request] = true;
    r->after_stop += r->said_yes > 0;
}

static int32_t wanted(int32_t request) {
    return 5 + request * 4 % 37;
}

static saf_status on_token(void *ctx, int32_t request, saf_sampled token, const saf_sampled *top,
                           bool *finished) {
    run *r = ctx;
    course *c = &r->courses[request];
    (void)top;
    CHECK(r->mine[request] && !c->done && c->n < wanted(request) && r->stopped_calls == 0);
    c->ids[c->n++] = token.id;
    *finished = c->n == wanted(request);
    r->tokens++;
    nanosleep(&r->token, NULL);
    return SAF_OK;
}

static saf_status tell(run *r, int32_t request) {
    report what = {request, r->courses[request]};
    if (r->replica == 0) return SAF_OK;
    return saf_group_report(r->group, &what, sizeof what, NULL, 0);
}

static void on_done(void *ctx, int32_t request) {
    run *r = ctx;
    r->courses[request].done = true;
    r->over++;
    CHECK_OK(tell(r, request));
}

static saf_status on_report(void *ctx, int32_t replica, const void *bytes, size_t len) {
    run *r = ctx;
    report what;
    CHECK(replica > 0);
    if (!CHECK_EQ(len, sizeof what)) return SAF_OK;
    memcpy(&what, bytes, sizeof what);
    if (!CHECK(what.request >= 0 && what.request < REQUESTS)) return SAF_OK;
    CHECK(!r->mine[what.request]); /* and nobody else's */
    r->mine[what.request] = true;
    r->courses[what.request] = what.course;
    r->reports++;
    return SAF_OK;
}

static bool on_stop(void *ctx) {
    run *r = ctx;
    CHECK_EQ(r->said_yes, 0);
    bool idle = r->admitted > 0 && r->over == r->admitted;
    bool yes = r->replica == r->stops && r->questions++ >= r->after_questions &&
               r->tokens >= r->after_tokens && (idle || !r->when_idle);
    r->said_yes += yes;
    return yes;
}

static saf_status on_stopped(void *ctx) {
    run *r = ctx;
    r->stopped_calls++;
    for (int32_t i = 0; i < REQUESTS; i++)
        if (r->mine[i] && !r->courses[i].done) CHECK_OK(tell(r, i));
    return r->when_stopped != SAF_OK ? saf_fail(r->when_stopped, "no room") : SAF_OK;
}

static saf_status on_held(void *ctx, int32_t request, int32_t slot, int32_t positions) {
    run *r = ctx;
    CHECK(r->mine[request] && !r->courses[request].done && r->stopped_calls == 1);
    CHECK(positions > 0 && r->positions[request] == 0);
    r->slot[request] = slot;
    r->positions[request] = positions;
    return SAF_OK;
}

/* All rows of this rank's layers and heads, out of a slot or into one. */
static void move_rows(const run *r, int32_t slot, int32_t n, saf_buf *rows, bool put) {
    saf_span heads = saf_slice_kv_heads(&params, r->range);
    size_t at = 0, bytes = saf_kv_cache_row_bytes(r->kv) * (size_t)n;
    for (int64_t l = r->range.layer0; l < r->range.layer1; l++)
        for (int64_t h = heads.begin; h < heads.end; h++)
            for (int keys = 0; keys < 2; keys++, at += bytes) {
                saf_kv_rows which = {slot, l, h, keys, 0, n};
                if (!put) CHECK_OK(saf_buf_resize(rows, at + bytes));
                CHECK_OK(put ? saf_kv_cache_put(r->kv, &which, rows->data + at)
                             : saf_kv_cache_get(r->kv, &which, rows->data + at));
            }
}

static int32_t cached(const run *first, int32_t request, int32_t n_prompt) {
    int32_t n = first && first->keeps ? first->positions[request] : 0;
    return n < n_prompt ? n : n_prompt - 1;
}

static saf_status on_restore(void *ctx, int32_t request, int32_t slot) {
    run *r = ctx;
    r->restored[request]++;
    if (!CHECK(r->first && r->first->positions[request] > 0)) return SAF_OK;
    saf_buf rows = r->first->rows[request];
    move_rows(r, slot, r->first->positions[request], &rows, true);
    return SAF_OK;
}

static void keep_caches(saf_comm *world, run *r) {
    saf_tensor slots = saf_tensor_1d(SAF_DTYPE_I32, r->slot, REQUESTS);
    saf_tensor positions = saf_tensor_1d(SAF_DTYPE_I32, r->positions, REQUESTS);
    CHECK_OK(saf_comm_bcast(world, 0, &slots));
    CHECK_OK(saf_comm_bcast(world, 0, &positions));
    for (int32_t i = 0; i < REQUESTS; i++)
        if (r->positions[i] > 0) move_rows(r, r->slot[i], r->positions[i], &r->rows[i], false);
}

/* ---- runs ---- */

static void make_model(saf_comm *world) {
    int64_t pid = getpid();
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &pid, 1);
    CHECK_OK(saf_comm_bcast(world, 0, &t));
    snprintf(path, sizeof path, "/tmp/saf-stop-%d.gguf", (int)pid);
    saf_model_make_options o = {.arch = "qwen3",
                                .layers = 4,
                                .width = 128,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_width = 32,
                                .ff_width = 256,
                                .context = CAPACITY,
                                .vocab_size = 4 * SAF_LOGIT_SEGMENT + 300,
                                .dtype = SAF_DTYPE_Q8_0,
                                .seed = 3};
    omp_set_num_threads(1); /* ranks are many enough */
    CHECK_OK(saf_kernels_init(NULL));
    if (saf_comm_rank(world) == 0) CHECK_OK(saf_model_make(path, &o));
    CHECK_OK(saf_comm_barrier(world));
    CHECK_OK(saf_gguf_open(path, &gguf));
    CHECK_OK(saf_model_params_read(gguf, &params));
}

static void free_model(saf_comm *world) {
    saf_model_params_free(&params);
    saf_gguf_close(&gguf);
    CHECK_OK(saf_comm_barrier(world));
    if (saf_comm_rank(world) == 0) unlink(path);
}

/* The prompt of each request, with what it has come to before. */
static void make_work(saf_work *work, const course *before, const run *first) {
    *work = (saf_work){.n_requests = REQUESTS};
    CHECK_OK(saf_alloc(REQUESTS, sizeof *work->requests, &work->requests));
    for (int32_t i = 0; i < REQUESTS; i++) {
        saf_request *r = &work->requests[i];
        int32_t so_far = before ? before[i].n : 0;
        *r = (saf_request){.key = (uint64_t)i * 77,
                           .n_prompt = PROMPT + i % 3 + so_far,
                           .max_tokens = wanted(i) - so_far,
                           .sampling = {.temperature = 0.8,
                                        .top_p = 1,
                                        .repeat_penalty = 1.1,
                                        .repeat_last = -1,
                                        .seed = 5}};
        r->cached = cached(first, i, r->n_prompt);
        CHECK_OK(saf_alloc((size_t)r->n_prompt, sizeof *r->prompt, &r->prompt));
        for (int32_t k = 0; k < r->n_prompt - so_far; k++) r->prompt[k] = (i * 31 + k * 7) % 300;
        if (so_far > 0)
            memcpy(r->prompt + r->n_prompt - so_far, before[i].ids,
                   (size_t)so_far * sizeof *r->prompt);
    }
}

/* before: what is not done goes on from there. */
static void run_all(saf_comm *world, const saf_layout *layout, const course *before, run *r) {
    saf_work work;
    saf_slice *slice = NULL;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    saf_schedule schedule = {.sequences = 3, .micro_batch = 2, .chunk = 8, .capacity = CAPACITY};
    int rank = saf_comm_rank(world);
    saf_slice_range range = saf_layout_range(layout, rank);
    saf_place place = saf_layout_place(layout, rank);
    saf_engine_events events = {.ctx = r,
                                .admitted = on_admitted,
                                .token = on_token,
                                .done = on_done,
                                .report = on_report,
                                .stop = on_stop,
                                .stopped = on_stopped,
                                .held = on_held,
                                .restore = on_restore};
    r->head = place.stage == 0 && place.part == 0;
    r->replica = place.replica;
    make_work(&work, before, r->first);
    r->range = range;
    CHECK_OK(saf_slice_load(gguf, &params, range, &slice));
    CHECK_OK(saf_group_new(world, layout, &params, &work, &schedule, &r->group));
    CHECK_OK(saf_kv_cache_new(&params, range, SAF_KV_F16, schedule.sequences, CAPACITY, &kv));
    CHECK_OK(saf_stage_new(&params, slice, kv, saf_schedule_room(&schedule, &work, range.head),
                           saf_group_stage(r->group), &stage));
    CHECK_OK(saf_comm_barrier(world));
    r->kv = kv;
    r->status = saf_engine_run(r->group, stage, &events, NULL, &r->times);
    CHECK(!r->times.apart);
    CHECK_EQ(r->after_stop, 0);
    if (r->keeps) keep_caches(world, r);
    for (int32_t i = 0; i < REQUESTS; i++) /* each that has any, once, on every rank */
        CHECK_EQ(layout->replicas > 1 ? 0 : work.requests[i].cached > 0, r->restored[i]);
    saf_stage_free(&stage);
    saf_group_free(&r->group);
    saf_kv_cache_free(&kv);
    saf_slice_free(&slice);
    saf_work_free(&work);
}

static int64_t sum(saf_comm *world, int64_t value) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &value, 1);
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    return value;
}

static int32_t heads_that_stopped(saf_comm *world, const run *r) {
    CHECK(r->head || !r->times.stopped);
    return (int32_t)sum(world, r->times.stopped);
}

/* Stops as *how says, then goes on, and rank 0 finds what `full` has. Returns how many of the
 * requests were left undone. */
static int32_t stop_and_go_on(saf_comm *world, const saf_layout *layout, const course *full,
                              const run *how) {
    run first = *how, second = {.stops = -1, .first = &first};
    int32_t undone = 0, begun = 0;
    run_all(world, layout, NULL, &first);
    CHECK_OK(first.status);
    for (int32_t i = 0; i < REQUESTS && first.replica == 0; i++) {
        const course *c = &first.courses[i];
        CHECK(c->n <= full[i].n &&
              memcmp(c->ids, full[i].ids, (size_t)c->n * sizeof(int32_t)) == 0);
        CHECK_EQ(c->done, c->n == full[i].n);
        undone += !c->done;
        begun += first.mine[i];
    }
    bool at_0 = saf_comm_rank(world) == 0;
    undone = (int32_t)sum(world, at_0 ? undone : 0);
    CHECK_EQ(heads_that_stopped(world, &first), undone > 0 ? layout->replicas : 0);
    /* Whatever a head drew, it tells, and nothing else. */
    int32_t drawn = (int32_t)sum(world, first.head ? first.admitted : 0);
    CHECK_EQ(drawn, sum(world, at_0 ? begun : 0));
    CHECK_EQ(first.stopped_calls, first.head && first.admitted > first.over);

    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, first.courses, sizeof first.courses);
    CHECK_OK(saf_comm_bcast(world, 0, &t));
    for (int32_t i = 0; i < REQUESTS; i++) second.courses[i].n = 0;
    course goes_on[REQUESTS];
    memcpy(goes_on, first.courses, sizeof goes_on);
    /* A request that is done would be no request of the job that resumes: here it repeats its last
     * token. */
    for (int32_t i = 0; i < REQUESTS; i++) goes_on[i].n -= goes_on[i].done;
    memcpy(second.courses, goes_on, sizeof goes_on);
    for (int32_t i = 0; i < REQUESTS; i++) second.courses[i].done = false;
    run_all(world, layout, goes_on, &second);
    CHECK_OK(second.status);
    CHECK_EQ(heads_that_stopped(world, &second), 0);
    for (int32_t i = 0; i < REQUESTS && at_0; i++) {
        CHECK_EQ(second.courses[i].n, full[i].n);
        CHECK(memcmp(second.courses[i].ids, full[i].ids, sizeof full[i].ids) == 0);
    }
    int32_t restored = 0;
    for (int32_t i = 0; i < REQUESTS; i++) restored += second.restored[i];
    CHECK(restored > 0 || !how->keeps || how->after_tokens == 0);
    for (int32_t i = 0; i < REQUESTS; i++) saf_buf_free(&first.rows[i]);
    return undone;
}

/* Every grid of so many ranks that the model's four layers and four heads allow. */
typedef void (*on_layout)(saf_comm *world, const saf_layout *layout);
static void each_layout(saf_comm *world, on_layout what) {
    int ranks = saf_comm_size(world);
    for (int32_t replicas = 1; replicas <= ranks; replicas++)
        for (int32_t stages = 1; replicas * stages <= ranks; stages++) {
            saf_layout layout = {0};
            if (ranks % (replicas * stages) != 0) continue;
            saf_layout_wish wish = {.ranks = ranks,
                                    .replicas = replicas,
                                    .stages = stages,
                                    .tensor = ranks / (replicas * stages)};
            if (CHECK_OK(saf_layout_choose(gguf, &params, &wish, &layout))) what(world, &layout);
            saf_layout_free(&layout);
        }
}

/* ---- cases ---- */

static course full[REQUESTS]; /* as each rank by itself finds it */

static void run_alone(saf_comm *world) {
    saf_comm *alone = NULL;
    saf_layout layout;
    run r = {.stops = -1};
    CHECK_OK(saf_comm_split(world, saf_comm_rank(world), 0, &alone));
    CHECK_OK(saf_layout_choose(gguf, &params, &(saf_layout_wish){.ranks = 1}, &layout));
    run_all(alone, &layout, NULL, &r);
    CHECK_OK(r.status);
    CHECK(!r.times.stopped && r.stopped_calls == 0);
    for (int32_t i = 0; i < REQUESTS; i++) CHECK_EQ(r.courses[i].n, wanted(i));
    memcpy(full, r.courses, sizeof full);
    saf_layout_free(&layout);
    saf_comm_free(&alone);
}

/* Of any head: before anything is computed, in the middle of prompts, of completions. */
static void stop_anywhere(saf_comm *world, const saf_layout *layout) {
    static const int32_t questions[] = {0, 2, 25};
    bool keeps = layout->replicas == 1;
    int32_t some = 0;
    for (int32_t head = 0; head < layout->replicas; head++) {
        for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
            run how = {.stops = head, .after_questions = questions[i], .keeps = keeps};
            int32_t undone = stop_and_go_on(world, layout, full, &how);
            if (i == 0 && layout->replicas == 1) CHECK_EQ(undone, REQUESTS);
            some += undone;
        }
        run how = {.stops = head, .after_tokens = 20};
        some += stop_and_go_on(world, layout, full, &how);
        how.keeps = keeps;
        some += stop_and_go_on(world, layout, full, &how);
    }
    CHECK(some > 0); /* a head whose processor others use may come too late, but not each time */
}

static void test_stop_anywhere_and_go_on(saf_comm *world) {
    each_layout(world, stop_anywhere);
}

/* Told to when it has nothing to do: all others are slow, and so stop in the middle; a head whose
 * processor others use may come too late, but not each time. */
static void stop_when_idle(saf_comm *world, const saf_layout *layout) {
    enum { TRIES = 4 };
    for (int32_t head = 0; head < layout->replicas && layout->replicas > 1; head++) {
        run how = {.stops = head, .when_idle = true, .after_tokens = 1};
        bool slow = saf_layout_place(layout, saf_comm_rank(world)).replica != head;
        how.token.tv_nsec = slow ? 20000000 : 0;
        int32_t undone = 0;
        for (int i = 0; i < TRIES && undone == 0; i++)
            undone = stop_and_go_on(world, layout, full, &how);
        CHECK(undone > 0);
    }
}

static void test_stop_by_a_head_that_is_idle(saf_comm *world) {
    if (saf_comm_size(world) == 1) {
        SKIP("one rank is never idle");
        return;
    }
    each_layout(world, stop_when_idle);
}

/* Nothing is left undone when it comes: the run is as any other. */
static void stop_too_late(saf_comm *world, const saf_layout *layout) {
    int32_t all = 0;
    for (int32_t i = 0; i < REQUESTS; i++) all += wanted(i);
    run r = {.stops = 0, .after_tokens = layout->replicas == 1 ? all : 1000000};
    run_all(world, layout, NULL, &r);
    CHECK_OK(r.status);
    CHECK_EQ(heads_that_stopped(world, &r), 0);
    CHECK_EQ(r.stopped_calls, 0);
    for (int32_t i = 0; i < REQUESTS && saf_comm_rank(world) == 0; i++) CHECK(r.courses[i].done);
}

static void test_stop_too_late(saf_comm *world) {
    each_layout(world, stop_too_late);
}

/* What a head cannot report in a stop fails the run. */
static void stop_and_fail(saf_comm *world, const saf_layout *layout) {
    int32_t bad = layout->replicas - 1;
    run r = {.stops = bad, .after_tokens = 3};
    saf_place place = saf_layout_place(layout, saf_comm_rank(world));
    if (place.replica == bad) r.when_stopped = SAF_IO;
    run_all(world, layout, NULL, &r);
    bool fails = r.stopped_calls > 0 && place.replica == bad;
    CHECK_EQ(r.status, fails ? SAF_IO : SAF_OK);
    fails = sum(world, fails) > 0;
    int64_t said = sum(world, r.said_yes);
    if (fails)
        CHECK_EQ(heads_that_stopped(world, &r), 0);
    else
        CHECK(layout->replicas > 1 && said == 0); /* it came too late */
}

static void test_stop_that_fails(saf_comm *world) {
    each_layout(world, stop_and_fail);
}

/* ---- */

static void test_stop_model(saf_comm *world) {
    make_model(world);
    run_alone(world);
}

static void test_stop_the_end(saf_comm *world) {
    free_model(world);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_stop_model),
        MPI_CASE(test_stop_anywhere_and_go_on),
        MPI_CASE(test_stop_by_a_head_that_is_idle),
        MPI_CASE(test_stop_too_late),
        MPI_CASE(test_stop_that_fails),
        MPI_CASE(test_stop_the_end),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
