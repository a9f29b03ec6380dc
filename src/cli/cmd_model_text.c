/* saf model text: the text of token ids. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "saf/model.h"

static const char USAGE[] = "saf model text MODEL.gguf --ids \"1 2 3\" | --file FILE|- [--special]";

static void print_help(void) {
    printf("usage: %s\n\n", USAGE);
    printf("Prints the text that token ids stand for, byte for byte, with no newline added.\n\n");
    printf("  --ids IDS     the ids, separated by spaces or commas\n");
    printf("  --file FILE   the ids are in FILE (\"-\": standard input)\n");
    printf("  --special     show control tokens as well\n");
}

/* Whole numbers between white space or commas; `what` names their source. */
static saf_status parse_ids(const char *text, size_t len, const char *what, saf_ids *out) {
    saf_status st = SAF_OK;
    static const char gaps[] = " \t\r\n,";
    for (size_t at = strspn(text, gaps); at < len; at += strspn(text + at, gaps)) {
        size_t n = strcspn(text + at, gaps);
        char *end;
        errno = 0;
        long id = strtol(text + at, &end, 10);
        if (n == 0 || end != text + at + n || errno || id < 0 || id > INT32_MAX)
            SAF_TRY(saf_fail(SAF_USAGE, "%s: \"%.*s\" at byte %zu is no token id", what,
                             n < 32 ? (int)n : 32, text + at, at));
        SAF_TRY(saf_ids_append(out, (int32_t)id));
        at += n;
    }
out:
    return st;
}

static saf_status text(const char *model, const char *file, const char *list, bool special) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_tokenizer *t = NULL;
    saf_ids ids = {0};
    saf_buf in = {0}, out = {0};
    if (file) {
        SAF_TRY(saf_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, (size_t)1 << 30, &in));
        SAF_TRY(parse_ids(in.data ? in.data : "", in.len, file, &ids));
    } else {
        SAF_TRY(parse_ids(list, strlen(list), "--ids", &ids));
    }
    SAF_TRY(saf_gguf_open(model, &g));
    SAF_TRY(saf_tokenizer_new(g, &t));
    SAF_TRY(saf_tokenizer_decode(t, ids.data, ids.len, special, &out));
    if (fwrite(out.data ? out.data : "", 1, out.len, stdout) != out.len || fflush(stdout) != 0)
        SAF_TRY(saf_fail(SAF_IO, "cannot write to standard output"));
out:
    saf_buf_free(&in);
    saf_buf_free(&out);
    saf_ids_free(&ids);
    saf_tokenizer_free(&t);
    saf_gguf_close(&g);
    return st;
}

int saf__cmd_model_text(int argc, char **argv) {
    static const struct option options[] = {
        {"ids", required_argument, NULL, 'i'},
        {"file", required_argument, NULL, 'f'},
        {"special", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *file = NULL, *ids = NULL;
    bool special = false;
    int c;
    optind = 0;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (c) {
            case 'i':
                ids = optarg;
                break;
            case 'f':
                file = optarg;
                break;
            case 's':
                special = true;
                break;
            case 'h':
                print_help();
                return 0;
            case ':':
                return saf__cli_usage(USAGE, "%s needs a value", argv[optind - 1]);
            default:
                return saf__cli_usage(USAGE, "unknown option %s", argv[optind - 1]);
        }
    }
    if (optind + 1 != argc) return saf__cli_usage(USAGE, "one model file, please");
    if (!file == !ids) return saf__cli_usage(USAGE, "give either --ids or --file");
    return saf__cli_exit(text(argv[optind], file, ids, special));
}
