/* Slices read and given, on every subset of ranks that have the file; and what fails. */
#include <omp.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "model/slice.h"
#include "mpi/mpi_test.h"
#include "saf/parallel.h"

static char path[64];

/* Large reads of this rank, each of which a disk may take its time for. */
static struct {
    long wait_ms;
    int n;
} reads;

ssize_t pread(int fd, void *to, size_t bytes, off_t offset) {
    struct timespec wait = {0, reads.wait_ms * 1000000};
    if (wait.tv_nsec > 0 && bytes > SAF_BLOCK_BYTES / 4) {
        nanosleep(&wait, NULL);
        __atomic_add_fetch(&reads.n, 1, __ATOMIC_SEQ_CST);
    }
    return syscall(SYS_pread64, fd, to, bytes, offset);
}

typedef struct {
    saf_gguf *own, *g; /* own: for comparing, g: what the rank is said to have */
    saf_model_params p;
    saf_layout layout;
    bool has;
    int32_t giver[8];
} view;

/* Rank 0 makes a file that all see. */
static void make_layers(saf_comm *world, int32_t layers, int64_t vocab) {
    int64_t pid = getpid();
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &pid, 1);
    CHECK_OK(saf_comm_bcast(world, 0, &t));
    snprintf(path, sizeof path, "/tmp/saf-load-%d.gguf", (int)pid);
    saf_model_make_options o = {.arch = "llama",
                                .layers = layers,
                                .width = 256,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_width = 64,
                                .ff_width = 1536,
                                .context = 128,
                                .vocab_size = vocab,
                                .dtype = SAF_DTYPE_F16,
                                .seed = 1};
    CHECK_OK(saf_kernels_init(NULL));
    if (saf_comm_rank(world) == 0) CHECK_OK(saf_model_make(path, &o));
    CHECK_OK(saf_comm_barrier(world));
}

static void make_model(saf_comm *world) {
    make_layers(world, 4, 9000);
}

/* has: bit r says whether rank r has the file. */
static void open_view(saf_comm *world, unsigned has, view *v) {
    saf_buf image = {0};
    *v = (view){.has = (has >> saf_comm_rank(world)) & 1};
    CHECK_OK(saf_gguf_open(path, &v->own));
    if (saf_comm_rank(world) == 0) CHECK_OK(saf_gguf_image_write(v->own, &image));
    CHECK_OK(saf_comm_bcast_buf(world, 0, &image));
    if (v->has)
        CHECK_OK(saf_gguf_open(path, &v->g));
    else
        CHECK_OK(saf_gguf_image_open(path, &image, &v->g));
    saf_buf_free(&image);
    CHECK_OK(saf_model_params_read(v->g, &v->p));
    CHECK_OK(saf_layout_choose(v->g, &v->p, &(saf_layout_wish){.ranks = saf_comm_size(world)},
                               &v->layout));
    CHECK_OK(saf_givers_choose(world, v->g, &v->p, &v->layout, v->has, v->giver));
}

static void close_view(view *v) {
    saf_layout_free(&v->layout);
    saf_model_params_free(&v->p);
    saf_gguf_close(&v->g);
    saf_gguf_close(&v->own);
}

typedef struct {
    size_t last, total;
    int calls, ends;
} seen;

static void see(void *ctx, size_t bytes, size_t total) {
    seen *s = ctx;
    CHECK(bytes >= s->last && bytes <= total);
    s->last = bytes;
    s->total = total;
    s->calls++;
    s->ends += bytes == total;
}

static void same_slices(const saf_slice *a, const saf_slice *b) {
    CHECK_EQ(saf_slice_memory_bytes(a), saf_slice_memory_bytes(b));
    const saf__layer *x = &a->layers[a->range.layer1 - a->range.layer0 - 1];
    const saf__layer *y = &b->layers[b->range.layer1 - b->range.layer0 - 1];
    /* From the first matrix to the end of the last: all of them. */
    size_t bytes = (size_t)((char *)x->down.data - a->matrices) + x->down.bytes;
    CHECK_EQ(bytes, (size_t)((char *)y->down.data - b->matrices) + y->down.bytes);
    CHECK(memcmp(a->matrices, b->matrices, bytes) == 0);
    CHECK(memcmp(x->ffn_norm, y->ffn_norm, 256 * sizeof(float)) == 0);
    CHECK(!a->output_norm == !b->output_norm);
    if (a->output_norm) CHECK(memcmp(a->output_norm, b->output_norm, 256 * sizeof(float)) == 0);
}

