/* SPDX-License-Identifier: Apache-2.0 */
/* Options and arguments that subcommands share. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>

#include "cli/command.h"
#include "op/op.h"

enum { MAX_OPS = 256, MAX_VALUES = 640 };

struct options {
    bool help, json;
    bool cpu, cuda, require_cuda; /* --device cpu|cuda|all, --require cuda */
    bool device_given;
    const char *kernel, *shape;
    unsigned long long seed; /* 0: not given */
    int problems;            /* 0: not given */
    int arch, threads;       /* 0: not given */
    bool all;                /* specs: all dtypes; bench: all named shapes however large */
    bool no_refcheck, overhead, compile;
    const struct op *op[MAX_OPS + 1]; /* NULL-terminated; every op if none was named */
    int num_named;                    /* how many were named */
    char values[MAX_VALUES];          /* "rows=4 -bias" */
};

/* Which of the long options a subcommand takes: their names, separated by spaces. --help and --json are taken
 * by all. Returns -1 to go on, else the exit code, everything having been said. Operands are ops, and
 * NAME=VALUE or -ARGUMENT if `values`. */
int options_parse(const struct command *command, int argc, char **argv, const char *taken, bool ops,
                  bool values, struct options *out);

/* Whether an op that was asked for has a row of the name that --kernel gave. */
bool options_has_kernel(const struct options *options);

#endif
