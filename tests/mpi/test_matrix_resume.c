/* A product that is stopped between two steps goes on from what its ranks held, on another grid and
 * host table, to the same bits; and what cannot be such a state is refused. */
#include "matrix_fixture.h"

/* What all ranks held, the same on every rank. */
typedef struct {
    saf_product_part *parts;
    char **data;
    int64_t n, reads;
    size_t es;
} state;

static void state_free(state *s) {
    for (int64_t i = 0; i < s->n && s->data; i++) saf_free(&s->data[i]);
    saf_free(&s->parts);
    saf_free(&s->data);
}

static saf_status hold(saf_product *p, size_t es, saf_buf *mine) {
    saf_status st = SAF_OK;
    int64_t n = saf_product_held(p);
    for (int64_t i = 0; i < n; i++) {
        saf_product_part part = {.i = -1};
        const void *data = NULL;
        SAF_TRY(saf_product_held_at(p, i, &part, &data));
        CHECK((data == NULL) == (part.elements == 0));
        SAF_TRY(saf_buf_append(mine, &part, sizeof part));
        if (data) SAF_TRY(saf_buf_append(mine, data, (size_t)part.elements * es));
    }
    saf_product_part none;
    const void *data;
    CHECK_STATUS(saf_product_held_at(p, n, &none, &data), SAF_DEFECT);
    if (n > 1) { /* again, from the middle */
        CHECK_OK(saf_product_held_at(p, n / 2, &none, &data));
    }
out:
    return st;
}

static saf_status unpack(const saf_buf *all, state *s) {
    saf_status st = SAF_OK;
    size_t at = 0;
    SAF_TRY(saf_alloc(all->len / sizeof *s->parts + 1, sizeof *s->parts, &s->parts));
    SAF_TRY(saf_alloc(all->len / sizeof *s->parts + 1, sizeof *s->data, &s->data));
    while (at < all->len) {
        saf_product_part *part = &s->parts[s->n];
        memcpy(part, all->data + at, sizeof *part);
        at += sizeof *part;
        SAF_TRY(saf_alloc((size_t)part->elements, s->es, &s->data[s->n]));
        memcpy(s->data[s->n], all->data + at, (size_t)part->elements * s->es);
        at += (size_t)part->elements * s->es;
        s->n++;
    }
out:
    return st;
}

static saf_status gather(saf_comm *world, saf_product *p, state *s) {
    saf_status st = SAF_OK;
    int ranks = saf_comm_size(world);
    saf_buf mine = {0}, all = {0}, *each = NULL;
    SAF_TRY(saf_alloc((size_t)ranks, sizeof *each, &each));
    SAF_TRY(hold(p, s->es, &mine));
    SAF_TRY(saf_comm_gather_buf(world, 0, &mine, each));
    for (int r = 0; r < ranks; r++)
        SAF_TRY(saf_buf_append(&all, each[r].data ? each[r].data : "", each[r].len));
    SAF_TRY(saf_comm_bcast_buf(world, 0, &all));
    SAF_TRY(unpack(&all, s));
out:
    for (int r = 0; each && r < ranks; r++) saf_buf_free(&each[r]);
    saf_free(&each);
    saf_buf_free(&mine);
    saf_buf_free(&all);
    return st;
}

static saf_status read_part(void *ctx, int64_t index, void *out) {
    state *s = ctx;
    memcpy(out, s->data[index], (size_t)s->parts[index].elements * s->es);
    s->reads++;
    return SAF_OK;
}

/* ---- plans ------------------------------------------------------------------------------------*/

static saf_status any_plan(saf_comm *world, const matrix_case *x, uint64_t seed,
                           saf_product_plan **out) {
    int32_t hosts[64];
    int size = saf_comm_size(world);
    saf_product_ranks ranks = {.ranks = size, .host = hosts};
    host_table(world, (int)(seed % (uint64_t)host_tables()), hosts);
    if (seed % 4 == 3) ranks.memory_bytes = (int64_t)9 << 20; /* in rounds */
    int32_t m = 1 + (int32_t)(seed / 3 % 3), n = 1 + (int32_t)(seed / 9 % 2),
            k = 1 + (int32_t)(seed / 18 % 3);
    if (m * n * k > size || seed % 4 == 3) return saf_product_plan_new(&x->shape, &ranks, out);
    return saf__plan_grid(&x->shape, &ranks, m, n, k, out);
}

