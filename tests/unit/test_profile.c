/* Profiles of hosts: rounds in which every two meet once, the key of a set of hosts, a file and
 * back, and files that are no profile or say what cannot be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "job/plan/detect.h"
#include "saf/store.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char folder[] = "/tmp/saf-profile-XXXXXX";
static char path[64];

static void test_profile_rounds(void **state) {
    (void)state;
    enum { MOST = 20 };
    for (int32_t n = 0; n <= MOST; n++) {
        int met[MOST][MOST] = {{0}};
        assert_int_equal(saf__detect_rounds(n), n < 2 ? 0 : n - 1 + n % 2);
        for (int32_t r = 0; r < saf__detect_rounds(n); r++)
            for (int32_t i = 0; i < n; i++) {
                int32_t j = saf__detect_partner(n, r, i);
                if (j < 0) continue;
                assert_true(j < n && j != i);
                assert_int_equal(saf__detect_partner(n, r, j), i);
                met[i][j]++;
            }
        for (int32_t i = 0; i < n; i++)
            for (int32_t j = 0; j < n; j++) assert_int_equal(met[i][j], i != j);
    }
}

/* Twice the caches, at least 128 MiB, at most a sixteenth of the memory; hosts that are one machine
 * together no more than one of them alone would, but for the least. */
static void test_profile_blocks(void **state) {
    (void)state;
    const int64_t mib = 1 << 20;
    assert_int_equal(saf__detect_block_bytes(480 * mib, 24576 * mib, 1), 960 * mib);
    assert_int_equal(saf__detect_block_bytes(480 * mib, 24576 * mib, 4), 240 * mib);
    assert_int_equal(saf__detect_block_bytes(480 * mib, 24576 * mib, 8), 128 * mib);
    assert_int_equal(saf__detect_block_bytes(0, 24576 * mib, 1), 128 * mib);
    assert_int_equal(saf__detect_block_bytes(480 * mib, 1024 * mib, 1), 64 * mib);
    assert_int_equal(saf__detect_block_bytes(480 * mib, 0, 1), SAF_HUGE_PAGE);
}

/* SHA-256 of "a\0b\0", by another program. */
static void test_profile_key(void **state) {
    (void)state;
    const char *names[] = {"b", "a", "b"};
    char key[SAF_PROFILE_KEY_CHARS], other[SAF_PROFILE_KEY_CHARS];
    OK(saf_profile_key(names, 3, key));
    assert_string_equal(key, "8fb20ef63ced4145fc2e983ffe597d1dcff39154c3bf21f0fa9dde6a0c50fdc9");
    OK(saf_profile_key(names, 2, other));
    assert_string_equal(key, other);
    OK(saf_profile_key(names, 1, other));
    assert_string_not_equal(key, other);
}

/* ---- files ---- */

static saf_profile_host host_of(const char *name) {
    saf_profile_host h = {.ranks = 1,
                          .sockets = 1,
                          .cores = 4,
                          .threads = 8,
                          .usable_cores = 4,
                          .cpu_limit = (double)NAN,
                          .nodes = 1,
                          .memory_bytes = 1 << 30,
                          .memory_limit_bytes = -1,
                          .read_bytes_s = 1e10,
                          .int8_ops_s = 1e12,
                          .product_share = 0.625,
                          .f32_ops_s = 1e11,
                          .tile_ops_s = (double)NAN};
    snprintf(h.host, sizeof h.host, "%s", name);
    return h;
}

static void make_profile(saf_hosts_profile *p, const char *a, const char *b) {
    *p = (saf_hosts_profile){.seconds = 1.5};
    char now[32];
    const saf_profile_host hosts[2] = {host_of(a), host_of(b)};
    saf_profile_link link = {.latency_s = 1e-5, .bytes = 1, .bytes_s_to_a = 1, .bytes_s_to_b = 2};
    memcpy(link.host_a, hosts[0].host, sizeof link.host_a);
    memcpy(link.host_b, hosts[1].host, sizeof link.host_b);
    saf_clock_iso8601(now);
    OK(saf_strdup(SAF_VERSION, &p->version));
    OK(saf_strdup(now, &p->time));
    OK(saf_strdup("0123456789abcdef0123", &p->key));
    OK(saf_buf_append(&p->tables[SAF_PROFILE_HOSTS], hosts, sizeof hosts));
    OK(saf_buf_append(&p->tables[SAF_PROFILE_LINKS], &link, sizeof link));
}

