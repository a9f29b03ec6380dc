/* Short messages inside a host, which go past MPI: more than there is room for, in any order, over
 * several communicators, and with nobody to ask for them. */
#include "comm/transport.h"
#include "mpi_test.h"

enum { MANY = 400, BYTES_MOST = 8192 };

/* Message i: short and long ones, those that just fit into what there is, and empty ones. */
static int64_t length(int i) {
    static const int64_t edges[] = {0,    1,    31,   32,   33,   1984,
                                    1985, 2047, 2048, 2049, 8191, BYTES_MOST};
    return i % 3 == 0 ? edges[i / 3 % 12] : (int64_t)i * 37 % 3000;
}

static void fill(char *bytes, int64_t len, int i) {
    for (int64_t k = 0; k < len; k++) bytes[k] = (char)(i * 31 + k * 7 + k / 251);
}

typedef struct {
    char *bytes;
    saf_tensor t;
    saf_comm_request *request;
} post;

static post *posts_new(void) {
    post *p = calloc(MANY, sizeof *p);
    for (int i = 0; p && i < MANY; i++) {
        p[i].bytes = malloc(BYTES_MOST);
        if (!p[i].bytes) abort();
        p[i].t = saf_tensor_1d(SAF_DTYPE_U8, p[i].bytes, BYTES_MOST);
    }
    if (!p) abort();
    return p;
}

static void posts_free(post *p) {
    for (int i = 0; i < MANY; i++) free(p[i].bytes);
    free(p);
}

static void send_one(saf_comm *comm, int dest, post *p, int i) {
    p->t = saf_tensor_1d(SAF_DTYPE_U8, p->bytes, length(i));
    fill(p->bytes, length(i), i);
    CHECK_OK(saf_comm_isend(comm, dest, i % 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT, &p->t, &p->request));
}

static void receive_one(saf_comm *comm, int source, int i) {
    char got[BYTES_MOST], right[BYTES_MOST];
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, got, BYTES_MOST);
    fill(right, length(i), i);
    CHECK_OK(saf_comm_recv(comm, source, i % 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT, BYTES_MOST, &t));
    CHECK(t.shape[0] == length(i) && memcmp(got, right, (size_t)length(i)) == 0);
}

/* All of one tag before all of the other. */
static void receive_all(saf_comm *comm, int source) {
    for (int first = 1; first >= 0; first--)
        for (int i = first; i < MANY; i += 2) receive_one(comm, source, i);
}

static void wait_all(post *p) {
    for (int i = 0; i < MANY; i++) CHECK_OK(saf_comm_wait(&p[i].request));
}

/* Some ranks are on other hosts: what MPI has of a communicator that has ended, it may give to the
 * next one. */
static bool hosts(void) {
    return getenv("SAF_TEST_HOSTS") != NULL;
}

static void test_comm_near_goes_past_mpi(saf_comm *world) {
    char byte = 1;
    saf__op in = {0}, out = {0};
    int next = (world->rank + 1) % world->size;
    int before = (world->rank + world->size - 1) % world->size;
    bool done = false;
    size_t got = 0;
    if (world->size == 1) {
        SKIP("one rank has nobody beside it");
        return;
    }
    CHECK_OK(world->transport->irecv(world, before, SAF_TAG_TEST, &byte, 1, &in));
    CHECK(in.pending && (in.near || hosts()));
    CHECK_OK(world->transport->isend(world, next, SAF_TAG_TEST, "x", 1, &out));
    CHECK(!out.pending || hosts());
    while (!done && CHECK_OK(world->transport->test(world, &in, &done, &got))) {
    }
    CHECK_OK(saf__wait_ops(world, &out, 1));
    CHECK(got == 1 && byte == 'x');
}

/* One that waits for a message through a ring, or asks again and again, lets messages of others
 * come in as well, by a ring or by MPI: here `far` may be on another host, and must be heard before
 * the word is given. */
