/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the subcommand and runs it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/nearest.h"
#include "core/environment.h"

static const struct command command_clear_cache = {
    .name = "clear-cache", .summary = "the same as cache clear", .alias_of = "cache clear"};

const struct command *const commands[] = {
    &command_list,          &command_explain,      &command_check,
    &command_bench,         &command_specs,        &command_compile,
    &command_cache_list,    &command_cache_verify, &command_cache_prune,
    &command_cache_clear,   &command_clear_cache,  &command_list_modules,
    &command_module_status, &command_pack, &command_show_config,  &command_completion,
    &command_help,          &command_version,      NULL,
};

/* Whether the words begin with the command's name; how many they are. */
static int words_of(const struct command *command, int count, char *const *words)
{
    const char *second = strchr(command->name, ' ');
    size_t first = second ? (size_t)(second - command->name) : strlen(command->name);
    if (count < 1 || strlen(words[0]) != first || memcmp(words[0], command->name, first))
        return 0;
    return !second ? 1 : count > 1 && !strcmp(words[1], second + 1) ? 2 : 0;
}

const struct command *command_find(int count, char *const *words, int *used)
{
    for (int i = 0; commands[i]; i++) {
        if (!(*used = words_of(commands[i], count, words)))
            continue;
        for (int k = 0; commands[i]->alias_of && commands[k]; k++)
            if (!strcmp(commands[k]->name, commands[i]->alias_of))
                return commands[k];
        return commands[i];
    }
    return NULL;
}

int exit_with(flashinfer_status status)
{
    if (status == FLASHINFER_OK)
        return EXIT_FINE;
    fprintf(stderr, "flashinfer: %s\n", flashinfer_last_error());
    switch (status) {
    case FLASHINFER_INVALID:
    case FLASHINFER_IO:
        return EXIT_USAGE;
    case FLASHINFER_UNSUPPORTED:
    case FLASHINFER_MEMORY:
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

static bool is_group(const char *word)
{
    size_t length = strlen(word);
    for (int i = 0; commands[i]; i++)
        if (!strncmp(commands[i]->name, word, length) && commands[i]->name[length] == ' ')
            return true;
    return false;
}

static int refuse(int count, char *const *words)
{
    char near[64];
    bool group = is_group(words[0]), help = count > 1 && (!strcmp(words[1], "--help") || !strcmp(words[1], "-h"));
    if (group && help) {
        help_print_group(words[0]);
        return EXIT_FINE;
    }
    if (group && count > 1)
        return usage_error(NULL, "there is no command \"%s %s\"; `flashinfer %s --help` names all", words[0], words[1], words[0]);
    if (words[0][0] == '-')
        return usage_error(NULL, "unknown option %s; options stand after a command", words[0]);
    if (group)
        return usage_error(NULL, "%s is several commands; `flashinfer %s --help` names them", words[0], words[0]);
    return usage_error(NULL, "there is no command \"%s\"%s", words[0], nearest_command(words[0], near, sizeof near));
}

/* What was printed must have arrived: a full disk behind standard output is no success. */
static int end(int code)
{
    if (fflush(stdout) || ferror(stdout)) {
        perror("flashinfer: standard output");
        return code ? code : EXIT_USAGE;
    }
    return code;
}

/* A command that stumbled over the environment is easier to understand with what is wrong in it. */
static void print_notes(const struct command *command)
{
    struct environment_entry entry;
    for (int i = 0; command != &command_show_config && environment_entry(i, &entry); i++)
        if (entry.wrong)
            fprintf(stderr, "flashinfer: note: %s\n", entry.wrong);
}

int main(int argc, char **argv)
{
    struct options options;
    int used;
    if (argc < 2) {
        fputs("usage: flashinfer COMMAND [OPTION...] [ARGUMENT...]\nTry `flashinfer --help`.\n", stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help_print_all(false);
        return end(EXIT_FINE);
    }
    if (!strcmp(argv[1], "--version"))
        argv[1] = "version";
    const struct command *command = command_find(argc - 1, argv + 1, &used);
    if (!command)
        return end(refuse(argc - 1, argv + 1));
    int code = options_parse(command, argc - used, argv + used, &options);
    if (code < 0)
        code = command->run(&options);
    print_notes(command);
    return end(code);
}
