/* Rings of messages: against a plain queue, full and empty, at every length, and between threads.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "comm/ring.h"
#include "comm/transport.h"
#include "saf/core.h"

enum { DATA_BYTES = 1024, LEN_MOST = DATA_BYTES / 2 };

typedef struct {
    saf__ring *ring;
    saf__ring_end in, out;
} pair;

static pair make(void) {
    pair p = {.ring = aligned_alloc(SAF__WINDOW_ALIGN, saf__ring_bytes(DATA_BYTES))};
    assert_non_null(p.ring);
    memset(p.ring, 0, saf__ring_bytes(DATA_BYTES));
    p.in = p.out = (saf__ring_end){.ring = p.ring, .data_bytes = DATA_BYTES};
    return p;
}

/* Message n: any length, and bytes that no other has. */
static uint32_t mix(uint32_t n) {
    n = (n ^ (n >> 16)) * 0x45d9f3b;
    n = (n ^ (n >> 16)) * 0x45d9f3b;
    return n ^ (n >> 16);
}

static saf__ring_message message(uint32_t n, char bytes[LEN_MOST]) {
    static const uint16_t edges[] = {0, 1, 47, 48, 49, 63, 64, 65, LEN_MOST - 1, LEN_MOST};
    uint32_t x = mix(n);
    uint16_t len = x % 4 == 0 ? edges[(x >> 8) % 10] : (uint16_t)((x >> 8) % (LEN_MOST + 1));
    for (int i = 0; i < len; i++) bytes[i] = (char)mix(n * 613 + (uint32_t)i);
    return (saf__ring_message){.comm = x, .tag = (uint16_t)(x >> 3), .len = len, .bytes = bytes};
}

static bool is_message(const saf__ring_message *got, uint32_t n) {
    char bytes[LEN_MOST];
    saf__ring_message right = message(n, bytes);
    return got->comm == right.comm && got->tag == right.tag && got->len == right.len &&
           memcmp(got->bytes, bytes, right.len) == 0;
}

static void test_comm_ring_is_a_queue(void **state) {
    (void)state;
    pair p = make();
    char bytes[LEN_MOST];
    saf__ring_message m, again;
    uint32_t put = 0, taken = 0, full = 0;
    assert_false(saf__ring_look(&p.in, &m));
    for (uint32_t step = 0; taken < 200000; step++) {
        /* Mostly full, then mostly empty. */
        bool fill = mix(step) % 16 < (step / 10000 % 2 ? 12 : 4);
        m = message(put, bytes);
        if (fill && saf__ring_put(&p.out, &m)) {
            put++;
        } else if (fill) {
            full++;
            assert_true(put > taken); /* there is room in an empty one */
        } else if (saf__ring_look(&p.in, &m)) {
            assert_true(is_message(&m, taken));
            assert_true(saf__ring_look(&p.in, &again) && again.bytes == m.bytes);
            saf__ring_take(&p.in);
            taken++;
        } else {
            assert_int_equal(put, taken);
        }
    }
    assert_true(full > 1000);
    free(p.ring);
}

static void test_comm_ring_holds_what_fits(void **state) {
    (void)state;
    pair p = make();
    char bytes[LEN_MOST] = {1};
    saf__ring_message m = {.comm = 1, .tag = 2, .len = 0, .bytes = bytes}, got;
    int held = 0;
    while (saf__ring_put(&p.out, &m)) held++;
    assert_int_equal(held, SAF__RING_SLOTS);
    while (saf__ring_look(&p.in, &got)) saf__ring_take(&p.in);
    m.len = LEN_MOST;
    for (held = 0; saf__ring_put(&p.out, &m); held++) {
    }
    assert_int_equal(held, 2);
    assert_true(saf__ring_look(&p.in, &got));
    assert_false(saf__ring_put(&p.out, &m)); /* looked at, it is still there */
    saf__ring_take(&p.in);
    assert_true(saf__ring_put(&p.out, &m));
    free(p.ring);
}

enum { STREAM = 300000 };

static void *fill_all(void *arg) {
    pair *p = arg;
    char bytes[LEN_MOST];
    for (uint32_t n = 0; n < STREAM; n++) {
        saf__ring_message m = message(n, bytes);
        while (!saf__ring_put(&p->out, &m)) sched_yield();
    }
    return NULL;
}

static void test_comm_ring_between_threads(void **state) {
    (void)state;
    pair p = make();
    pthread_t thread;
    uint32_t wrong = 0;
    saf__ring_message m;
    assert_int_equal(pthread_create(&thread, NULL, fill_all, &p), 0);
    for (uint32_t n = 0; n < STREAM; n++) {
        while (!saf__ring_look(&p.in, &m)) sched_yield();
        wrong += !is_message(&m, n);
        saf__ring_take(&p.in);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    free(p.ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comm_ring_is_a_queue),
        cmocka_unit_test(test_comm_ring_holds_what_fits),
        cmocka_unit_test(test_comm_ring_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