static void test_comm_near_hears_others(saf_comm *world) {
    int many = world->size > 7, me = many ? 1 : 0, helper = me + 1, far = many ? 4 : 2;
    int32_t word = 3;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &word, 1);
    if (world->size < 3) {
        SKIP("needs three ranks");
        return;
    }
    for (int polls = 0; polls < 2; polls++) {
        enum { FLOOD = 300 };
        if (world->rank == far) {
            for (int i = 0; i < FLOOD; i++) CHECK_OK(saf_comm_send(world, me, SAF_TAG_FLIGHT, &t));
            CHECK_OK(saf_comm_send(world, helper, SAF_TAG_TEST, &t));
        } else if (world->rank == helper) {
            CHECK_OK(saf_comm_recv(world, far, SAF_TAG_TEST, sizeof word, &t));
            CHECK_OK(saf_comm_send(world, me, SAF_TAG_TEST, &t));
        } else if (world->rank == me) {
            saf_comm_request *r = NULL;
            bool done = false;
            CHECK_OK(saf_comm_irecv(world, helper, SAF_TAG_TEST, sizeof word, &t, &r));
            while (polls && !done && CHECK_OK(saf_comm_test(&r, &done))) {
            }
            CHECK_OK(saf_comm_wait(&r));
            for (int i = 0; i < FLOOD; i++)
                CHECK_OK(saf_comm_recv(world, far, SAF_TAG_FLIGHT, sizeof word, &t));
        }
        CHECK_OK(saf_comm_barrier(world));
    }
}

/* Everybody sends far more than there is room for before anybody asks. */
static void test_comm_near_takes_more_than_it_has_room_for(saf_comm *world) {
    post *p = posts_new();
    int next = (world->rank + 1) % world->size;
    int before = (world->rank + world->size - 1) % world->size;
    for (int i = 0; i < MANY; i++) send_one(world, next, &p[i], i);
    CHECK_OK(saf_comm_barrier(world));
    receive_all(world, before);
    wait_all(p);
    posts_free(p);
}

/* The first one waits until all is sent before it gives the word that the next one waits for. */
static void test_comm_near_waits_for_nobody_who_waits(saf_comm *world) {
    post *p = posts_new();
    int last = world->size - 1;
    int32_t word = 7;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &word, 1);
    if (world->size < 3) {
        SKIP("needs three ranks");
        posts_free(p);
        return;
    }
    if (world->rank == 0) {
        for (int i = 0; i < MANY; i++) send_one(world, 1, &p[i], i);
        wait_all(p);
        CHECK_OK(saf_comm_send(world, last, SAF_TAG_TEST, &t));
    } else if (world->rank == last) {
        CHECK_OK(saf_comm_recv(world, 0, SAF_TAG_TEST, sizeof word, &t));
        CHECK_OK(saf_comm_send(world, 1, SAF_TAG_TEST, &t));
    } else if (world->rank == 1) {
        CHECK_OK(saf_comm_recv(world, last, SAF_TAG_TEST, sizeof word, &t));
        CHECK(word == 7);
        receive_all(world, 0);
    }
    CHECK_OK(saf_comm_barrier(world));
    posts_free(p);
}

/* MPI makes a communicator, and knows nothing of what waits to be sent; every second rank wants it
 * first. */
static void test_comm_near_sends_while_mpi_waits(saf_comm *world) {
    post *p = posts_new();
    saf_comm *copy = NULL, *part = NULL;
    int next = (world->rank + 1) % world->size;
    int before = (world->rank + world->size - 1) % world->size;
    for (int i = 0; i < MANY; i++) send_one(world, next, &p[i], i);
    if (world->rank % 2 == 1) receive_all(world, before);
    CHECK_OK(saf_comm_dup(world, &copy));
    CHECK_OK(saf_comm_split(world, world->rank % 2, world->rank, &part));
    saf_comm_free(&part);
    saf_comm_free(&copy);
    if (world->rank % 2 == 0) receive_all(world, before);
    wait_all(p);
    posts_free(p);
}

