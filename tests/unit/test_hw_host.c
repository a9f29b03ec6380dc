/* What a host has: limits of control groups and power from folders made here, as the kernel's
 * documentation describes them; cores of two kinds from a description of a machine for hwloc; this
 * machine against /proc; the disk; and the binding. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/hw.h"
#include "saf/hw_host.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char folder[] = "/tmp/saf-host-XXXXXX";

/* A file below the folder, with those it is in. */
static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", folder, path);
    for (char *at = full + strlen(folder) + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            (void)mkdir(full, 0777);
            *at = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void clear(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", folder);
    assert_int_equal(system(command), 0); /* NOLINT: a folder of this test */
}

static saf_hw_limits limits(void) {
    saf_hw_limits l;
    OK(saf_hw_limits_read(folder, &l));
    return l;
}

static void test_host_limits_second_version(void **state) {
    (void)state;
    clear();
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/a/memory.max", "3000000000\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    put("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    put("sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_true(limits().memory_bytes == 3000000000);
    assert_float_equal(limits().cpus, 2.5, 0);
    put("sys/fs/cgroup/memory.max", "2000000000\n"); /* the group above all of them holds too */
    assert_true(limits().memory_bytes == 2000000000);
    /* in a container that does not see the host's groups, only its own */
    put("proc/self/cgroup", "0::/docker/0123/elsewhere\n");
    assert_true(limits().memory_bytes == 2000000000);
    assert_float_equal(limits().cpus, 0, 0);
}

static void test_host_limits_first_version(void **state) {
    (void)state;
    clear();
    put("proc/self/cgroup", "9:cpu,cpuacct:/job\n4:memory:/job/step\n2:cpuset:/\n1:name=x:/y\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(limits().memory_bytes == 0);
    put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096000\n");
    put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_true(limits().memory_bytes == 4096000);
    assert_float_equal(limits().cpus, 0, 0);
    put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n");
    assert_float_equal(limits().cpus, 0.5, 0);
}

static void test_host_limits_none(void **state) {
    (void)state;
    clear();
    assert_true(limits().memory_bytes == 0 && limits().cpus <= 0);
    put("proc/self/cgroup", "nothing\n::\n0:\n:memory:\n\n5:memory\n");
    assert_true(limits().memory_bytes == 0 && limits().cpus <= 0);
}

static void test_host_boot(void **state) {
    (void)state;
    char boot[SAF_HW_BOOT_BYTES] = "?";
    clear();
    saf_hw_boot_read(folder, boot);
    assert_string_equal(boot, "");
    put("proc/sys/kernel/random/boot_id", "0c2a7a58-50a3-4e4f-a55c-54ac6f33f51c\n");
    saf_hw_boot_read(folder, boot);
    assert_string_equal(boot, "0c2a7a58-50a3-4e4f-a55c-54ac6f33f51c");
}

static void test_host_power(void **state) {
    (void)state;
    clear();
    assert_string_equal(saf_hw_power(folder), "not known");
    put("sys/class/power_supply/mouse/type", "Battery\n");
    put("sys/class/power_supply/mouse/scope", "Device\n");
    put("sys/class/power_supply/mouse/status", "Discharging\n");
    assert_string_equal(saf_hw_power(folder), "not known");
    put("sys/class/power_supply/BAT0/type", "Battery\n");
    put("sys/class/power_supply/BAT0/status", "Discharging\n");
    put("sys/class/power_supply/AC/type", "Mains\n");
    put("sys/class/power_supply/AC/online", "0\n");
    assert_string_equal(saf_hw_power(folder), "battery");
    put("sys/class/power_supply/AC/online", "1\n");
    put("sys/class/power_supply/BAT0/status", "Charging\n");
    assert_string_equal(saf_hw_power(folder), "mains");
}

/* ---- a machine that is not this one ---- */

/* Two cores of two threads and four of one, each with its caches, and which of them is more able.
 */
static void write_hybrid(FILE *f) {
    fputs(
        "<?xml version=\"1.0\"?><!DOCTYPE topology SYSTEM \"hwloc2.dtd\">"
        "<topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" cpuset=\"0xff\" "
        "complete_cpuset=\"0xff\" allowed_cpuset=\"0xff\" nodeset=\"0x1\" "
        "complete_nodeset=\"0x1\" allowed_nodeset=\"0x1\" gp_index=\"1\">"
        "<object type=\"Package\" os_index=\"0\" cpuset=\"0xff\" complete_cpuset=\"0xff\" "
        "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"2\">"
        "<info name=\"CPUModel\" value=\"Two Kinds\"/>"
        "<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0xff\" complete_cpuset=\"0xff\" "
        "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"3\" local_memory=\"8000000000\"/>",
        f);
    unsigned at = 0, id = 10;
    for (unsigned core = 0; core < 6; core++) {
        unsigned threads = core < 2 ? 2 : 1, mask = ((1U << threads) - 1) << at;
        fprintf(f,
                "<object type=\"L2Cache\" cpuset=\"0x%x\" complete_cpuset=\"0x%x\" nodeset=\"0x1\" "
                "complete_nodeset=\"0x1\" gp_index=\"%u\" cache_size=\"%d\" depth=\"2\" "
                "cache_linesize=\"64\" cache_associativity=\"8\" cache_type=\"0\">"
                "<object type=\"Core\" os_index=\"%u\" cpuset=\"0x%x\" complete_cpuset=\"0x%x\" "
                "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"%u\">",
                mask, mask, id, core < 2 ? 2097152 : 1048576, core, mask, mask, id + 1);
        id += 2;
        for (unsigned t = 0; t < threads; t++, at++, id++)
            fprintf(f,
                    "<object type=\"PU\" os_index=\"%u\" cpuset=\"0x%x\" complete_cpuset=\"0x%x\" "
                    "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"%u\"/>",
                    at, 1U << at, 1U << at, id);
        fputs("</object></object>", f);
    }
    fputs(
        "</object></object>"
        "<cpukind cpuset=\"0xf\" forced_efficiency=\"1\">"
        "<info name=\"CoreType\" value=\"IntelCore\"/></cpukind>"
        "<cpukind cpuset=\"0xf0\" forced_efficiency=\"0\">"
        "<info name=\"CoreType\" value=\"IntelAtom\"/></cpukind></topology>",
        f);
}

static void test_host_two_kinds(void **state) {
    (void)state;
    char path[64];
    static saf_hw_host h, seen;
    clear();
    snprintf(path, sizeof path, "%s/kinds.xml", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    write_hybrid(f);
    assert_int_equal(fclose(f), 0);
    setenv("HWLOC_XMLFILE", path, 1);
    OK(saf_hw_host_read(&h));
    OK(saf_hw_host_glance(&seen));
    unsetenv("HWLOC_XMLFILE");
    assert_string_equal(seen.processor, h.processor);
    assert_int_equal(seen.cores, h.cores);
    assert_true(seen.memory_bytes == h.memory_bytes);
    assert_true(seen.threads == 0 && seen.n_caches == 0 && seen.n_nodes == 0);
    assert_string_equal(h.processor, "Two Kinds");
    assert_int_equal(h.cores, 6);
    assert_int_equal(h.efficiency_cores, 4);
    assert_int_equal(h.threads, 8);
    assert_true(h.memory_bytes == 8000000000);
    assert_int_equal(h.n_caches, 2);
    assert_int_equal(h.caches[0].count, 2);
    assert_int_equal(h.caches[0].threads, 2);
    assert_true(h.caches[1].count == 4 && h.caches[1].bytes == 1048576);
    assert_int_equal(h.n_nodes, 1);
}

/* ---- this one ---- */

static void test_host_here(void **state) {
    (void)state;
    static saf_hw_host h;
    OK(saf_hw_host_read(&h));
    assert_int_equal(h.threads, sysconf(_SC_NPROCESSORS_ONLN));
    assert_true(h.cores >= 1 && h.cores <= h.threads);
    assert_true(h.memory_bytes == (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
    assert_true(h.n_nodes >= 1 && h.kernels[0] && h.instructions[0]);
}

/* Bound to one, the processing units are that one; bound to all again, they are all. */
static void test_host_cpus(void **state) {
    (void)state;
    static uint8_t all[SAF_HW_CPUS_MAX], one[SAF_HW_CPUS_MAX], got[SAF_HW_CPUS_MAX];
    char list[256];
    int32_t cores = 0;
    cpu_set_t set;
    OK(saf_hw_cpus_read(all));
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    int n = 0, last = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        assert_int_equal(all[i], CPU_ISSET(i, &set) != 0);
        if (all[i]) last = i;
        n += all[i];
    }
    one[last] = 1;
    OK(saf_hw_cpus_bind(one, &cores, list));
    assert_int_equal(cores, 1);
    assert_int_equal(atoi(list), last);
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(CPU_COUNT(&set), 1);
    OK(saf_hw_cpus_read(got));
    assert_memory_equal(got, one, sizeof got);
    OK(saf_hw_cpus_bind(all, &cores, list));
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(CPU_COUNT(&set), n);
}

static void test_host_disk(void **state) {
    (void)state;
    saf_hw_disk d;
    char missing[64];
    clear();
    OK(saf_hw_disk_measure(folder, 16 << 20, 5, &d));
    assert_true(d.bytes == 16 << 20 && d.bytes_s > 1e6 && d.seconds > 0 && d.how[0]);
    assert_int_equal(rmdir(folder), 0); /* nothing is left in it */
    assert_int_equal(mkdir(folder, 0777), 0);
    snprintf(missing, sizeof missing, "%s/none", folder);
    assert_int_equal(saf_hw_disk_measure(missing, 16 << 20, 5, &d), SAF_NO_INPUT);
    put("file", "text");
    snprintf(missing, sizeof missing, "%s/file", folder);
    assert_int_equal(saf_hw_disk_measure(missing, 16 << 20, 5, &d), SAF_NO_INPUT);
    /* in /proc/sys nothing can be written, and no file is long */
    assert_int_equal(saf_hw_disk_measure("/proc/sys", 16 << 20, 5, &d), SAF_NO_INPUT);
    OK(saf_hw_disk_measure("/dev/shm", 8 << 20, 5, &d));
    assert_non_null(strstr(d.how, "in memory"));
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int remove_folder(void **state) {
    (void)state;
    clear();
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_limits_second_version),
        cmocka_unit_test(test_host_limits_first_version),
        cmocka_unit_test(test_host_limits_none),
        cmocka_unit_test(test_host_boot),
        cmocka_unit_test(test_host_power),
        cmocka_unit_test(test_host_two_kinds),
        cmocka_unit_test(test_host_here),
        cmocka_unit_test(test_host_cpus),
        cmocka_unit_test(test_host_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