static int64_t counted(saf_count_kind kind) {
    saf_comm_counter c[SAF_COUNT_KINDS];
    saf_comm_counters(c);
    return c[kind].bytes;
}

static void test_load_any_subset_has_the_file(saf_comm *world) {
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    make_model(world);
    for (unsigned has = 1; has < 1u << ranks; has += 2) {
        view v;
        saf_slice *given = NULL, *read = NULL;
        seen s = {0};
        saf_load_events events = {&s, rank == 0 && has % 4 == 1 ? see : NULL};
        saf_load_times times = {.apart = true};
        open_view(world, has, &v);
        size_t replicated,
            bytes = saf_slice_file_bytes(v.g, &v.p, saf_layout_range(&v.layout, rank), &replicated);
        for (int r = 0; r < ranks; r++) CHECK(has >> v.giver[r] & 1);
        if (v.has) CHECK_EQ(v.giver[rank], rank);
        int64_t before = counted(SAF_COUNT_RECV);
        CHECK_OK(saf_load_slices(world, v.g, &v.p, &v.layout, v.giver, &events, &times, &given));
        int64_t came = counted(SAF_COUNT_RECV) - before;
        CHECK(!times.apart && times.slice_s > 0);
        if (v.has)
            CHECK(came < 1000); /* rank 0: what the others say */
        else
            CHECK(came >= (int64_t)bytes && came < (int64_t)bytes + 64 * 100);
        if (events.loaded) CHECK(s.ends >= 1 && s.last == s.total && s.total >= bytes);
        CHECK_OK(
            saf_slice_load(v.own, &v.p, saf_layout_range(&v.layout, saf_comm_rank(world)), &read));
        if (given && read) same_slices(given, read);
        saf_slice_free(&given);
        saf_slice_free(&read);
        close_view(&v);
    }
    if (rank == 0) CHECK_EQ(unlink(path), 0);
}

/* Every rank that has none is given to by another one, where there are as many of both. */
static void test_load_givers_share_the_work(saf_comm *world) {
    int ranks = saf_comm_size(world);
    view v;
    make_model(world);
    if (ranks == 4) {
        open_view(world, 5, &v); /* 0 and 2 have it */
        CHECK_EQ(v.giver[0], 0);
        CHECK_EQ(v.giver[2], 2);
        CHECK_EQ(v.giver[1] + v.giver[3], 2);
        close_view(&v);
    } else if (ranks == 1) {
        open_view(world, 1, &v);
        CHECK_EQ(v.giver[0], 0);
        close_view(&v);
    }
    CHECK_OK(saf_comm_barrier(world));
    if (saf_comm_rank(world) == 0) CHECK_EQ(unlink(path), 0);
}

typedef struct {
    size_t own; /* and the most that others can have when rank 0 has its own slice */
    int reads;  /* before the first event with more, and less than everything */
} frozen;

static void see_between(void *ctx, size_t bytes, size_t total) {
    frozen *f = ctx;
    if (f->reads == 0 && bytes > f->own && bytes < total)
        f->reads = __atomic_load_n(&reads.n, __ATOMIC_SEQ_CST);
}

/* Rank 0 alone has the file, on a slow disk, and one layer of many: it goes on telling while it
 * gives the others theirs, long after its own is there. */
static void test_load_tells_while_it_gives(saf_comm *world) {
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world), threads = omp_get_max_threads();
    int32_t given[8];
    view v;
    saf_blocks *own = NULL;
    saf_slice *slice = NULL;
    frozen f = {0};
    saf_load_events events = {&f, rank == 0 ? see_between : NULL};
    saf_load_times times;
    if (ranks == 1) return;
    make_layers(world, 15 + ranks, 400);
    open_view(world, 1, &v);
    for (int r = 0; r < ranks; r++) given[r] = 1;
    given[ranks - 1] = v.p.layers - (ranks - 1);
    saf_layout_free(&v.layout);
    CHECK_OK(saf_layout_choose(
        v.g, &v.p, &(saf_layout_wish){.ranks = ranks, .layers = given, .n_layers = ranks},
        &v.layout));
    CHECK_OK(saf_blocks_new(v.own, &v.p, saf_layout_range(&v.layout, 0), &own));
    f.own =
        saf_blocks_total(own) + (size_t)saf_blocks_count(own) * SAF_GIVEN_BLOCKS * SAF_BLOCK_BYTES;
    if (rank == 0) reads.wait_ms = 100;
    omp_set_num_threads(2);
    CHECK_OK(saf_load_slices(world, v.g, &v.p, &v.layout, v.giver, &events, &times, &slice));
    omp_set_num_threads(threads);
    reads.wait_ms = 0;
    if (rank == 0) CHECK(f.reads > 0 && f.reads < reads.n);
    saf_blocks_free(&own);
    saf_slice_free(&slice);
    close_view(&v);
    CHECK_OK(saf_comm_barrier(world));
    if (rank == 0) CHECK_EQ(unlink(path), 0);
}