/* Stops after `first` steps, goes on for `second`, stops again, and comes to the end. */
static void stop_twice(saf_comm *world, matrix_case *x, uint64_t seed, int64_t first,
                       int64_t second) {
    saf_product_plan *plan[3] = {NULL};
    saf_product *p = NULL;
    state s[2] = {{.es = x->es}, {.es = x->es}};
    saf_product_io io = case_io(x);
    bool done = false;
    case_clear(x);
    saf__product_set_steps(seed % 2 ? 2e8 : 1e9, 4000000);
    for (uint64_t i = 0; i < 3; i++)
        if (!CHECK_OK(any_plan(world, x, seed + 7 * i, &plan[i]))) goto out;
    p = case_run(world, x, plan[0], 1, first);
    if (!p || !CHECK_OK(gather(world, p, &s[0]))) goto out;
    saf_product_free(&p);
    if (!CHECK_OK(saf_product_new(world, plan[1], x->alpha, x->beta, 2, &io, &p))) goto out;
    if (!CHECK_OK(saf_product_resume(p, s[0].parts, s[0].n, read_part, &s[0]))) goto out;
    for (int64_t i = 0; i < second && !done; i++) CHECK_OK(saf_product_step(p, &done));
    if (!CHECK_OK(gather(world, p, &s[1]))) goto out;
    saf_product_free(&p);
    if (!CHECK_OK(saf_product_new(world, plan[2], x->alpha, x->beta, 1, &io, &p))) goto out;
    if (!CHECK_OK(saf_product_resume(p, s[1].parts, s[1].n, read_part, &s[1]))) goto out;
    for (done = false; !done;)
        if (!CHECK_OK(saf_product_step(p, &done))) goto out;
    CHECK_OK(saf_product_finish(p));
    case_check(world, x);
out:
    saf_product_free(&p);
    for (int i = 0; i < 3; i++) saf_product_plan_free(&plan[i]);
    state_free(&s[0]);
    state_free(&s[1]);
}

static void test_matrix_resumes_elsewhere(saf_comm *world) {
    matrix_case x;
    if (CHECK_OK(case_new(&x, SAF_DTYPE_F32, 530, 272, 8200, 1.5, 0.25)))
        for (uint64_t seed = 0; seed < 24; seed += (uint64_t)every())
            stop_twice(world, &x, seed, (int64_t)(seed % 7 * 3), (int64_t)(seed % 5 * 3));
    case_free(&x);
}

/* Tiles that were written in an early round are not written again. */
static void test_matrix_resumes_in_rounds(saf_comm *world) {
    matrix_case x;
    if (CHECK_OK(case_new(&x, SAF_DTYPE_F64, 1030, 1100, 620, 1, 0)))
        for (uint64_t seed = 3; seed < 27; seed += 4 * (uint64_t)every())
            stop_twice(world, &x, seed, (int64_t)seed * 2, (int64_t)seed);
    case_free(&x);
}

/* What is not to be multiplied is only written. */
static void test_matrix_resumes_without_work(saf_comm *world) {
    matrix_case x;
    if (CHECK_OK(case_new(&x, SAF_DTYPE_F64, 300, 200, 0, 1, 2))) stop_twice(world, &x, 0, 1, 1);
    case_free(&x);
}

