/* Cluster files: hosts that may not exist yet. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "job/fields.h"
#include "job/plan/plan_hosts.h"
#include "job/source.h"

typedef enum { NUMBER, WHOLE, FLAG, TEXT } value_kind;

typedef struct {
    const char *key;
    value_kind kind;
    size_t offset;   /* in saf_plan_host */
    double unit;     /* what one of the file's is */
    double min, max; /* as in the file */
    double initial;  /* NAN: must be there */
} host_key;

#define AT(member) offsetof(saf_plan_host, member)
static const host_key keys[] = {
    {"name", TEXT, AT(name), 1, 0, 0, 0},
    {"count", WHOLE, AT(count), 1, 1, SAF_PLAN_HOSTS_MAX, 1},
    {"cores", WHOLE, AT(cores), 1, 1, 65536, 1},
    {"ranks", WHOLE, AT(ranks), 1, 1, SAF_PLAN_RANKS_MAX, 1},
    {"memory_gb", NUMBER, AT(memory_bytes), 1e9, 1e-3, 1e6, (double)NAN},
    {"reserve_gb", NUMBER, AT(reserve_bytes), 1e9, 0, 1e6, -1},
    {"bandwidth_gbs", NUMBER, AT(read_bytes_s), 1e9, 1e-3, 1e6, (double)NAN},
    {"core_bandwidth_gbs", NUMBER, AT(core_read_bytes_s), 1e9, 1e-3, 1e6, 0},
    {"gflops", NUMBER, AT(f32_ops_s), 1e9, 1e-3, 1e9, (double)NAN},
    {"int8_gops", NUMBER, AT(int8_ops_s), 1e9, 1e-3, 1e9, -1},
    {"product_share", NUMBER, AT(product_share), 1, 0.01, 1, 0},
    {"hidden_share", NUMBER, AT(hidden_share), 1, 0.01, 1, 0},
    {"tiles", FLAG, AT(tiles), 1, 0, 1, 0},
    {"link_gbit", NUMBER, AT(link.bytes_s), 1e9 / 8, 1e-6, 1e6, SAF__LINK_GBIT},
    {"latency_us", NUMBER, AT(link.latency_s), 1e-6, 0, 1e7, SAF__LATENCY_US},
    {"short_message_us", NUMBER, AT(link.short_s), 1e-6, 0, 1e7, 0},
};
enum { KEYS = sizeof keys / sizeof keys[0] };

static saf_status set_number(saf_plan_host *h, const host_key *k, double v) {
    char *at = (char *)h + k->offset;
    v *= k->unit;
    if (k->kind == WHOLE) {
        int32_t n = (int32_t)v;
        memcpy(at, &n, sizeof n);
    } else if (k->kind == FLAG) {
        bool b = v != 0;
        memcpy(at, &b, sizeof b);
    } else {
        memcpy(at, &v, sizeof v);
    }
    return SAF_OK;
}

static saf_status set_value(saf_plan_host *h, const host_key *k, const config_setting_t *v,
                            const saf__where *at) {
    int type = config_setting_type(v);
    bool whole = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    if (k->kind == TEXT) {
        const char *text = config_setting_get_string(v);
        if (!text || !*text || strlen(text) >= sizeof h->name)
            return saf__fail_at(at, k->key, "expected a name of 1 to %zu bytes",
                                sizeof h->name - 1);
        memcpy(h->name, text, strlen(text) + 1);
        return SAF_OK;
    }
    if (k->kind == FLAG) {
        if (type != CONFIG_TYPE_BOOL) return saf__fail_at(at, k->key, "expected true or false");
        return set_number(h, k, config_setting_get_bool(v));
    }
    double n = whole ? (double)config_setting_get_int64(v) : config_setting_get_float(v);
    if (!(whole || (type == CONFIG_TYPE_FLOAT && k->kind == NUMBER)) ||
        !(n >= k->min && n <= k->max))
        return saf__fail_at(at, k->key, "expected %s from %g to %g",
                            k->kind == WHOLE ? "an integer" : "a number", k->min, k->max);
    return set_number(h, k, n);
}

static const host_key *find_key(const char *name) {
    for (int i = 0; name && i < KEYS; i++)
        if (strcmp(keys[i].key, name) == 0) return &keys[i];
    return NULL;
}

