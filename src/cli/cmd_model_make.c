/* saf model make: a model of a given shape with synthetic weights. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "saf/model.h"

static const char usage[] =
    "saf model make OUT.gguf --arch llama|qwen2|qwen3 --shape L:D:H:HKV:C:F [--type q8_0]\n"
    "           [--vocab VOCAB.gguf] [--vocab-size N] [--context N] [--tied] [--seed 1]\n"
    "           [--header]";

static void print_help(void) {
    printf(
        "usage: %s\n\n"
        "Writes a loadable model with synthetic weights: to size a cluster, or to test it.\n"
        "  --arch A        llama, qwen2 or qwen3\n"
        "  --shape S       layers : width : heads : key-value heads : head width : feed-forward\n"
        "  --type T        of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k\n"
        "                  q5_k q6_k (default q8_0)\n"
        "  --vocab FILE    GGUF file whose tokenizer is copied (default: the 256 bytes)\n"
        "  --vocab-size N  pad the vocabulary with unused tokens up to N\n"
        "  --context N     longest sequence (default 4096)\n"
        "  --tied          the embedding is the output head as well\n"
        "  --seed N        of the weights (default 1)\n"
        "  --header        the header alone, in a sparse file as long as the model: for `saf "
        "plan`\n",
        usage);
}

/* A whole decimal number. */
static bool read_whole(const char *text, int64_t *out) {
    char *stop;
    errno = 0;
    if (*text < '0' || *text > '9') return false;
    long long v = strtoll(text, &stop, 10);
    if (errno != 0 || *stop != 0) return false;
    *out = v;
    return true;
}

/* Exit code, or -1 to go on. */
static int read_options(int argc, char **argv, saf_model_make_options *o) {
    static const struct option longs[] = {
        {"arch", required_argument, NULL, 'a'},
        {"shape", required_argument, NULL, 's'},
        {"vocab", required_argument, NULL, 'v'},
        {"vocab-size", required_argument, NULL, 'n'},
        {"type", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'r'},
        {"context", required_argument, NULL, 'c'},
        {"tied", no_argument, NULL, 'i'},
        {"header", no_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;
    int64_t seed;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        bool fine = true;
        switch (c) {
            case 'a':
                o->arch = optarg;
                break;
            case 's':
                fine = saf_model_shape_read(optarg, o);
                break;
            case 'v':
                o->vocab_path = optarg;
                break;
            case 'n':
                fine = read_whole(optarg, &o->vocab_size);
                break;
            case 't':
                fine = saf_dtype_from_name(optarg, &o->dtype);
                break;
            case 'r':
                fine = read_whole(optarg, &seed);
                if (fine) o->seed = (uint64_t)seed;
                break;
            case 'c':
                fine = read_whole(optarg, &o->context);
                break;
            case 'i':
                o->tied = true;
                break;
            case 'e':
                o->header_only = true;
                break;
            case 'h':
                print_help();
                return 0;
            default:
                return saf__cli_usage(usage, "unknown or incomplete option \"%s\"",
                                      argv[optind - 1]);
        }
        if (!fine) return saf__cli_usage(usage, "\"%s\" is not understood", optarg);
    }
    if (optind != argc - 1)
        return saf__cli_usage(usage, optind == argc ? "the name of the file to write is missing"
                                                    : "more than one file name");
    if (!o->arch || o->layers == 0) return saf__cli_usage(usage, "--arch and --shape are needed");
    return -1;
}

int saf__cmd_model_make(int argc, char **argv) {
    saf_model_make_options o = {.dtype = SAF_DTYPE_Q8_0, .seed = 1};
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    int code = read_options(argc, argv, &o);
    if (code >= 0) return code;
    const char *path = argv[optind];
    double start = saf_clock_s();
    SAF_TRY(saf_model_make(path, &o));
    SAF_TRY(saf_gguf_open(path, &g)); /* what was written can be read */
    double seconds = saf_clock_s() - start, megabytes = (double)saf_gguf_file_bytes(g) * 1e-6;
    saf_log(SAF_LOG_INFO, "%s: %lld tensors, %.1f MB, in %.1f s", path,
            (long long)saf_gguf_tensor_count(g), megabytes, seconds);
out:
    saf_gguf_close(&g);
    return saf__cli_exit(st);
}
