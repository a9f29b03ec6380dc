/* What is recorded of a rank: which entries are kept, and their times on another clock. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
/* after what it needs */
#include <cmocka.h>

#include "parallel/trace.h"

static saf_trace_entry *packed(const saf_trace *t, double zero_s, saf_buf *buf, int64_t *n) {
    assert_int_equal(saf_trace_pack(t, zero_s, buf), SAF_OK);
    assert_int_equal(buf->len % sizeof(saf_trace_entry), 0);
    *n = (int64_t)(buf->len / sizeof(saf_trace_entry));
    return (saf_trace_entry *)buf->data;
}

static void close_to(double got, double expected) {
    if (!(fabs(got - expected) < 1e-9)) fail_msg("got %.12g, expected %.12g", got, expected);
}

static void test_trace_keeps_what_it_is_given(void **state) {
    (void)state;
    saf_trace *t = NULL;
    saf_buf buf = {0};
    int64_t n;
    assert_int_equal(saf_trace_new(1, &t), SAF_OK);
    packed(t, 0, &buf, &n);
    assert_int_equal(n, 0);
    saf_trace_add(t, SAF_TRACE_EXCHANGE, 101, 101.5, 7, 3);
    saf_trace_add(t, SAF_TRACE_COMPUTE, 100.25, 102, 7, 3);
    saf_trace_add(t, SAF_TRACE_WAIT, 99, 99.5, -1, 0);   /* over before zero */
    saf_trace_add(t, SAF_TRACE_WAIT, 99.5, 100.5, 8, 0); /* and across it */
    saf_trace_entry *e = packed(t, 100, &buf, &n);
    assert_int_equal(n, 4);
    assert_int_equal(e[0].kind, SAF_TRACE_EXCHANGE);
    assert_int_equal(e[1].kind, SAF_TRACE_COMPUTE);
    assert_true(e[1].flight == 7 && e[1].tokens == 3);
    assert_true(e[1].start_s == 0.25 && e[1].end_s == 2);
    assert_true(e[2].start_s == 0 && e[2].end_s == 0);
    assert_true(e[3].start_s == 0 && e[3].end_s == 0.5);
    saf_buf_free(&buf);
    saf_trace_free(&t);
    assert_null(t);
    saf_trace_free(&t);
    saf_trace_add(NULL, SAF_TRACE_COMPUTE, 1, 2, 3, 4);
}

/* More entries than there is room for: the newest are kept, and it is said until when older ones
 * are lost, which is not after an entry that is kept has begun. */
static void test_trace_drops_the_oldest(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 1 << 12; ranks *= 8) {
        saf_trace *t = NULL;
        saf_buf buf = {0};
        int64_t n, size = 0;
        assert_int_equal(saf_trace_new(ranks, &t), SAF_OK);
        size = t->capacity;
        assert_true(size >= 4096 && size <= 1 << 18);
        assert_true(size == 4096 || size * ranks <= 1 << 21);
        for (int64_t i = 0; i < size; i++)
            saf_trace_add(t, SAF_TRACE_COMPUTE, (double)i, (double)i + 1, i, 1);
        saf_trace_entry *e = packed(t, 0, &buf, &n);
        assert_int_equal(n, size);
        assert_int_equal(e[0].kind, SAF_TRACE_COMPUTE);
        saf_buf_clear(&buf);
        for (int64_t i = size; i < size + 10; i++)
            saf_trace_add(t, SAF_TRACE_SEND, (double)i, (double)i + 1, i, 1);
        saf_trace_add(t, SAF_TRACE_COMPUTE, 7.5, (double)size + 10, size + 10, 1);
        e = packed(t, 0, &buf, &n);
        assert_int_equal(n, size + 1);
        assert_int_equal(e[0].kind, SAF_TRACE_DROPPED);
        assert_true(e[0].start_s == 0 && e[0].end_s == 7.5);
        for (int64_t i = 1; i < n; i++) assert_true(e[i].flight == i + 10);
        saf_buf_free(&buf);
        saf_trace_free(&t);
    }
}

/* A clock that starts elsewhere and runs faster than rank 0's. */
static void test_trace_corrects_another_clock(void **state) {
    (void)state;
    const double start = 5000, rate = 1.0002; /* it shows start + rate * (rank 0's time) */
    saf_trace *t = NULL;
    assert_int_equal(saf_trace_new(2, &t), SAF_OK);
    t->first = (saf__clock_meeting){start + rate * 10, start + rate * 10 - 10};
    t->last = t->first;
    close_to(saf__trace_on_rank0(t, start + rate * 10), 10);
    t->last = (saf__clock_meeting){start + rate * 3610, start + rate * 3610 - 3610};
    for (double s = 10; s <= 3610; s += 450) close_to(saf__trace_on_rank0(t, start + rate * s), s);
    saf_trace_free(&t);
}

/* Rank 0 lost its core in the second meeting of a short run: a second does not grow to 1.02. */
static void test_trace_believes_no_clock_that_runs_away(void **state) {
    (void)state;
    saf_trace *t = NULL;
    assert_int_equal(saf_trace_new(2, &t), SAF_OK);
    for (double error = -1e-3; error < 2e-3; error += 2e-3) {
        t->first = (saf__clock_meeting){100, 90};
        t->last = (saf__clock_meeting){100.05, 90 + error};
        double took = saf__trace_on_rank0(t, 100.04) - saf__trace_on_rank0(t, 100.01);
        assert_true(fabs(took - 0.03) < 0.03 * 501e-6);
    }
    saf_trace_free(&t);
}

static void test_trace_kinds_have_names(void **state) {
    (void)state;
    for (int i = 0; i < SAF_TRACE_KINDS; i++) {
        const char *name = saf_trace_kind_name((saf_trace_kind)i);
        assert_true(name && strlen(name) > 3 && strlen(name) < 12);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(name, saf_trace_kind_name((saf_trace_kind)k));
    }
    assert_string_equal(saf_trace_kind_name(SAF_TRACE_KINDS), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trace_keeps_what_it_is_given),
        cmocka_unit_test(test_trace_drops_the_oldest),
        cmocka_unit_test(test_trace_corrects_another_clock),
        cmocka_unit_test(test_trace_believes_no_clock_that_runs_away),
        cmocka_unit_test(test_trace_kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
