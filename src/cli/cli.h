/* The commands of `saf`: each takes its own argv (argv[0] is the command's name) and returns the
 * process's exit code. Errors are printed by main's saf_cli_report. */
#ifndef SAF_CLI_CLI_H
#define SAF_CLI_CLI_H

#include "saf/core.h"

int saf__cmd_run(int argc, char **argv);
int saf__cmd_launch(int argc, char **argv);
int saf__cmd_detect(int argc, char **argv);
int saf__cmd_plan(int argc, char **argv);
int saf__cmd_report(int argc, char **argv);
int saf__cmd_status(int argc, char **argv);
int saf__cmd_model(int argc, char **argv);
int saf__cmd_help(int argc, char **argv);

/* Sub-commands of `saf model`. */
int saf__cmd_model_info(int argc, char **argv);
int saf__cmd_model_make(int argc, char **argv);
int saf__cmd_model_vocab(int argc, char **argv);
int saf__cmd_model_tokens(int argc, char **argv);
int saf__cmd_model_text(int argc, char **argv);

/* Prints the error of a failed call to stderr and returns the exit code of its status. */
int saf__cli_exit(saf_status status);
/* A wrong word on the command line: message, one line of usage, exit code 2. */
int saf__cli_usage(const char *usage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