static saf_status read_host(const saf__source *source, const config_setting_t *group, int number,
                            saf_plan_host *h) {
    bool given[KEYS] = {false};
    char quoted[SAF__QUOTE_BYTES];
    saf__where at = saf__source_where(source, config_setting_source_line(group));
    if (!config_setting_is_group(group))
        return saf__fail_at(&at, "hosts", "expected hosts as groups { }");
    snprintf(h->name, sizeof h->name, "host %d", number + 1);
    for (int i = 1; i < KEYS; i++)
        if (!isnan(keys[i].initial)) (void)set_number(h, &keys[i], keys[i].initial);
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *v = config_setting_get_elem(group, (unsigned)i);
        const host_key *k = find_key(config_setting_name(v));
        saf__where here = saf__source_where(source, config_setting_source_line(v));
        if (!k)
            return saf__fail_at(&here, NULL,
                                "unknown key %s; a host has name, count, cores, ranks, memory_gb, "
                                "reserve_gb, bandwidth_gbs, core_bandwidth_gbs, gflops, int8_gops, "
                                "product_share, hidden_share, tiles, link_gbit, latency_us, "
                                "short_message_us",
                                saf__quote(config_setting_name(v), quoted));
        saf_status st = set_value(h, k, v, &here);
        if (st != SAF_OK) return st;
        given[k - keys] = true;
    }
    for (int i = 0; i < KEYS; i++)
        if (isnan(keys[i].initial) && !given[i])
            return saf__fail_at(&at, keys[i].key, "is missing from host \"%s\"", h->name);
    if (h->reserve_bytes < 0) h->reserve_bytes = SAF__RESERVE_PART * h->memory_bytes;
    if (h->int8_ops_s < 0) h->int8_ops_s = SAF__INT8_TIMES * h->f32_ops_s;
    if (h->reserve_bytes >= h->memory_bytes)
        return saf__fail_at(&at, "reserve_gb",
                            "%g of the %g GB of host \"%s\" are to be kept free: nothing is left",
                            h->reserve_bytes * 1e-9, h->memory_bytes * 1e-9, h->name);
    return SAF_OK;
}

static saf_status read_hosts(const saf__source *source, config_t *config, saf_plan_host **out,
                             int32_t *n) {
    saf_status st = SAF_OK;
    config_setting_t *root = config_root_setting(config);
    saf__where at = saf__source_where(source, 1);
    saf_plan_host *hosts = NULL;
    char quoted[SAF__QUOTE_BYTES];
    for (int i = 0; i < config_setting_length(root); i++) {
        const config_setting_t *v = config_setting_get_elem(root, (unsigned)i);
        saf__where here = saf__source_where(source, config_setting_source_line(v));
        if (strcmp(config_setting_name(v), "hosts") != 0)
            return saf__fail_at(&here, NULL, "unknown key %s, expected hosts = ( {...}, ... )",
                                saf__quote(config_setting_name(v), quoted));
    }
    config_setting_t *list = config_setting_get_member(root, "hosts");
    int count = list && config_setting_is_list(list) ? config_setting_length(list) : 0;
    if (count < 1 || count > SAF_PLAN_CLASSES_MAX)
        return saf__fail_at(&at, "hosts",
                            "expected a list ( {...}, ... ) of 1 to %d kinds of hosts",
                            SAF_PLAN_CLASSES_MAX);
    SAF_TRY(saf_alloc((size_t)count, sizeof *hosts, &hosts));
    for (int i = 0; i < count; i++)
        SAF_TRY(read_host(source, config_setting_get_elem(list, (unsigned)i), i, &hosts[i]));
    *out = hosts;
    *n = count;
    hosts = NULL;
out:
    saf_free(&hosts);
    return st;
}

saf_status saf_cluster_read(const char *path, saf_plan_host **out, int32_t *n) {
    saf_status st = SAF_OK;
    saf__source source = {0};
    config_t config;
    config_init(&config);
    SAF_TRY(saf__source_read(path, &source));
    SAF_TRY(saf__libconfig_room(source.text.len));
    if (!config_read_string(&config, source.text.data)) {
        saf__where at = saf__source_where(&source, config_error_line(&config));
        const char *why = config_error_text(&config);
        st = saf__fail_at(&at, NULL, "%s", why ? why : "not understood");
        goto out;
    }
    SAF_TRY(read_hosts(&source, &config, out, n));
out:
    config_destroy(&config);
    saf__source_free(&source);
    return st;
}