/* The file becomes shorter when all have opened it: the slice of one rank cannot be read, and all
 * hear of it, whoever gives to whom. */
static void test_load_file_cut_short(saf_comm *world) {
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    make_model(world);
    for (unsigned has = 1; has < 1u << ranks; has += 2) {
        for (int part = 1; part <= 3; part++) {
            view v;
            saf_slice *slice = NULL;
            saf_load_events events = {NULL, NULL};
            seen s = {0};
            saf_load_times times = {.apart = true};
            if (rank == 0 && part == 2) events = (saf_load_events){&s, see};
            open_view(world, has, &v);
            CHECK_OK(saf_comm_barrier(world));
            off_t bytes = (off_t)saf_gguf_file_bytes(v.own);
            if (rank == 0) CHECK_EQ(truncate(path, bytes * part / 4), 0);
            CHECK_OK(saf_comm_barrier(world));
            CHECK_STATUS(
                saf_load_slices(world, v.g, &v.p, &v.layout, v.giver, &events, &times, &slice),
                SAF_BAD_INPUT);
            CHECK_TEXT("has become shorter");
            CHECK(!times.apart && !slice);
            close_view(&v);
            CHECK_OK(saf_comm_barrier(world));
            if (rank == 0) CHECK_EQ(unlink(path), 0);
            make_model(world);
        }
    }
    if (rank == 0) CHECK_EQ(unlink(path), 0);
}

/* Whole models on every rank, of which only rank 0 has the file, each given what it holds by the
 * rank before it: of the file, or what of it can be read. */
static void pass_on(saf_comm *world, bool cut, saf_status expected) {
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    view v;
    saf_slice *given = NULL, *read = NULL;
    saf_load_events events = {NULL, NULL};
    saf_load_times times = {.apart = true};
    make_model(world);
    open_view(world, 1, &v);
    saf_layout_free(&v.layout);
    CHECK_OK(saf_layout_choose(v.g, &v.p, &(saf_layout_wish){.ranks = ranks, .replicas = ranks},
                               &v.layout));
    for (int r = 0; r < ranks; r++) v.giver[r] = r > 0 ? r - 1 : 0;
    off_t bytes = (off_t)saf_gguf_file_bytes(v.own);
    CHECK_OK(saf_slice_load(v.own, &v.p, saf_layout_range(&v.layout, rank), &read));
    CHECK_OK(saf_comm_barrier(world));
    if (rank == 0 && cut) CHECK_EQ(truncate(path, bytes / 2), 0);
    CHECK_OK(saf_comm_barrier(world));
    int64_t before = counted(SAF_COUNT_SEND);
    CHECK_STATUS(saf_load_slices(world, v.g, &v.p, &v.layout, v.giver, &events, &times, &given),
                 expected);
    int64_t sent = counted(SAF_COUNT_SEND) - before;
    CHECK(!times.apart && (given != NULL) == (expected == SAF_OK));
    if (given && read) same_slices(given, read);
    if (!cut) CHECK(rank < ranks - 1 ? sent > bytes / 2 && sent < bytes * 5 / 4 : sent < 1000);
    saf_slice_free(&given);
    saf_slice_free(&read);
    close_view(&v);
    CHECK_OK(saf_comm_barrier(world));
    if (rank == 0) CHECK_EQ(unlink(path), 0);
}

static void test_load_passed_on(saf_comm *world) {
    pass_on(world, false, SAF_OK);
    pass_on(world, true, SAF_BAD_INPUT);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_load_any_subset_has_the_file),
        MPI_CASE(test_load_givers_share_the_work),
        MPI_CASE(test_load_tells_while_it_gives),
        MPI_CASE(test_load_file_cut_short),
        MPI_CASE(test_load_passed_on),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
