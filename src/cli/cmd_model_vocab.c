/* saf model vocab: a vocabulary learnt from texts. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "saf/model.h"

static const char usage[] = "saf model vocab OUT.gguf --size N [--held-out SHARE] TEXT...";

static void print_help(void) {
    printf(
        "usage: %s\n\n"
        "Learns a byte-level BPE vocabulary from text files (UTF-8) and writes it as a GGUF file\n"
        "without tensors, for `saf model make --vocab`, `saf model tokens` and jobs that train.\n"
        "  --size N  tokens in all: the 256 bytes, what merges make, and <|endoftext|>, which\n"
        "            begins and ends texts. Fewer where no two tokens are side by side twice\n"
        "  --held-out SHARE\n"
        "            leaves out this share at the end of each text, as a train job with the same\n"
        "            input.held_out does\n",
        usage);
}

/* Exit code, or -1 to go on. */
static int read_options(int argc, char **argv, int64_t *size, double *held_out) {
    static const struct option longs[] = {
        {"size", required_argument, NULL, 's'},
        {"held-out", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;
    *size = 0;
    *held_out = 0;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h') {
            print_help();
            return 0;
        }
        if (c != 's' && c != 'o')
            return saf__cli_usage(usage, "unknown or incomplete option \"%s\"", argv[optind - 1]);
        char *stop;
        errno = 0;
        bool digit = (*optarg >= '0' && *optarg <= '9') || *optarg == '.';
        if (c == 's')
            *size = strtoll(optarg, &stop, 10);
        else
            *held_out = strtod(optarg, &stop);
        if (!digit || errno != 0 || *stop != 0 || (c == 'o' && !(*held_out <= 0.9)))
            return saf__cli_usage(usage, "\"%s\" is not understood", optarg);
    }
    if (*size == 0) return saf__cli_usage(usage, "--size is needed");
    if (optind == argc) return saf__cli_usage(usage, "the name of the file to write is missing");
    if (optind + 1 == argc) return saf__cli_usage(usage, "no text to learn from");
    return -1;
}

/* Who forgets OUT names a text first: it would be lost. */
static saf_status check_output(const char *path, char *const *texts, int n) {
    char magic[4];
    FILE *f;
    for (int i = 0; i < n; i++)
        if (saf_file_is_same(path, texts[i]))
            return saf_fail(SAF_USAGE, "%s is a text to learn from: expected another file to write",
                            path);
    f = fopen(path, "rb");
    if (!f) return SAF_OK;
    size_t got = fread(magic, 1, sizeof magic, f);
    fclose(f);
    if (got == 0 || (got == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0))
        return SAF_OK;
    return saf_fail(SAF_USAGE,
                    "%s is there and no GGUF file: expected the name of the file to write", path);
}

int saf__cmd_model_vocab(int argc, char **argv) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_tokenizer *t = NULL;
    int64_t size, tokens = 0;
    double held_out;
    int code = read_options(argc, argv, &size, &held_out);
    if (code >= 0) return code;
    const char *path = argv[optind];
    double start = saf_clock_s();
    SAF_TRY(check_output(path, argv + optind + 1, argc - optind - 1));
    SAF_TRY(saf_vocab_make(path, (const char *const *)argv + optind + 1, argc - optind - 1, size,
                           held_out, &tokens));
    SAF_TRY(saf_gguf_open(path, &g)); /* what was written can be read */
    SAF_TRY(saf_tokenizer_new(g, &t));
    saf_log(SAF_LOG_INFO, "%s: %lld tokens, in %.1f s", path, (long long)tokens,
            saf_clock_s() - start);
    if (tokens < size)
        saf_log(SAF_LOG_WARNING, "the texts are too short for %lld tokens", (long long)size);
out:
    saf_tokenizer_free(&t);
    saf_gguf_close(&g);
    return saf__cli_exit(st);
}
