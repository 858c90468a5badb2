/* SPDX-License-Identifier: Apache-2.0 */
/* The `flashinfer` command: each subcommand is a struct command, in a file of its own or beside its like. What is parsed, the
 * help, the man pages and the completion of shells all come from these and from the table of options in options.c. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stdbool.h>

#include "core/status.h"

/* Exit codes, the same for every subcommand. */
enum {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,     /* a check failed, a kernel did not compile, a file is damaged */
    EXIT_USAGE = 2,      /* usage, input, or environment: a folder that cannot be written */
    EXIT_UNSUPPORTED = 3 /* this machine or library cannot do it */
};

enum option_id {
    OPTION_END,
    OPTION_HELP,
    OPTION_JSON,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_SEED,
    OPTION_REQUIRE,
    OPTION_PROBLEMS,
    OPTION_SHAPE,
    OPTION_ARCH,
    OPTION_JOBS,
    OPTION_ALL,
    OPTION_HUGE,
    OPTION_NO_REFCHECK,
    OPTION_REFCHECK,
    OPTION_WARM,
    OPTION_PDL,
    OPTION_OVERHEAD,
    OPTION_COMPILE,
    OPTION_ROUNDS,
    OPTION_FROM,
    OPTION_UNUSED_FOR,
    OPTION_MAX_SIZE,
    OPTION_OTHER_VERSIONS,
    OPTION_DRY_RUN,
    OPTION_FILTER,
    OPTION_DETAILED,
    OPTION_MAN
};

struct command_option {
    enum option_id id;
    const char *meaning; /* with the default */
};

enum operands {
    OPERANDS_NONE,
    OPERANDS_OPS,        /* names of ops; all if there are none */
    OPERANDS_OPS_VALUES, /* and NAME=VALUE or -ARGUMENT */
    OPERANDS_WORDS       /* whatever stands there */
};

struct options;

struct command {
    const char *name; /* one word, or two: "cache list" */
    const char *summary;
    const char *alias_of;      /* NULL; or the name of a command that does the same: nothing below is set */
    const char *operands_text; /* "[OP...] [NAME=VALUE...]"; NULL: none */
    enum operands operands;
    const char *description;              /* paragraphs, with an empty line between */
    const struct command_option *options; /* ended by {0}; --help is taken by all */
    const char *json;                     /* what --json prints; NULL: there is none */
    const char *const *environment;       /* names of variables that matter most here, NULL-terminated; NULL: none */
    const char *examples;                 /* lines */
    int (*run)(const struct options *options);
};

extern const struct command command_list, command_explain, command_check, command_bench, command_specs, command_compile,
    command_cache_list, command_cache_verify, command_cache_prune, command_cache_clear, command_list_modules,
    command_module_status, command_pack, command_show_config, command_completion, command_help, command_version;

/* All of them, in the order of the help; NULL-terminated. */
extern const struct command *const commands[];

/* The command that the first words name, its alias followed; *used words were taken. NULL if there is none. */
const struct command *command_find(int count, char *const *words, int *used);

/* Fills the buffer with "; near it: NAME", or "", for a word that is no command's name, and returns it. */
const char *command_near(const char *word, char *buffer, size_t size);

/* exit.c. Prints flashinfer_last_error() and returns the exit code for that status. */
int exit_with(flashinfer_status status);

/* The same of a command that also counts failures, which come first. */
int exit_after(flashinfer_status status, int failures);

/* Prints a sentence and how to get help, and returns EXIT_USAGE. */
int usage_error(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* help.c. As text for a terminal, or as a page for man. */
void help_print_command(const struct command *command, bool man);
void help_print_all(bool man);
/* The commands of a group: those whose names begin with that word. */
void help_print_group(const char *word);

#endif
