/* saf detect: what the hosts of this run have and can do, measured, kept and shown. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/detect_print.h"
#include "cli/words.h"
#include "saf/comm.h"
#include "saf/job_detect.h"

static const char usage[] =
    "saf detect [--output FILE.h5] [--folder FOLDER] [--if-stale] [--json] [--quiet]\n"
    "       saf detect FILE.h5 [--json]";

enum { WATCHDOG_S = 120 };

typedef struct {
    bool help, json, quiet, if_stale;
    const char *output, *folder, *path, *wrong, *command_line;
    int paths;
} command;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf(
        "Says what each host has (processor, cores, caches, memory, limits, accelerators), and\n"
        "measures what it can do: products and memory with 1, 2, 4, ... and all of its cores, a\n"
        "disk, and the links between every two hosts. Alone it looks at this host; under mpirun "
        "at\n"
        "all that have a rank, with the cores that the ranks of a host may use together:\n\n"
        "  mpirun --hostfile HOSTS --map-by node saf detect --output cluster.h5\n\n"
        "  --output FILE    where the profile is kept; else by the names of the hosts in\n"
        "                   $SAF_PROFILES, $XDG_CACHE_HOME/saf or ~/.cache/saf, where `saf run`\n"
        "                   looks for it\n"
        "  --folder FOLDER  whose disk is read, that of the model say (default: this folder)\n"
        "  --if-stale       nothing is measured if the profile is there, of these hosts, and not\n"
        "                   older than %d days\n"
        "  --json           as JSON\n"
        "  --quiet          only warnings and errors: nothing is printed but with --json\n\n"
        "With a FILE.h5 nothing is measured: the profile that it holds is printed. `saf plan\n"
        "--profile FILE.h5` plans with it. Nothing else should run meanwhile.\n\n"
        "Exit codes: 0 done; 1 failed at run time; 2 wrong usage; 65 and 66 a bad or missing\n"
        "profile, 66 also no such folder; 73 cannot create output; 74 I/O error; 124 a rank was\n"
        "stopped, hung or out of reach.\n",
        SAF_PROFILE_DAYS);
}

static void parse_words(int argc, char **argv, command *c) {
    static const struct option longs[] = {{"output", required_argument, NULL, 'o'},
                                          {"folder", required_argument, NULL, 'f'},
                                          {"if-stale", no_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int letter;
    opterr = 0;
    optind = 0; /* from the start, options anywhere */
    while ((letter = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        c->help |= letter == 'h';
        c->json |= letter == 'j';
        c->quiet |= letter == 'q';
        c->if_stale |= letter == 's';
        if (letter == 'o') c->output = optarg;
        if (letter == 'f') c->folder = optarg;
        if (letter == '?' && !c->wrong) c->wrong = argv[optind - 1];
    }
    c->paths = argc - optind;
    c->path = c->paths > 0 ? argv[optind] : NULL;
}

/* ---- showing ---- */

static saf_status show(const command *c, const saf_hosts_profile *p) {
    if (c->json) return saf__profile_json(stdout, p);
    return c->quiet ? SAF_OK : saf__profile_print(stdout, p);
}

static saf_status show_file(const command *c) {
    saf_status st = SAF_OK;
    saf_hosts_profile p = {0};
    char why[256];
    SAF_TRY(saf_profile_read(c->path, &p));
    SAF_TRY(show(c, &p));
    saf_profile_stale(&p, why, sizeof why);
    if (why[0]) saf_log(SAF_LOG_WARNING, "%s is stale: %s; measure anew", c->path, why);
out:
    saf_profile_free(&p);
    return st;
}

/* ---- measuring ---- */

/* What needs no measuring; -1 where there is something to measure. */
static int32_t answer_at_once(const command *c) {
    if (c->help) {
        print_help();
        return 0;
    }
    if (c->wrong) return saf__cli_usage(usage, "unknown or incomplete option \"%s\"", c->wrong);
    if (c->paths > 1) return saf__cli_usage(usage, "one profile at a time, not %d", c->paths);
    if (c->path && (c->output || c->folder || c->if_stale))
        return saf__cli_usage(usage,
                              "with \"%s\" nothing is measured: without --output, --folder "
                              "and --if-stale",
                              c->path);
    if (c->path) return saf__cli_exit(show_file(c));
    if ((c->output && !*c->output) || (c->folder && !*c->folder))
        return saf__cli_usage(usage, "an empty name");
    return -1;
}

/* Where the profile of these hosts is to be. */
static saf_status find_place(const command *c, const char *key, bool make, char **out) {
    saf_status st = SAF_OK;
    if (c->output) return saf_strdup(c->output, out);
    SAF_TRY(saf_profile_place(key, make, out));
    if (!*out)
        st = saf_fail(SAF_CANNOT_CREATE,
                      "none of SAF_PROFILES, XDG_CACHE_HOME and HOME is set: where is the profile "
                      "to be kept? (--output)");
out:
    return st;
}

