/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the subcommand. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

static const struct command *const commands[] = {
    &command_list,  &command_explain,     &command_check,   &command_bench,
    &command_specs, &command_show_config, &command_version,
};

enum { NUM_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fputs("usage: flashinfer COMMAND [OPTION...] [ARGUMENT...]\n\n"
          "Looks into, checks and times the kernels of the flashinfer library.\n\nCOMMANDS\n",
          out);
    for (int i = 0; i < NUM_COMMANDS; i++)
        fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`flashinfer COMMAND --help` describes a command. Environment variables: see `flashinfer "
          "show-config`.\n\n" EXIT_CODES_HELP,
          out);
}

int exit_with(flashinfer_status status)
{
    if (status == FLASHINFER_OK)
        return EXIT_FINE;
    fprintf(stderr, "flashinfer: %s\n", flashinfer_last_error());
    switch (status) {
    case FLASHINFER_INVALID:
        return EXIT_USAGE;
    case FLASHINFER_UNSUPPORTED:
    case FLASHINFER_NO_DRIVER:
    case FLASHINFER_NO_COMPILER:
        return EXIT_UNSUPPORTED;
    default:
        return EXIT_FAILED;
    }
}

int usage_error(const struct command *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("flashinfer: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nTry `flashinfer%s%s --help`.\n", command ? " " : "", command ? command->name : "");
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_help(stdout);
        return EXIT_FINE;
    }
    if (!strcmp(name, "--version"))
        name = command_version.name;
    for (int i = 0; i < NUM_COMMANDS; i++)
        if (!strcmp(name, commands[i]->name))
            return commands[i]->run(argc - 1, argv + 1);
    return usage_error(NULL, "there is no command \"%s\"", name);
}
