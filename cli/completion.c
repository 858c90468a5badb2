/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer completion: scripts for shells, which ask the command itself what can stand next. */
#include <stdio.h>
#include <string.h>

#include "cli/options.h"
#include "op/program.h"

static const char bash[] = "# Completion of `flashinfer` for bash.\n"
                           "_flashinfer() {\n"
                           "    local line=${COMP_LINE:0:COMP_POINT} words current prefix i\n"
                           "    read -r -a words <<<\"$line\"\n"
                           "    case $line in *[[:space:]]) words+=('') ;; esac\n"
                           "    current=${words[${#words[@]} - 1]}\n"
                           "    # bash breaks words at = and :, and completes what stands after the last of them.\n"
                           "    prefix=${current%\"${current##*[=:]}\"}\n"
                           "    local IFS=$'\\n'\n"
                           "    COMPREPLY=($(\"${words[0]}\" completion words -- \"${words[@]:1}\" 2>/dev/null | cut -f 1))\n"
                           "    for i in \"${!COMPREPLY[@]}\"; do\n"
                           "        COMPREPLY[i]=${COMPREPLY[i]#\"$prefix\"}\n"
                           "    done\n"
                           "    case ${COMPREPLY[0]-} in *=) compopt -o nospace 2>/dev/null ;; esac\n"
                           "}\n"
                           "complete -o default -F _flashinfer flashinfer\n";

static const char zsh[] = "#compdef flashinfer\n"
                          "# Completion of `flashinfer` for zsh.\n"
                          "_flashinfer() {\n"
                          "    local -a lines plain open\n"
                          "    local line word meaning\n"
                          "    lines=(\"${(@f)$(\"${words[1]}\" completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
                          "    for line in $lines; do\n"
                          "        word=${line%%$'\\t'*} meaning=${line#*$'\\t'}\n"
                          "        word=${word//:/\\\\:}\n"
                          "        if [[ $word == *= ]]; then open+=(\"$word:$meaning\"); else plain+=(\"$word:$meaning\"); fi\n"
                          "    done\n"
                          "    (( $#plain + $#open )) || { _files; return }\n"
                          "    (( ! $#plain )) || _describe flashinfer plain\n"
                          "    (( ! $#open )) || _describe flashinfer open -S ''\n"
                          "}\n"
                          "if [ \"$funcstack[1]\" = _flashinfer ]; then _flashinfer; else compdef _flashinfer flashinfer; fi\n";

static void offer(const char *current, const char *prefix, const char *word, const char *suffix, const char *meaning)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s%s%s", prefix, word, suffix);
    if (!strncmp(whole, current, strlen(current)))
        printf("%s\t%.*s\n", whole, (int)strcspn(meaning, "\n"), meaning);
}

/* "cpu cuda all" */
static void offer_list(const char *current, const char *prefix, const char *list)
{
    while (*list) {
        char word[64];
        int length = (int)strcspn(list, " ");
        snprintf(word, sizeof word, "%.*s", length, list);
        offer(current, prefix, word, "", "");
        list += length;
        list += strspn(list, " ");
    }
}

static void offer_dtypes(const char *current, const char *prefix, uint32_t set)
{
    for (int dtype = 1; dtype < DTYPE_COUNT; dtype++)
        if (set >> dtype & 1)
            offer(current, prefix, dtype_name((enum dtype)dtype), "", "");
}

static void offer_commands(const char *first, const char *current)
{
    size_t length = first ? strlen(first) : 0;
    for (int i = 0; commands[i]; i++) {
        const char *name = commands[i]->name, *second = strchr(name, ' ');
        if (first && second && (size_t)(second - name) == length && !memcmp(name, first, length))
            offer(current, "", second + 1, "", commands[i]->summary);
        if (!first && !second)
            offer(current, "", name, "", commands[i]->summary);
        if (!first && second && (i == 0 || strncmp(commands[i - 1]->name, name, (size_t)(second - name + 1)))) {
            char word[64];
            snprintf(word, sizeof word, "%.*s", (int)(second - name), name);
            offer(current, "", word, "", "several commands");
        }
    }
    if (!first && *current == '-')
        offer_list(current, "", "--help --version");
}

static void offer_options(const struct command *command, const char *current)
{
    for (const struct command_option *o = command->options; o && o->id != OPTION_END; o++)
        offer(current, "--", option_form(o->id)->name, "", o->meaning);
    if (command->json)
        offer(current, "--", "json", "", "one JSON object a line");
    offer(current, "--", "help", "", "describe the command");
}

/* Those that the words name, NULL-terminated; all if they name none. Returns how many are named. */
static int named_ops(int count, char *const *words, const struct op *ops[MAX_OPS + 1])
{
    int named = 0;
    for (int i = 0; i < count && named < MAX_OPS; i++)
        if ((ops[named] = op_find(words[i])))
            named++;
    for (int i = 0; !named && op_registry[i] && i < MAX_OPS; i++)
        ops[i] = op_registry[i];
    return named;
}