/* Whether a good one is there already, which is shown then. Rank 0. */
static saf_status look_for_good(const command *c, const char *key, bool *good) {
    saf_status st = SAF_OK;
    saf_hosts_profile p = {0};
    char *path = NULL, why[256] = "there is none";
    *good = false;
    SAF_TRY(find_place(c, key, false, &path));
    st = saf_profile_read(path, &p);
    if (st == SAF_OK && strcmp(p.key, key) != 0)
        snprintf(why, sizeof why, "it is of other hosts");
    else if (st == SAF_OK)
        saf_profile_stale(&p, why, sizeof why);
    else if (st != SAF_NO_INPUT)
        snprintf(why, sizeof why, "it cannot be read");
    if (st != SAF_NO_MEMORY) st = SAF_OK;
    *good = !why[0];
    if (!c->quiet)
        saf_log(SAF_LOG_INFO, "%s: %s%s", path, *good ? "up to date" : "measured anew: ", why);
    if (*good) SAF_TRY(show(c, &p));
out:
    saf_profile_free(&p);
    saf_free(&path);
    return st;
}

static saf_status keep(const command *c, const saf_hosts_profile *p) {
    saf_status st = SAF_OK;
    char *path = NULL;
    SAF_TRY(find_place(c, p->key, true, &path));
    SAF_TRY(saf_profile_write(path, p));
    SAF_TRY(show(c, p));
    if (!c->quiet) saf_log(SAF_LOG_INFO, "the profile is in %s", path);
out:
    saf_free(&path);
    return st;
}

static saf_status detect(saf_comm *world, const command *c) {
    saf_status st = SAF_OK;
    saf_hosts_profile p = {0};
    char key[SAF_PROFILE_KEY_CHARS];
    bool root = saf_comm_rank(world) == 0, good = false;
    if (c->if_stale) {
        int32_t over = 0;
        SAF_TRY(saf_detect_key(world, key));
        if (root) st = look_for_good(c, key, &good);
        SAF_TRY(saf_comm_agree(world, st));
        over = good;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &over, 1);
        SAF_TRY(saf_comm_bcast(world, 0, &t));
        if (over) goto out;
    }
    saf_detect_options o = {c->folder ? c->folder : ".", c->command_line, c->quiet};
    SAF_TRY(saf_detect_run(world, &o, &p));
    st = saf_comm_agree(world, root ? keep(c, &p) : SAF_OK);
out:
    saf_profile_free(&p);
    return st;
}

/* Rank 0's words count: a launcher may give each rank its own. */
static saf_status answer(saf_comm *world, command *c, int32_t *code) {
    saf_status st = SAF_OK;
    int32_t said[2] = {-1, c->if_stale};
    if (saf_comm_rank(world) == 0) said[0] = answer_at_once(c);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, said, 2);
    st = saf_comm_bcast(world, 0, &t);
    *code = said[0];
    c->if_stale = said[1] != 0;
    return st;
}

int saf__cmd_detect(int argc, char **argv) {
    saf_status st = SAF_OK;
    saf_comm *world = NULL;
    saf_buf words = {0};
    command c = {0};
    int32_t code = 0;
    saf_comm_watch_start(WATCHDOG_S);
    st = saf_comm_start(&argc, &argv, &world);
    if (st != SAF_OK) return saf__cli_exit(st);
    for (int i = -1; i < argc && st == SAF_OK; i++)
        st = saf__words_print(i < 0 ? "saf" : argv[i], &words);
    parse_words(argc, argv, &c);
    c.command_line = words.data ? words.data : "";
    saf_log_setup(c.quiet ? SAF_LOG_WARNING : SAF_LOG_INFO,
                  saf_comm_size(world) > 1 ? saf_comm_rank(world) : -1);
    st = saf_comm_agree(world, st);
    if (st == SAF_OK) st = answer(world, &c, &code);
    if (st == SAF_OK && code < 0) st = saf_comm_watch(world, WATCHDOG_S);
    if (st == SAF_OK && code < 0) st = detect(world, &c);
    if (st != SAF_OK || code < 0) {
        bool speaks = saf_comm_rank(world) == 0 || st == SAF_COMM;
        code = speaks ? saf__cli_exit(st) : saf_status_exit_code(st);
    }
    saf_buf_free(&words);
    if (st == SAF_COMM && saf_comm_size(world) > 1) saf_comm_abort(world, code);
    saf_comm_stop(&world);
    return code;
}
