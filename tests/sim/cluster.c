/* The cluster of a simulation: its figures, its platform, and its start. */
#include <simgrid/engine.h>
#include <smpi/smpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <xbt/config.h>

#include "sim.h"

enum { CORE_FLOPS = 1000000000 /* a second of the plan */ };

sim_cluster sim;
static void (*what)(saf_comm *world);

/* ---- figures --------------------------------------------------------------------------------- */

const char *sim_text(int argc, char **argv, const char *key) {
    size_t len = strlen(key);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], key, len) == 0 && argv[i][len] == '=') return argv[i] + len + 1;
    fprintf(stderr, "%s: %s= is missing\n", argv[0], key);
    exit(2);
}

double sim_number(int argc, char **argv, const char *key) {
    return strtod(sim_text(argc, argv, key), NULL);
}

void sim_numbers(int argc, char **argv, const char *key, int32_t n, double *out) {
    const char *at = sim_text(argc, argv, key);
    for (int32_t i = 0; i < n; i++) {
        char *end;
        out[i] = strtod(at, &end);
        if (end == at || *end != (i < n - 1 ? ',' : 0)) {
            fprintf(stderr, "%s: expected %d numbers: %s=%s\n", argv[0], n, key,
                    sim_text(argc, argv, key));
            exit(2);
        }
        at = end + 1;
    }
}

void sim_check(saf_status st) {
    if (st == SAF_OK) return;
    fprintf(stderr, "%s\n", saf_error_text());
    exit(1);
}

void sim_read_cluster(int argc, char **argv) {
    enum { KEYS = 8 };
    static const char *const keys[KEYS] = {"count", "cores", "read", "int8",
                                           "f32",   "tiles", "link", "latency"};
    double *values[KEYS];
    sim.ranks = (int32_t)sim_number(argc, argv, "ranks");
    sim.ranks_per_host = (int32_t)sim_number(argc, argv, "ranks_per_host");
    sim.n_classes = (int32_t)sim_number(argc, argv, "classes");
    sim_check(saf_alloc((size_t)sim.n_classes, sizeof *sim.classes, &sim.classes));
    for (int k = 0; k < KEYS; k++) {
        sim_check(saf_alloc((size_t)sim.n_classes, sizeof(double), &values[k]));
        sim_numbers(argc, argv, keys[k], sim.n_classes, values[k]);
    }
    for (int32_t c = 0; c < sim.n_classes; c++)
        sim.classes[c] = (saf_plan_host){.count = (int32_t)values[0][c],
                                         .cores = (int32_t)values[1][c],
                                         .ranks = sim.ranks_per_host,
                                         .read_bytes_s = values[2][c],
                                         .int8_ops_s = values[3][c],
                                         .f32_ops_s = values[4][c],
                                         .tiles = values[5][c] != 0,
                                         .link = {values[6][c], values[7][c], 0}};
    sim.message_s = saf_plan_overhead_s(&sim.classes[0]);
    for (int k = 0; k < KEYS; k++) saf_free(&values[k]);
}

int32_t sim_host_of(int32_t world_rank) {
    return world_rank / sim.ranks_per_host;
}

const saf_plan_host *sim_class_of(int32_t host) {
    int32_t c = 0;
    while (c < sim.n_classes - 1 && host >= sim.classes[c].count) host -= sim.classes[c++].count;
    return &sim.classes[c];
}

/* ---- platform -------------------------------------------------------------------------------- */

static FILE *begin_file(const char *folder, const char *name, char *path, size_t size) {
    snprintf(path, size, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f) {
        perror(path);
        exit(1);
    }
    fputs(
        "<?xml version='1.0'?>\n"
        "<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n"
        "<platform version=\"4.1\">\n",
        f);
    return f;
}

/* A switch that nobody waits for, and of each host a link that carries both ways at once. Two
 * links make up a way, so each has half of the latency, without what the ends of a message take.
 * Inside a host messages take what the plan has for them. */
