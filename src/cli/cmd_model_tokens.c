/* saf model tokens: the ids of a text. */
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "saf/model.h"

static const char USAGE[] =
    "saf model tokens MODEL.gguf --file FILE|- | --text TEXT [--no-bos] [--special]";

static void print_help(void) {
    printf("usage: %s\n\n", USAGE);
    printf("Prints the token ids of a text on one line, separated by spaces.\n\n");
    printf("  --file FILE   the text is in FILE (\"-\": standard input)\n");
    printf("  --text TEXT   the text itself\n");
    printf("  --no-bos      leave out what the model's rules put before and after a text\n");
    printf("  --special     the text of a special token stands for the token\n");
}

static saf_status print_ids(const saf_ids *ids) {
    for (int64_t i = 0; i < ids->len; i++) printf("%s%d", i ? " " : "", ids->data[i]);
    printf("\n");
    if (fflush(stdout) != 0 || ferror(stdout))
        return saf_fail(SAF_IO, "cannot write to standard output");
    return SAF_OK;
}

static saf_status tokens(const char *model, const char *file, const char *text, bool bos,
                         bool special) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_tokenizer *t = NULL;
    saf_ids ids = {0};
    saf_buf in = {0};
    if (file)
        SAF_TRY(saf_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, (size_t)1 << 30, &in));
    else
        SAF_TRY(saf_buf_append(&in, text, strlen(text)));
    SAF_TRY(saf_gguf_open(model, &g));
    SAF_TRY(saf_tokenizer_new(g, &t));
    SAF_TRY(saf_tokenizer_encode(t, in.data ? in.data : "", in.len, bos, special, &ids));
    SAF_TRY(print_ids(&ids));
out:
    saf_buf_free(&in);
    saf_ids_free(&ids);
    saf_tokenizer_free(&t);
    saf_gguf_close(&g);
    return st;
}

int saf__cmd_model_tokens(int argc, char **argv) {
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'}, {"text", required_argument, NULL, 't'},
        {"no-bos", no_argument, NULL, 'b'},     {"special", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},       {0},
    };
    const char *file = NULL, *text = NULL;
    bool bos = true, special = false;
    int c;
    optind = 0;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (c) {
            case 'f':
                file = optarg;
                break;
            case 't':
                text = optarg;
                break;
            case 'b':
                bos = false;
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
    if (!file == !text) return saf__cli_usage(USAGE, "give either --file or --text");
    return saf__cli_exit(tokens(argv[optind], file, text, bos, special));
}