/* The same tag on several communicators, asked for in another order than sent; what is never asked
 * for is not found by those that come after. */
static void test_comm_near_keeps_communicators_apart(saf_comm *world) {
    enum { COPIES = 4 };
    saf_comm *copies[COPIES] = {NULL};
    int32_t sent[COPIES + 1], word;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &word, 1);
    saf_comm_request *requests[COPIES + 1] = {NULL};
    int me = world->rank;
    for (int round = 0; round < 3; round++) {
        for (int c = 0; c < COPIES; c++) /* other ranks, other neighbours */
            CHECK_OK(saf_comm_split(world, c == 3 ? me % 2 : 0, c % 2 ? -me : me, &copies[c]));
        for (int c = 0; c < COPIES; c++) {
            const saf_comm *in = copies[c];
            sent[c] = (int32_t)(round * 1000 + c * 100 + me);
            saf_tensor out = saf_tensor_1d(SAF_DTYPE_I32, &sent[c], 1);
            CHECK_OK(saf_comm_isend(copies[c], (in->rank + 1) % in->size, SAF_TAG_TEST, &out,
                                    &requests[c]));
        }
        for (int c = COPIES - 1; c >= 0; c--) {
            const saf_comm *in = copies[c];
            int from = (in->rank + in->size - 1) % in->size;
            int place = in->places ? in->places[from] : from;
            if (c == round && !hosts()) continue; /* never asked for */
            CHECK_OK(saf_comm_recv(copies[c], from, SAF_TAG_TEST, sizeof word, &t));
            mpi_test_i64(word, round * 1000 + c * 100 + place, "word", __FILE__, __LINE__);
        }
        for (int c = 0; c < COPIES; c++) {
            CHECK_OK(saf_comm_wait(&requests[c]));
            saf_comm_free(&copies[c]);
        }
        CHECK_OK(saf_comm_barrier(world));
    }
}

static void test_comm_near_cancels(saf_comm *world) {
    int next = (world->rank + 1) % world->size;
    int before = (world->rank + world->size - 1) % world->size;
    int32_t out = 5, in = 0;
    saf_tensor sent = saf_tensor_1d(SAF_DTYPE_I32, &out, 1),
               t = saf_tensor_1d(SAF_DTYPE_I32, &in, 1);
    saf_comm_request *r = NULL;
    for (int come = 0; come < 2; come++) {
        CHECK_OK(saf_comm_irecv(world, before, SAF_TAG_TEST, sizeof in, &t, &r));
        if (come == 0) saf_comm_cancel(&r); /* before it is sent: it is not lost */
        CHECK_OK(saf_comm_barrier(world));
        CHECK_OK(saf_comm_send(world, next, SAF_TAG_TEST, &sent));
        CHECK_OK(saf_comm_barrier(world)); /* and now it is there */
        if (come == 0) CHECK_OK(saf_comm_recv(world, before, SAF_TAG_TEST, sizeof in, &t));
        if (come == 0) CHECK(in == 5);
        saf_comm_cancel(&r);
        out++;
    }
    CHECK_OK(saf_comm_send(world, next, SAF_TAG_TEST, &sent));
    CHECK_OK(saf_comm_recv(world, before, SAF_TAG_TEST, sizeof in, &t));
    CHECK(in == 7); /* the cancelled one was used up */
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_comm_near_hears_others),
        MPI_CASE(test_comm_near_goes_past_mpi),
        MPI_CASE(test_comm_near_takes_more_than_it_has_room_for),
        MPI_CASE(test_comm_near_waits_for_nobody_who_waits),
        MPI_CASE(test_comm_near_sends_while_mpi_waits),
        MPI_CASE(test_comm_near_keeps_communicators_apart),
        MPI_CASE(test_comm_near_cancels),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