/* Dimensions, integers, enums and dtypes of an op, or the values of the one before "=". */
static void offer_values(const struct op *op, const char *current)
{
    const struct program *program = op_program(op);
    char prefix[128];
    if (!program)
        return;
    for (int i = 0; i < program->num_symbols; i++)
        if (program->symbol[i].arg < 0)
            offer(current, "", program->symbol[i].name, "=", "dimension");
    uint32_t all = 0;
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++) {
        bool many = arg->dtype.set & (arg->dtype.set - 1);
        all |= many ? arg->dtype.set : 0;
        if (arg->kind == OP_INT || arg->kind == OP_NUMBER)
            offer(current, "", arg->name, "=", "number");
        if (arg->kind != OP_ENUM && arg->kind != OP_DTYPE && !many)
            continue;
        snprintf(prefix, sizeof prefix, "%s%s=", arg->name, arg->kind == OP_ENUM || arg->kind == OP_DTYPE ? "" : ":dtype");
        if (strncmp(current, prefix, strlen(prefix)))
            offer(current, "", prefix, "", arg->kind == OP_ENUM ? arg->names : "dtype");
        else if (arg->kind == OP_ENUM)
            offer_list(current, prefix, arg->names);
        else
            offer_dtypes(current, prefix, arg->dtype.set);
    }
    if (all && strncmp(current, "dtype=", 6))
        offer(current, "", "dtype=", "", "of the first argument whose dtype is open");
    else if (all)
        offer_dtypes(current, "dtype=", all);
}

static void offer_option_value(enum option_id id, int count, char *const *words, const char *current, const char *prefix)
{
    const struct op *ops[MAX_OPS + 1] = {NULL};
    named_ops(count, words, ops);
    if (option_form(id)->choices)
        offer_list(current, prefix, option_form(id)->choices);
    for (int i = 0; ops[i]; i++) {
        for (const struct op_kernel *row = ops[i]->kernels; id == OPTION_KERNEL && row && row->name; row++)
            offer(current, prefix, row->name, "", ops[i]->name);
        for (const struct op_shape *shape = ops[i]->shapes; id == OPTION_SHAPE && shape && shape->name; shape++)
            offer(current, prefix, shape->name, "", shape->values);
    }
}

/* The option that waits for its value in `current`, whose own beginning goes into prefix: "--device" "c", or "--device=c". */
static enum option_id open_option(const struct command *command, const char *before, const char *current, char *prefix,
                                  size_t size)
{
    prefix[0] = 0;
    for (int id = OPTION_END + 1; id <= OPTION_MAN; id++) {
        const struct option_form *form = option_form((enum option_id)id);
        if (!form->value || !option_taken(command, (enum option_id)id))
            continue;
        if (!strncmp(before, "--", 2) && !strcmp(before + 2, form->name))
            return (enum option_id)id;
        if (form->letter && before[0] == '-' && before[1] == form->letter && !before[2])
            return (enum option_id)id;
        snprintf(prefix, size, "--%s=", form->name);
        if (!strncmp(current, prefix, strlen(prefix)))
            return (enum option_id)id;
        prefix[0] = 0;
    }
    return OPTION_END;
}

static void offer_operands(const struct command *command, int count, char *const *words, const char *current)
{
    const struct op *ops[MAX_OPS + 1] = {NULL};
    if (command == &command_completion && count == 0)
        offer_list(current, "", "bash zsh");
    if (command == &command_help && count < 2)
        offer_commands(count ? words[0] : NULL, current);
    if (command->operands != OPERANDS_OPS && command->operands != OPERANDS_OPS_VALUES)
        return;
    for (int i = 0; op_registry[i]; i++)
        offer(current, "", op_registry[i]->name, "", op_registry[i]->summary);
    int named = named_ops(count, words, ops);
    for (int i = 0; i < named && command->operands == OPERANDS_OPS_VALUES; i++)
        offer_values(ops[i], current);
}

/* The last word is the one to be completed; the others stand before it. */
static void offer_words(int count, char *const *words)
{
    int used = 0;
    char prefix[64];
    const char *current = count ? words[count - 1] : "", *before = count > 1 ? words[count - 2] : "";
    const struct command *command = count > 1 ? command_find(count - 1, words, &used) : NULL;
    if (!command) {
        if (count <= 2)
            offer_commands(count == 2 ? words[0] : NULL, current);
        return;
    }
    enum option_id open = open_option(command, before, current, prefix, sizeof prefix);
    if (open != OPTION_END)
        offer_option_value(open, count - 1 - used, words + used, current, prefix);
    else if (*current == '-')
        offer_options(command, current);
    else
        offer_operands(command, count - 1 - used, words + used, current);
}

static int run(const struct options *options)
{
    const char *what = options->num_words ? options->word[0] : "";
    if (!strcmp(what, "words")) {
        offer_words(options->num_words - 1, options->word + 1);
        return EXIT_FINE;
    }
    if (options->num_words != 1 || (strcmp(what, "bash") && strcmp(what, "zsh")))
        return usage_error(&command_completion, "name a shell: bash or zsh");
    fputs(!strcmp(what, "bash") ? bash : zsh, stdout);
    return EXIT_FINE;
}

const struct command command_completion = {
    .name = "completion",
    .summary = "print a script that completes commands and options in a shell",
    .operands_text = "bash|zsh",
    .operands = OPERANDS_WORDS,
    .description =
        "Prints the script for that shell. It completes commands, options and their values, ops, and the dimensions, enums and "
        "dtypes of the op that was named.\n\n"
        "`flashinfer completion words -- WORD...` prints what can stand in place of the last WORD, one a line, followed by a tab "
        "and what it means: for scripts of other shells.",
    .examples = "eval \"$(flashinfer completion bash)\"                     in ~/.bashrc\n"
                "flashinfer completion zsh >~/.zfunc/_flashinfer         in a folder of $fpath\n"
                "flashinfer completion words -- bench mm dtype=\n",
    .run = run,
};
