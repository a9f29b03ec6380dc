/* Hostfiles: what Open MPI takes, and what is refused, with its line. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "saf/job_hosts.h"

static saf_status parse(const char *text, saf_hostfile *out) {
    *out = (saf_hostfile){0};
    return saf_hostfile_parse(text, strlen(text), "h.hosts", out);
}

static void assert_line(const saf_hostfile *f, int32_t i, const char *name, int32_t slots,
                        int32_t max_slots, int32_t host, int32_t line) {
    assert_in_range(i, 0, f->n - 1);
    assert_string_equal(f->lines[i].name, name);
    assert_int_equal(f->lines[i].slots, slots);
    assert_int_equal(f->lines[i].max_slots, max_slots);
    assert_int_equal(f->lines[i].host, host);
    assert_int_equal(f->lines[i].line, line);
}

static void test_hostfile_lines(void **state) {
    (void)state;
    saf_hostfile f;
    assert_int_equal(
        parse("# a lab\n\nnode1 slots=4\tmax_slots=8 # two sockets\r\n"
              "192.168.1.23 cpu = 2\n// gone: node9\nfe80::1%eth0\n/* node7\nnode8 */ "
              "node2 max-slots=3\nnode1 count=2\nann@node3\nnode4 username=bob slots=1",
              &f),
        SAF_OK);
    assert_int_equal(f.n, 7);
    assert_int_equal(f.n_hosts, 6);
    assert_line(&f, 0, "node1", 4, 8, 0, 3);
    assert_line(&f, 1, "192.168.1.23", 2, 0, 1, 4);
    assert_line(&f, 2, "fe80::1%eth0", 0, 0, 2, 6);
    assert_line(&f, 3, "node2", 0, 3, 3, 8);
    assert_line(&f, 4, "node1", 2, 0, 0, 9);
    assert_line(&f, 5, "ann@node3", 0, 0, 4, 10);
    assert_line(&f, 6, "bob@node4", 1, 0, 5, 11);
    saf_hostfile_free(&f);
    assert_null(f.lines);
}

static void test_hostfile_examples(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int32_t hosts;
        int64_t slots;
    } examples[] = {{"hostfiles/lab.hosts", 3, 3},
                    {"hostfiles/one.hosts", 1, 4},
                    {"hostfiles/slurm.hosts", 3, 3}};
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        saf_hostfile f = {0};
        int64_t slots = -1;
        assert_int_equal(saf_hostfile_read(examples[i].path, &f), SAF_OK);
        assert_int_equal(f.n_hosts, examples[i].hosts);
        assert_int_equal(saf_hostfile_slots(&f, NULL, &slots), SAF_OK);
        assert_int_equal(slots, examples[i].slots);
        saf_hostfile_free(&f);
    }
}

static void test_hostfile_slots(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool keep[3];
        int64_t slots; /* of those kept */
        const char *written;
    } cases[] = {
        {"a slots=2\nb slots=3\nc slots=4\n", {1, 0, 1}, 6, "a slots=2\nc slots=4\n"},
        {"a slots=2\nb\nc slots=4\n", {1, 0, 1}, 6, "a slots=2\nc slots=4\n"},
        {"a slots=2\nb\nc slots=4\n", {1, 1, 0}, 0, "a slots=2\nb\n"},
        /* as PBS writes it: a line a slot */
        {"a\na\nb\nb\nc\nc\n", {0, 1, 1}, 4, "b\nb\nc\nc\n"},
        {"a slots=2\nb max_slots=5\na slots=1 max_slots=2\nc",
         {1, 1, 0},
         8,
         "a slots=2\nb max_slots=5\na slots=1 max_slots=2\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        saf_hostfile f;
        saf_buf text = {0};
        int64_t slots = -1;
        assert_int_equal(parse(cases[i].text, &f), SAF_OK);
        assert_int_equal(f.n_hosts, 3);
        assert_int_equal(saf_hostfile_slots(&f, cases[i].keep, &slots), SAF_OK);
        assert_int_equal(slots, cases[i].slots);
        assert_int_equal(saf_hostfile_write(&f, cases[i].keep, &text), SAF_OK);
        assert_string_equal(text.data, cases[i].written);
        saf_buf_free(&text);
        saf_hostfile_free(&f);
    }
}