static void write_platform(const char *folder, char *path, size_t size) {
    FILE *f = begin_file(folder, "platform.xml", path, size);
    double inside_s = saf_plan_message_s(NULL, 0), inside_bytes = 1e9;
    double inside_bytes_s = inside_bytes / (saf_plan_message_s(NULL, inside_bytes) - inside_s);
    fputs("<zone id=\"all\" routing=\"Full\">\n", f);
    for (int32_t c = 0, host = 0; c < sim.n_classes; host += sim.classes[c++].count)
        fprintf(f,
                "<cluster id=\"c%d\" prefix=\"h\" suffix=\"\" radical=\"%d-%d\" speed=\"%df\" "
                "core=\"%d\" bw=\"%.17gBps\" lat=\"%.17gs\" sharing_policy=\"SPLITDUPLEX\" "
                "loopback_bw=\"%.17gBps\" loopback_lat=\"%.17gs\"/>\n",
                c, host, host + sim.classes[c].count - 1, CORE_FLOPS, sim.ranks_per_host,
                sim.classes[c].link.bytes_s / SIM_UNIT,
                (sim.classes[c].link.latency_s - 2 * sim.message_s) / 2, inside_bytes_s / SIM_UNIT,
                inside_s);
    fputs("<link id=\"core\" bandwidth=\"1e18Bps\" latency=\"0s\" sharing_policy=\"FATPIPE\"/>\n",
          f);
    for (int32_t a = 0; a < sim.n_classes; a++)
        for (int32_t b = a + 1; b < sim.n_classes; b++)
            fprintf(f,
                    "<zoneRoute src=\"c%d\" dst=\"c%d\" gw_src=\"hc%d_router\" "
                    "gw_dst=\"hc%d_router\"><link_ctn id=\"core\"/></zoneRoute>\n",
                    a, b, a, b);
    fputs("</zone>\n</platform>\n", f);
    fclose(f);
}

static void write_deployment(const char *folder, char *path, size_t size) {
    FILE *f = begin_file(folder, "deployment.xml", path, size);
    for (int32_t r = 0; r < sim.ranks; r++)
        fprintf(f,
                "<actor host=\"h%d\" function=\"saf\"><prop id=\"instance_id\" value=\"saf\"/>"
                "<prop id=\"rank\" value=\"%d\"/></actor>\n",
                sim_host_of(r), r);
    fputs("</platform>\n", f);
    fclose(f);
}

/* ---- running --------------------------------------------------------------------------------- */

static void rank_main(int argc, char **argv) {
    saf_comm *world = NULL;
    sim_check(saf_comm_start(&argc, &argv, &world));
    what(world);
    saf_comm_stop(&world);
}

/* Only what is said takes time: latency and bandwidth of links, which what flows the other way
 * takes a twentieth of (as acknowledgements do), and a little for each message at both ends.
 * Messages leave without asking the receiver, as saf has Open MPI send them. */
static void configure(void) {
    char text[64];
    snprintf(text, sizeof text, "0:%.17g:0", sim.message_s);
    sg_cfg_set_string("network/model", "CM02");
    sg_cfg_set_boolean("network/crosstraffic", "yes");
    sg_cfg_set_double("network/TCP-gamma", 0);
    sg_cfg_set_boolean("smpi/simulate-computation", "no");
    sg_cfg_set_int("smpi/send-is-detached-thresh", 1 << 30);
    sg_cfg_set_int("smpi/async-small-thresh", 1 << 30);
    sg_cfg_set_string("smpi/ois", text);
    sg_cfg_set_string("smpi/or", text);
    sg_cfg_set_double("smpi/test", 0);
    sg_cfg_set_double("smpi/wtime", 0);
}

int sim_run(const char *folder, void (*rank)(saf_comm *world)) {
    char name[] = "sim", quiet[] = "--log=root.thres:error";
    char *words[] = {name, quiet, NULL}, **argv = words;
    int argc = 2;
    char path[4096];
    what = rank;
    simgrid_init(&argc, argv);
    SMPI_init();
    configure();
    write_platform(folder, path, sizeof path);
    simgrid_load_platform(path);
    SMPI_app_instance_register("saf", rank_main, sim.ranks);
    write_deployment(folder, path, sizeof path);
    simgrid_load_deployment(path);
    simgrid_run();
    SMPI_finalize();
    return 0;
}

void sim_compute(double seconds) {
    if (seconds > 0) smpi_execute_flops(seconds * CORE_FLOPS);
}

double sim_now(void) {
    return simgrid_get_clock();
}

double __wrap_saf_clock_s(void);
double __wrap_saf_clock_s(void) {
    return simgrid_get_clock();
}
