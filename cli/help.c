/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer help: the pages of the command and of each subcommand. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/options.h"
#include "cli/page.h"
#include "core/environment.h"

enum { OPTION_WIDTH = 22, NAME_WIDTH = 26, CODE_WIDTH = 1 };

static void print_exit_codes(struct page *page)
{
    page_section(page, "EXIT STATUS");
    page_item(page, CODE_WIDTH, "0", "all is well");
    page_item(page, CODE_WIDTH, "1", "a check failed, a kernel did not compile, a file of the cache is damaged");
    page_item(page, CODE_WIDTH, "2", "wrong usage, input or environment (a folder that cannot be written)");
    page_item(page, CODE_WIDTH, "3", "not supported, on this machine (no GPU, compiler or memory) or at all");
}

/* name NULL: all variables. */
static void print_variable(struct page *page, const char *name)
{
    struct environment_entry known;
    for (int i = 0; environment_entry(i, &known); i++)
        if (!name || !strcmp(name, known.name))
            page_item(page, NAME_WIDTH, known.name, known.meaning);
}

static void print_option(struct page *page, enum option_id id, const char *meaning)
{
    const struct option_form *form = option_form(id);
    char term[80];
    snprintf(term, sizeof term, "%s%c%s--%s%s%s", form->letter ? "-" : "", form->letter ? form->letter : ' ',
             form->letter ? ", " : "", form->name, form->value ? " " : "", form->value ? form->value : "");
    page_item(page, OPTION_WIDTH, form->letter ? term : term + 1, meaning);
}

static void print_title(const char *name)
{
    char upper[64], dashed[64];
    size_t i = 0;
    for (; name[i] && i + 1 < sizeof upper; i++) {
        dashed[i] = name[i] == ' ' ? '-' : name[i];
        upper[i] = (char)toupper((unsigned char)dashed[i]);
    }
    upper[i] = dashed[i] = 0;
    printf(".TH FLASHINFER%s%s 1 \"\" \"flashinfer %s\"\n.SH NAME\nflashinfer%s%s \\- ", *name ? "-" : "", upper,
           flashinfer_version(), *name ? "-" : "", dashed);
}

static void print_aliases(struct page *page, const struct command *command)
{
    char text[128];
    for (int i = 0; commands[i]; i++)
        if (commands[i]->alias_of && !strcmp(commands[i]->alias_of, command->name)) {
            snprintf(text, sizeof text, "`flashinfer %s` is the same.", commands[i]->name);
            if (!page->man)
                putchar('\n');
            page_text(page, text);
        }
}

/* From the description on; the exit codes are those of all commands. */
static void print_body(struct page *page, const struct command *command)
{
    char json[256];
    page_section(page, "DESCRIPTION");
    page_text(page, command->description);
    print_aliases(page, command);
    page_section(page, "OPTIONS");
    for (const struct command_option *o = command->options; o && o->id != OPTION_END; o++)
        print_option(page, o->id, o->meaning);
    snprintf(json, sizeof json, "one JSON object a line%s%s", command->json && *command->json ? ": " : "",
             command->json ? command->json : "");
    if (command->json)
        print_option(page, OPTION_JSON, json);
    print_option(page, OPTION_HELP, "this text");
    if (command->environment)
        page_section(page, "ENVIRONMENT");
    for (const char *const *name = command->environment; name && *name; name++)
        print_variable(page, *name);
    if (!page->nested)
        print_exit_codes(page);
    if (command->examples) {
        page_section(page, "EXAMPLES");
        page_lines(page, command->examples);
    }
}

static void print_synopsis(const struct command *command, char *buffer, size_t size)
{
    snprintf(buffer, size, "flashinfer %s [OPTION...]%s%s\n", command->name, command->operands_text ? " " : "",
             command->operands_text ? command->operands_text : "");
}