static void test_profile_file(void **state) {
    (void)state;
    saf_hosts_profile p, q;
    char why[256];
    int64_t n;
    make_profile(&p, "a", "b");
    OK(saf_profile_write(path, &p));
    assert_true(saf_profile_is(path));
    OK(saf_profile_read(path, &q));
    assert_string_equal(q.time, p.time);
    assert_float_equal(q.seconds, 1.5, 0);
    const saf_profile_host *h = saf_profile_hosts(&q, &n);
    assert_int_equal(n, 2);
    assert_string_equal(h[1].host, "b");
    assert_true(isnan(h[1].cpu_limit) && h[1].memory_limit_bytes == -1);
    const saf_profile_link *l = saf_profile_links(&q, &n);
    assert_true(n == 1 && l->bytes_s_to_b > 1.9);
    saf_profile_stale(&q, why, sizeof why);
    assert_string_equal(why, "");
    memcpy(q.time, "2020", 4);
    saf_profile_stale(&q, why, sizeof why);
    assert_non_null(strstr(why, "days old"));
    memcpy(q.time, "soon", 4);
    saf_profile_stale(&q, why, sizeof why);
    assert_non_null(strstr(why, "its time is"));
    saf_profile_free(&p);
    saf_profile_free(&q);
}

static void refused(saf_hosts_profile *p, const char *says) {
    saf_hosts_profile q;
    assert_int_equal(saf_profile_write(path, p), SAF_IO); /* it is read back */
    assert_non_null(strstr(saf_error_text(), says));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(saf_profile_read(path, &q), SAF_NO_INPUT);
    saf_profile_free(p);
}

static saf_profile_host *hosts_of(saf_hosts_profile *p) {
    return (void *)p->tables[SAF_PROFILE_HOSTS].data;
}

static saf_profile_link *links_of(saf_hosts_profile *p) {
    return (void *)p->tables[SAF_PROFILE_LINKS].data;
}

static void test_profile_wrong(void **state) {
    (void)state;
    saf_hosts_profile p;
    saf_results_writer *w = NULL;
    (void)unlink(path);
    make_profile(&p, "a", "a");
    refused(&p, "there twice");
    make_profile(&p, "a", "");
    refused(&p, "has no name");
    make_profile(&p, "a", "b");
    hosts_of(&p)[1].read_bytes_s = 0;
    refused(&p, "figures that no host has");
    make_profile(&p, "a", "b");
    hosts_of(&p)[0].f32_ops_s = (double)NAN;
    refused(&p, "figures that no host has");
    make_profile(&p, "a", "b");
    hosts_of(&p)[0].usable_cores = -1;
    refused(&p, "figures that no host has");
    make_profile(&p, "a", "b");
    links_of(&p)->host_b[0] = 'c';
    refused(&p, "is of no two hosts");
    make_profile(&p, "a", "b");
    links_of(&p)->latency_s = (double)NAN;
    refused(&p, "figures that no link has");
    make_profile(&p, "a", "b");
    saf_buf_clear(&p.tables[SAF_PROFILE_HOSTS]);
    refused(&p, "profile of no host");
    assert_false(saf_profile_is(path));
    /* HDF5, but no profile */
    OK(saf_results_create(path, &w));
    saf_results_writer_free(&w);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("text", f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(saf_profile_read(path, &p), SAF_BAD_INPUT);
    assert_false(saf_profile_is(path));
}

static void test_profile_place(void **state) {
    (void)state;
    char *place = NULL, deep[96];
    const char key[] = "0123456789abcdef0123";
    snprintf(deep, sizeof deep, "%s/a/b", folder);
    setenv("SAF_PROFILES", deep, 1);
    OK(saf_profile_place(key, true, &place));
    assert_int_equal(access(deep, W_OK), 0);
    assert_non_null(strstr(place, "/a/b/hosts-0123456789abcdef.h5"));
    saf_free(&place);
    unsetenv("SAF_PROFILES");
    setenv("XDG_CACHE_HOME", "/x", 1);
    OK(saf_profile_place(key, false, &place));
    assert_string_equal(place, "/x/saf/hosts-0123456789abcdef.h5");
    saf_free(&place);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/h", 1);
    OK(saf_profile_place(key, false, &place));
    assert_string_equal(place, "/h/.cache/saf/hosts-0123456789abcdef.h5");
    saf_free(&place);
    unsetenv("HOME");
    OK(saf_profile_place(key, false, &place));
    assert_null(place);
    setenv("SAF_PROFILES", "/proc/no", 1);
    assert_int_equal(saf_profile_place(key, true, &place), SAF_CANNOT_CREATE);
}

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/p.h5", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command); /* NOLINT: a folder of this test */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_rounds), cmocka_unit_test(test_profile_blocks),
        cmocka_unit_test(test_profile_key),    cmocka_unit_test(test_profile_file),
        cmocka_unit_test(test_profile_wrong),  cmocka_unit_test(test_profile_place),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
