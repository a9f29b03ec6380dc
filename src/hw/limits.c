/* What the kernel's files say of this process and its host: control groups, the start of the
 * system, power supplies. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/hw_host.h"

enum { FILE_BYTES = 1 << 16, PATH_BYTES = 4096 };

/* A file's first line, or "" if it cannot be read: none of these must exist. */
static void read_line(const char *path, char *out, size_t size) {
    saf_buf text = {0};
    *out = 0;
    if (saf_file_read(path, FILE_BYTES, &text) == SAF_OK)
        snprintf(out, size, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    saf_buf_free(&text);
}

/* ---- control groups ---- */

static void least(double *limit, double value) {
    if (value > 0 && (*limit <= 0 || value < *limit)) *limit = value;
}

/* Bytes; 0: "max", or a number that the first version has for none. */
static double memory_of(const char *text) {
    double bytes = strtod(text, NULL);
    return bytes < 0x1p62 ? bytes : 0;
}

static void look_at_unified(const char *folder, double *cpus, double *memory) {
    char path[PATH_BYTES + 64], line[128];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/memory.max", folder);
    read_line(path, line, sizeof line);
    least(memory, memory_of(line));
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    read_line(path, line, sizeof line);
    if (sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0) least(cpus, quota / period);
}

static void look_at_memory(const char *folder, double *cpus, double *memory) {
    char path[PATH_BYTES + 64], line[128];
    (void)cpus;
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", folder);
    read_line(path, line, sizeof line);
    least(memory, memory_of(line));
}

static void look_at_cpu(const char *folder, double *cpus, double *memory) {
    char path[PATH_BYTES + 64], quota[128], period[128];
    (void)memory;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    read_line(path, quota, sizeof quota);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    read_line(path, period, sizeof period);
    if (strtod(period, NULL) > 0) least(cpus, strtod(quota, NULL) / strtod(period, NULL));
}

static bool has_word(const char *list, size_t len, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; at < list + len; at += strcspn(at, ",") + 1) {
        if ((size_t)(list + len - at) < n) return false;
        if (strncmp(at, word, n) == 0 && (at + n == list + len || at[n] == ',')) return true;
    }
    return false;
}

/* A group and all above it, for each of them holds. In a container the path may be the host's, of
 * which nothing is there but the last of these. */
static void look_up(const char *mount, const char *group, double *cpus, double *memory,
                    void (*look)(const char *, double *, double *)) {
    char folder[PATH_BYTES];
    int n = snprintf(folder, sizeof folder, "%s%s", mount, group);
    size_t root = strlen(mount);
    if (n < 0 || (size_t)n >= sizeof folder) return;
    for (;;) {
        look(folder, cpus, memory);
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < root) return;
        *slash = 0;
    }
}

/* "4:memory:/group", "0::/group" */
static void look_at_entry(const char *root, const char *line, double *cpus, double *memory) {
    char mount[PATH_BYTES];
    const char *kinds = strchr(line, ':');
    const char *group = kinds ? strchr(kinds + 1, ':') : NULL;
    if (!group) return;
    size_t len = (size_t)(group - ++kinds);
    group++;
    if (len == 0) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        look_up(mount, group, cpus, memory, look_at_unified);
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/unified", root);
        look_up(mount, group, cpus, memory, look_at_unified);
    }
    if (has_word(kinds, len, "memory")) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/memory", root);
        look_up(mount, group, cpus, memory, look_at_memory);
    }
    if (has_word(kinds, len, "cpu")) {
        static const char *const names[] = {"cpu", "cpu,cpuacct"};
        for (int i = 0; i < 2; i++) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, names[i]);
            look_up(mount, group, cpus, memory, look_at_cpu);
        }
    }
}

saf_status saf_hw_limits_read(const char *root, saf_hw_limits *out) {
    char path[PATH_BYTES];
    saf_buf text = {0};
    double cpus = 0, memory = 0;
    *out = (saf_hw_limits){0};
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    saf_status st = saf_file_read(path, FILE_BYTES, &text);
    if (st == SAF_NO_INPUT) st = SAF_OK; /* a system without control groups */
    for (char *line = text.data; st == SAF_OK && line && *line;) {
        size_t len = strcspn(line, "\n");
        bool more = line[len] == '\n';
        line[len] = 0;
        look_at_entry(root, line, &cpus, &memory);
        line += len + more;
    }
    saf_buf_free(&text);
    *out = (saf_hw_limits){cpus, (int64_t)memory};
    return st;
}

/* ---- the start of the system ---- */

void saf_hw_boot_read(const char *root, char out[SAF_HW_BOOT_BYTES]) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/sys/kernel/random/boot_id", root);
    read_line(path, out, SAF_HW_BOOT_BYTES);
}

/* ---- power ---- */

static bool supply_is(const char *folder, const char *name, const char *file, const char *word) {
    char path[PATH_BYTES], line[64];
    int n = snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    if (n < 0 || (size_t)n >= sizeof path) return false;
    read_line(path, line, sizeof line);
    return strcmp(line, word) == 0;
}

const char *saf_hw_power(const char *root) {
    char folder[PATH_BYTES];
    bool mains = false, battery = false;
    snprintf(folder, sizeof folder, "%s/sys/class/power_supply", root);
    DIR *d = opendir(folder);
    if (!d) return "not known";
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (e->d_name[0] == '.') continue;
        bool device = supply_is(folder, e->d_name, "scope", "Device"); /* of a mouse, say */
        if (supply_is(folder, e->d_name, "type", "Battery") && !device) {
            battery |= supply_is(folder, e->d_name, "status", "Discharging");
            mains |= supply_is(folder, e->d_name, "status", "Charging");
        } else if (!device) {
            mains |= supply_is(folder, e->d_name, "online", "1");
        }
    }
    (void)closedir(d);
    return mains ? "mains" : battery ? "battery" : "not known";
}
