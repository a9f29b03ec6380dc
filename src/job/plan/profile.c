/* Where profiles are kept, and when they are too old. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "saf/hw_host.h"
#include "saf/job_detect.h"

enum { KEY_SHOWN = 16 /* characters of a key in a file's name */ };

/* ---- where ---- */

static saf_status find_folder(saf_buf *out) {
    const char *own = getenv("SAF_PROFILES"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (own && *own) return saf_buf_printf(out, "%s", own);
    if (cache && *cache == '/') return saf_buf_printf(out, "%s/saf", cache);
    if (home && *home) return saf_buf_printf(out, "%s/.cache/saf", home);
    return SAF_OK;
}

static saf_status make_folders(char *path) {
    for (char *at = path + 1;; at++) {
        char was = *at;
        if (was != '/' && was) continue;
        *at = 0;
        int made = mkdir(path, 0777);
        int error = errno;
        *at = was;
        if (made != 0 && error != EEXIST)
            return saf_fail(SAF_CANNOT_CREATE, "cannot make the folder %s: %s", path,
                            strerror(error));
        if (!was) return SAF_OK;
    }
}

saf_status saf_profile_place(const char *key, bool make, char **out) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    *out = NULL;
    SAF_TRY(find_folder(&path));
    if (path.len == 0) goto out;
    if (make) SAF_TRY(make_folders(path.data));
    SAF_TRY(saf_buf_printf(&path, "/hosts-%.*s.h5", KEY_SHOWN, key));
    st = saf_strdup(path.data, out);
out:
    saf_buf_free(&path);
    return st;
}

/* ---- when ---- */

static double days_since(const char *time_text) {
    struct tm t = {0};
    int year, month, used = 0;
    if (sscanf(time_text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &year, &month, &t.tm_mday, &t.tm_hour,
               &t.tm_min, &t.tm_sec, &used) != 6 ||
        used != (int)strlen(time_text))
        return (double)NAN;
    t.tm_year = year - 1900;
    t.tm_mon = month - 1;
    return difftime(time(NULL), timegm(&t)) / 86400;
}

static const saf_profile_host *find_host(const saf_hosts_profile *p, const char *name) {
    int64_t n;
    const saf_profile_host *hosts = saf_profile_hosts(p, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(hosts[i].host, name) == 0) return &hosts[i];
    return NULL;
}

/* Of this host, what can be seen without measuring. Memory differs by some pages from one start of
 * a system to the next. */
static void compare_here(const saf_hosts_profile *p, char *why, size_t size) {
    char name[256] = "";
    saf_hw_host *now = NULL;
    if (gethostname(name, sizeof name - 1) != 0) return;
    const saf_profile_host *h = find_host(p, name);
    if (!h || saf_alloc(1, sizeof *now, &now) != SAF_OK) return;
    if (saf_hw_host_glance(now) == SAF_OK) {
        double memory = (double)now->memory_bytes / (double)h->memory_bytes;
        if (strcmp(now->processor, h->processor) != 0 || now->cores != h->cores)
            snprintf(why, size, "%s has another processor now", name);
        else if (memory < 0.95 || memory > 1.05)
            snprintf(why, size, "%s has other memory now", name);
    }
    saf_free(&now);
}

void saf_profile_stale(const saf_hosts_profile *p, char *why, size_t size) {
    double days = days_since(p->time);
    *why = 0;
    if (strcmp(p->version, SAF_VERSION) != 0)
        snprintf(why, size, "saf %.32s measured it, this is %s", p->version, SAF_VERSION);
    else if (!(days >= -1)) /* a day: clocks of two hosts */
        snprintf(why, size, "its time is %.40s", p->time);
    else if (days > SAF_PROFILE_DAYS)
        snprintf(why, size, "it is %.0f days old", days);
    else
        compare_here(p, why, size);
}