static void test_matrix_refuses_wrong_states(saf_comm *world) {
    matrix_case x;
    saf_product_plan *plan = NULL;
    if (!CHECK_OK(case_new(&x, SAF_DTYPE_F32, 530, 520, 8200, 1, 0))) return;
    saf_product_ranks ranks = {.ranks = saf_comm_size(world)};
    saf_product_io io = case_io(&x);
    if (!CHECK_OK(saf_product_plan_new(&x.shape, &ranks, &plan))) goto out;
    const saf_product_tiles *t = &plan->tiles;
    int64_t whole = t->tile_m * t->tile_n, panels = saf_product_segment(t, 0).end;
    CHECK(t->segments >= 4);
    const saf_product_part wrong[] = {
        {-1, 0, 0, 1, 1, whole},
        {t->tiles_m, 0, 0, 1, 1, whole},
        {0, t->tiles_n, 0, 1, 1, whole},
        {0, 0, -1, 1, 1, whole},
        {0, 0, t->segments, 1, 1, whole},
        {0, 0, 0, 3, 1, whole},
        {0, 0, 1, 2, 2 * panels, whole},
        {0, 0, 0, 2 * t->segments, t->panels, whole},
        {0, 0, 0, INT64_MIN, 1, whole},
        {0, 0, 0, 1, 0, whole},
        {0, 0, 0, 1, panels + 1, whole},
        {0, 0, 0, 2, 1, whole},
        {0, 0, 0, 1, 1, whole - 1},
        {0, 0, 0, 1, 1, -1},
        {0, 0, 0, 1, 1, 0},
        {0, 0, 1, 1, 1, whole}, /* this one could be, but not twice */
    };
    const int n = sizeof wrong / sizeof wrong[0];
    for (int i = 0; i < n; i++) {
        saf_product *p = NULL;
        saf_product_part parts[2] = {{0, 0, 1, 1, 1, whole}, wrong[i]};
        if (!CHECK_OK(saf_product_new(world, plan, 1, 0, 1, &io, &p))) continue;
        CHECK_STATUS(saf_product_resume(p, parts, 2, read_part, NULL), SAF_BAD_INPUT);
        saf_product_free(&p);
    }
out:
    saf_product_plan_free(&plan);
    case_free(&x);
}

static void test_matrix_refuses_wrong_plans(saf_comm *world) {
    saf_product_shape shape = {100, 100, 100, SAF_DTYPE_F32}, wrong = shape;
    saf_product_ranks ranks = {.ranks = saf_comm_size(world)};
    saf_product_plan *plan = NULL;
    wrong.m = -1;
    CHECK_STATUS(saf_product_plan_new(&wrong, &ranks, &plan), SAF_USAGE);
    wrong.m = wrong.k = INT64_MAX / 2;
    CHECK_STATUS(saf_product_plan_new(&wrong, &ranks, &plan), SAF_USAGE);
    wrong = shape;
    wrong.dtype = SAF_DTYPE_I32;
    CHECK_STATUS(saf_product_plan_new(&wrong, &ranks, &plan), SAF_USAGE);
    saf_product_ranks none = {.ranks = 0}, small = {.ranks = 1, .memory_bytes = 1000};
    CHECK_STATUS(saf_product_plan_new(&shape, &none, &plan), SAF_USAGE);
    CHECK_STATUS(saf_product_plan_new(&shape, &small, &plan), SAF_USAGE);
    CHECK_TEXT("MiB a rank at least");
    double slow = 0;
    saf_product_ranks stopped = {.ranks = 1, .speed = &slow};
    CHECK_STATUS(saf_product_plan_new(&shape, &stopped, &plan), SAF_USAGE);
    CHECK(!plan);
    ranks.ranks++;
    if (!CHECK_OK(saf_product_plan_new(&shape, &ranks, &plan))) return;
    saf_product *p = NULL;
    matrix_case x = {.shape = shape};
    saf_product_io io = case_io(&x);
    CHECK_STATUS(saf_product_new(world, plan, 1, 0, 1, &io, &p), SAF_USAGE);
    CHECK(!p);
    saf_product_plan_free(&plan);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_matrix_resumes_elsewhere),    MPI_CASE(test_matrix_resumes_in_rounds),
        MPI_CASE(test_matrix_resumes_without_work), MPI_CASE(test_matrix_refuses_wrong_states),
        MPI_CASE(test_matrix_refuses_wrong_plans),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
