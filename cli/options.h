/* SPDX-License-Identifier: Apache-2.0 */
/* Options and arguments that subcommands share. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdint.h>

#include "cli/call_lists.h"
#include "cli/command.h"
#include "op/op.h"

enum { MAX_OPS = 256, MAX_VALUES = 640, MAX_ARCHS = 32, MAX_WORDS = 256 };

/* What the command line says; fields of options that were not given are 0 or NULL. */
struct options {
    bool help, json;
    bool cpu, cuda, device_given; /* --device cpu|cuda|all */
    bool require_cuda;
    const char *kernel, *shape, *from, *filter;
    uint64_t seed;
    int problems, jobs, rounds;
    int32_t archs[MAX_ARCHS + 1]; /* ended by 0 */
    int64_t unused_for;           /* seconds */
    int64_t max_size;             /* bytes; -1: not given */
    bool all, huge, no_refcheck, warm, pdl, overhead, compile, other_versions, dry_run, detailed, man;
    const struct op *op[MAX_OPS + 1]; /* NULL-terminated; every op if none was named */
    int num_named;                    /* how many were named */
    const struct call_list *list;     /* of compile and module-status: a list instead of ops */
    char values[MAX_VALUES];          /* "rows=4 -bias" */
    char *word[MAX_WORDS + 1];        /* OPERANDS_WORDS; NULL-terminated */
    int num_words;
};

/* How an option is written, wherever it is taken. */
struct option_form {
    const char *name;
    char letter;         /* 0: none */
    const char *value;   /* what follows it, for the help: "N"; NULL: nothing */
    const char *choices; /* the values there are, separated by spaces; NULL: not a list */
};

const struct option_form *option_form(enum option_id id);

/* Whether the command takes it. */
bool option_taken(const struct command *command, enum option_id id);

/* The words after the command's name. Returns -1 to go on, with the help alone if out->help, else the exit code, everything
 * having been said. */
int options_parse(const struct command *command, int argc, char **argv, struct options *out);

/* Where the options ask to look: the CPU, a GPU if there is one, the architectures of --arch. An error if there is no GPU and
 * --device cuda or --require cuda asks for one. */
struct devices {
    const struct device *device[MAX_ARCHS + 2]; /* NULL-terminated */
    struct device imagined[MAX_ARCHS];
};
flashinfer_status devices_wanted(const struct options *options, struct devices *out);

#endif
