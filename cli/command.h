/* SPDX-License-Identifier: Apache-2.0 */
/* The `flashinfer` command: one file per subcommand, each a struct command. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "core/status.h"

/* Exit codes, the same for every subcommand. */
enum {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,     /* a check failed */
    EXIT_USAGE = 2,      /* usage or input */
    EXIT_UNSUPPORTED = 3 /* this machine or library cannot do it */
};

#define EXIT_CODES_HELP           \
    "EXIT CODES\n"                \
    "  0  all is well\n"          \
    "  1  a check failed\n"       \
    "  2  wrong usage or input\n" \
    "  3  not supported, here or at all\n"

struct command {
    const char *name, *summary, *help;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name */
};

extern const struct command command_list, command_explain, command_check, command_bench, command_show_config,
    command_specs, command_version;

/* Prints flashinfer_last_error() and returns the exit code for that status. */
int exit_with(flashinfer_status status);

/* Prints a sentence and how to get help, and returns EXIT_USAGE. */
int usage_error(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
