/* saf model: the commands on one model file. */
#include <stdio.h>

#include "cli/cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"info", saf__cmd_model_info}, {"tokens", saf__cmd_model_tokens}, {"text", saf__cmd_model_text},
    {"make", saf__cmd_model_make}, {"vocab", saf__cmd_model_vocab},
};

int saf__cmd_model(int argc, char **argv) {
    const char *usage = "saf model info|tokens|text|make|vocab FILE ...";
    if (argc < 2) return saf__cli_usage(usage, "`saf model` needs a sub-command");
    if (strcmp(argv[1], "--help") == 0) {
        printf(
            "usage: %s\n\n"
            "  info    what a model file holds, and whether saf can run it\n"
            "  tokens  the token ids of a text\n"
            "  text    the text of token ids\n"
            "  make    write a model of a given shape with synthetic weights\n"
            "  vocab   learn a vocabulary from texts\n\n"
            "`saf model info --help` and so on tell more.\n",
            usage);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    return saf__cli_usage(usage, "unknown sub-command \"%s\" of `saf model`", argv[1]);
}
