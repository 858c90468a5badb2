/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the subcommand and runs it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/nearest.h"
#include "cli/options.h"
#include "core/environment.h"

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
    return usage_error(NULL, "there is no command \"%s\"%s", words[0], command_near(words[0], near, sizeof near));
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
    char name[VARIABLE_NAME], near[128];
    if (command == &command_show_config)
        return;
    for (int i = 0; environment_entry(i, &entry); i++)
        if (entry.wrong)
            fprintf(stderr, "flashinfer: note: %s\n", entry.wrong);
    for (char **setting = environ; *setting; setting++)
        if (is_unread_variable(*setting, name, near, sizeof near) && near[0])
            fprintf(stderr, "flashinfer: note: %s is not read%s\n", name, near);
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
    if (code < 0 && options.help)
        help_print_command(command, false);
    code = code >= 0 ? code : options.help ? EXIT_FINE : command->run(&options);
    print_notes(command);
    return end(code);
}
