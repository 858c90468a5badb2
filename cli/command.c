/* SPDX-License-Identifier: Apache-2.0 */
/* The table of subcommands. */
#include "cli/command.h"

#include <limits.h>
#include <string.h>

#include "cli/nearest.h"

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

const char *command_near(const char *word, char *buffer, size_t size)
{
    int least = INT_MAX;
    buffer[0] = 0;
    for (int i = 0; commands[i]; i++)
        nearest_take(word, "", commands[i]->name, &least, buffer, size);
    return buffer;
}