void help_print_command(const struct command *command, bool man)
{
    struct page page = {.man = man};
    char synopsis[256];
    print_synopsis(command, synopsis, sizeof synopsis);
    if (man) {
        print_title(command->name);
        puts(command->summary);
        page_section(&page, "SYNOPSIS");
        page_text(&page, synopsis);
    } else {
        printf("usage: %s\n%c%s.\n", synopsis, toupper((unsigned char)command->summary[0]), command->summary + 1);
        page.open = true;
    }
    print_body(&page, command);
}

/* As sections of the page of all. */
static void print_chapters(void)
{
    struct page page = {.man = true}, chapter = {.man = true, .nested = true};
    char synopsis[256];
    for (int i = 0; commands[i]; i++) {
        if (commands[i]->alias_of)
            continue;
        print_synopsis(commands[i], synopsis, sizeof synopsis);
        page_section(&page, commands[i]->name);
        page_text(&page, synopsis);
        print_body(&chapter, commands[i]);
    }
}

static void print_commands(struct page *page, const char *group)
{
    size_t length = group ? strlen(group) : 0;
    for (int i = 0; commands[i]; i++)
        if (!group || (!strncmp(commands[i]->name, group, length) && commands[i]->name[length] == ' '))
            page_item(page, 14, commands[i]->name, commands[i]->summary);
}

void help_print_group(const char *word)
{
    struct page page = {.open = true};
    printf("usage: flashinfer %s COMMAND [OPTION...]\n", word);
    page_section(&page, "COMMANDS");
    print_commands(&page, word);
}

void help_print_all(bool man)
{
    static const char synopsis[] = "flashinfer COMMAND [OPTION...] [ARGUMENT...]\n";
    static const char summary[] = "look into, check, time and compile the kernels of the flashinfer library";
    struct page page = {.man = man};
    if (man) {
        print_title("");
        puts(summary);
        page_section(&page, "SYNOPSIS");
        page_text(&page, synopsis);
    } else {
        printf("usage: %s\nL%s.\n", synopsis, summary + 1);
        page.open = true;
    }
    page_section(&page, "COMMANDS");
    print_commands(&page, NULL);
    page_section(&page, "OPTIONS");
    page_item(&page, 14, "-h, --help", "this text; `flashinfer COMMAND --help` describes a command");
    page_item(&page, 14, "--version", "the library's version");
    page_section(&page, "ENVIRONMENT");
    print_variable(&page, NULL);
    print_exit_codes(&page);
    page_section(&page, "EXAMPLES");
    page_lines(&page, "flashinfer show-config                      what the library found on this machine\n"
                      "flashinfer explain mm m=1 n=4096 k=4096     which kernels serve a call\n"
                      "flashinfer check --device cpu               every kernel against its reference\n"
                      "flashinfer compile --all -j 8               fill the cache before the first request\n"
                      "eval \"$(flashinfer completion bash)\"        complete commands and options with Tab\n");
    if (man)
        print_chapters();
}

static int run(const struct options *options)
{
    int used;
    char near[64];
    if (!options->num_words) {
        help_print_all(options->man);
        return EXIT_FINE;
    }
    const struct command *command = command_find(options->num_words, options->word, &used);
    if (!command || used < options->num_words)
        return usage_error(NULL, "there is no command \"%s%s%s\"%s", options->word[0], options->num_words > 1 ? " " : "",
                           options->num_words > 1 ? options->word[1] : "", command_near(options->word[0], near, sizeof near));
    help_print_command(command, options->man);
    return EXIT_FINE;
}

const struct command command_help = {
    .name = "help",
    .summary = "print the page of a command",
    .operands_text = "[COMMAND]",
    .operands = OPERANDS_WORDS,
    .description = "Prints what `flashinfer COMMAND --help` prints; without COMMAND, what `flashinfer --help` does. "
                   "With --man and without COMMAND, one page with all commands.",
    .options = (const struct command_option[]){{OPTION_MAN, "as a page for man, in troff"}, {OPTION_END, NULL}},
    .examples = "flashinfer help cache prune\n"
                "flashinfer help --man compile | man -l -\n",
    .run = run,
};