static void test_hostfile_bad(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "h.hosts: there is no host in it"},
        {"\n# node1\n", "h.hosts: there is no host in it"},
        {"a\n\nb slots=\n", "h.hosts:3: expected a number of slots, 1 to 65536, got the end of"},
        {"a\nb slots=0\n", "h.hosts:2: expected a number of slots, 1 to 65536, got \"0\""},
        {"a slots=-1", "got \"-1\""},
        {"a slots=65537", "got \"65537\""},
        {"a slots=99999999999999999999", "got \"99999999999999999999\""},
        {"a slots=2x", "got \"2x\""},
        {"a slots 2", "h.hosts:1: expected \"=\", got \"2\""},
        {"a slots=2 slots=3", "a has this number twice"},
        {"a slots=3 max_slots=2", "max_slots=2 is less than slots=3"},
        {"a max_slots=2 slots=3\n", "h.hosts:1: max_slots=2 is less than slots=3"},
        {"a b", "h.hosts:1: expected slots=N, max_slots=N or username=NAME, got \"b\""},
        {"a slots=1 cores=2", "got \"cores\""},
        {"a = 1", "got \"=\""},
        {"=1", "expected the name or address of a host, got \"=\""},
        {"a\n^b\n", "h.hosts:2: expected the name or address of a host, got \"^b\""},
        {"+n0\n", "got \"+n0\""},
        {"-oProxyCommand=x\n", "got \"-oProxyCommand\""},
        {"x@-oProxyCommand\n", "got \"x@-oProxyCommand\""},
        {"-l@a\n", "got \"-l@a\""},
        {"@a\n", "got \"@a\""},
        {"a@\n", "got \"a@\""},
        {"a@b@c\n", "got \"a@b@c\""},
        {"a;reboot\n", "got \"a;reboot\""},
        {"$(reboot)\n", "got \"$(reboot)\""},
        {"a\x01\n", "got \"a?\""},
        {"n\xC3\xB6"
         "de\n",
         "expected the name or address of a host"},
        {"a username=-x", "expected the name of a user, got \"-x\""},
        {"a username=", "expected the name of a user, got the end of the line"},
        {"b@a username=c", "b@a has a user already"},
        {"a\n/* b\nc\n", "h.hosts:2: this comment has no end"},
        {"a slots=1 /*", "h.hosts:1: this comment has no end"},
        {"a slots = /* \n */ x\n", "h.hosts:2: expected a number of slots"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        saf_hostfile f;
        saf_status st = parse(cases[i].text, &f);
        if (st != SAF_BAD_INPUT || !strstr(saf_error_text(), cases[i].says))
            fail_msg("\"%s\": status %d, \"%s\"", cases[i].text, (int)st, saf_error_text());
        assert_null(f.lines);
    }
}

static void test_hostfile_bytes(void **state) {
    (void)state;
    saf_hostfile f = {0};
    assert_int_equal(saf_hostfile_parse("a\0b", 3, "h.hosts", &f), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "got \"a?b\""));
    char name[SAF_HOST_NAME_MAX + 1];
    memset(name, 'a', sizeof name);
    assert_int_equal(saf_hostfile_parse(name, sizeof name - 1, "h.hosts", &f), SAF_OK);
    saf_hostfile_free(&f);
    assert_int_equal(saf_hostfile_parse(name, sizeof name, "h.hosts", &f), SAF_BAD_INPUT);
    assert_int_equal(saf_hostfile_read("/nowhere/h.hosts", &f), SAF_NO_INPUT);
    assert_int_equal(saf_hostfile_read("/", &f), SAF_NO_INPUT);
}

static void test_hostfile_large(void **state) {
    (void)state;
    saf_hostfile f = {0};
    saf_buf text = {0};
    for (int i = 0; i < SAF_HOST_LINES_MAX; i++)
        assert_int_equal(saf_buf_printf(&text, "node%d slots=2\n", i / 2), SAF_OK);
    assert_int_equal(saf_hostfile_parse(text.data, text.len, "h.hosts", &f), SAF_OK);
    assert_int_equal(f.n_hosts, SAF_HOST_LINES_MAX / 2);
    assert_line(&f, SAF_HOST_LINES_MAX - 1, "node32767", 2, 0, 32767, SAF_HOST_LINES_MAX);
    saf_hostfile_free(&f);
    assert_int_equal(saf_buf_printf(&text, "more\n"), SAF_OK);
    assert_int_equal(saf_hostfile_parse(text.data, text.len, "h.hosts", &f), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "h.hosts:65537: more than 65536 lines"));
    saf_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostfile_lines), cmocka_unit_test(test_hostfile_examples),
        cmocka_unit_test(test_hostfile_slots), cmocka_unit_test(test_hostfile_bad),
        cmocka_unit_test(test_hostfile_bytes), cmocka_unit_test(test_hostfile_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
