/* SPDX-License-Identifier: Apache-2.0 */
/* The table of options, and the parser of all subcommands. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/nearest.h"
#include "core/arch.h"

/* Says what is wrong with the text, and returns EXIT_USAGE; -1 if nothing is. */
typedef int parse_option(const struct command *command, enum option_id id, const char *text, struct options *out);

static parse_option set_flag, set_text, set_integer, set_seed, set_device, set_require, set_archs, set_age, set_bytes,
    set_refcheck, set_filter;

#define OF(field) offsetof(struct options, field)

static const struct row {
    struct option_form form;
    parse_option *parse;
    size_t offset; /* of the field in struct options */
    int most;      /* set_integer */
} rows[] = {
    [OPTION_HELP] = {{"help", 'h', NULL, NULL}, set_flag, OF(help), 0},
    [OPTION_JSON] = {{"json", 0, NULL, NULL}, set_flag, OF(json), 0},
    [OPTION_DEVICE] = {{"device", 0, "cpu|cuda|all", "cpu cuda all"}, set_device, 0, 0},
    [OPTION_KERNEL] = {{"kernel", 0, "NAME", NULL}, set_text, OF(kernel), 0},
    [OPTION_SEED] = {{"seed", 0, "N", NULL}, set_seed, 0, 0},
    [OPTION_REQUIRE] = {{"require", 0, "cuda", "cuda"}, set_require, 0, 0},
    [OPTION_PROBLEMS] = {{"problems", 0, "N", NULL}, set_integer, OF(problems), 1000000},
    [OPTION_SHAPE] = {{"shape", 0, "NAME", NULL}, set_text, OF(shape), 0},
    [OPTION_ARCH] = {{"arch", 0, "N[,N...]", "80 86 89 90 100 103 110 120 121"}, set_archs, 0, 0},
    [OPTION_JOBS] = {{"jobs", 'j', "N", NULL}, set_integer, OF(jobs), 4096},
    [OPTION_ALL] = {{"all", 0, NULL, NULL}, set_flag, OF(all), 0},
    [OPTION_HUGE] = {{"huge", 0, NULL, NULL}, set_flag, OF(huge), 0},
    [OPTION_NO_REFCHECK] = {{"no-refcheck", 0, NULL, NULL}, set_flag, OF(no_refcheck), 0},
    [OPTION_REFCHECK] = {{"refcheck", 0, NULL, NULL}, set_refcheck, 0, 0},
    [OPTION_WARM] = {{"warm", 0, NULL, NULL}, set_flag, OF(warm), 0},
    [OPTION_PDL] = {{"pdl", 0, NULL, NULL}, set_flag, OF(pdl), 0},
    [OPTION_OVERHEAD] = {{"overhead", 0, NULL, NULL}, set_flag, OF(overhead), 0},
    [OPTION_COMPILE] = {{"compile", 0, NULL, NULL}, set_flag, OF(compile), 0},
    [OPTION_ROUNDS] = {{"rounds", 0, "N", NULL}, set_integer, OF(rounds), 1000},
    [OPTION_FROM] = {{"from", 0, "FILE", NULL}, set_text, OF(from), 0},
    [OPTION_UNUSED_FOR] = {{"unused-for", 0, "AGE", NULL}, set_age, 0, 0},
    [OPTION_MAX_SIZE] = {{"max-size", 0, "BYTES", NULL}, set_bytes, 0, 0},
    [OPTION_OTHER_VERSIONS] = {{"other-versions", 0, NULL, NULL}, set_flag, OF(other_versions), 0},
    [OPTION_DRY_RUN] = {{"dry-run", 'n', NULL, NULL}, set_flag, OF(dry_run), 0},
    [OPTION_FILTER] = {{"filter", 0, "all|compiled|not-compiled", "all compiled not-compiled"}, set_filter, OF(filter), 0},
    [OPTION_DETAILED] = {{"detailed", 0, NULL, NULL}, set_flag, OF(detailed), 0},
    [OPTION_MAN] = {{"man", 0, NULL, NULL}, set_flag, OF(man), 0},
};

enum { NUM_ROWS = sizeof rows / sizeof *rows };

const struct option_form *option_form(enum option_id id)
{
    return &rows[id].form;
}

bool option_taken(const struct command *command, enum option_id id)
{
    if (id == OPTION_HELP || (id == OPTION_JSON && command->json))
        return true;
    for (const struct command_option *o = command->options; o && o->id != OPTION_END; o++)
        if (o->id == id)
            return true;
    return false;
}

static int set_flag(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)command;
    (void)text;
    *(bool *)((char *)out + rows[id].offset) = true;
    return -1;
}

static int set_refcheck(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)command;
    (void)id;
    (void)text;
    out->no_refcheck = false;
    return -1;
}

static int set_text(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    if (!*text)
        return usage_error(command, "--%s is empty", rows[id].form.name);
    *(const char **)((char *)out + rows[id].offset) = text;
    return -1;
}

/* From 1; no sign. */
static bool parse_number(const char *text, unsigned long long most, unsigned long long *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return !errno && end != text && !*end && text[0] >= '0' && text[0] <= '9' && *out > 0 && *out <= most;
}

static int set_integer(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    unsigned long long value, most = (unsigned long long)rows[id].most;
    if (!parse_number(text, most, &value))
        return usage_error(command, "--%s %s: must be a number from 1 to %llu", rows[id].form.name, text, most);
    *(int *)((char *)out + rows[id].offset) = (int)value;
    return -1;
}

static int set_seed(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)id;
    unsigned long long value;
    if (!parse_number(text, ~0ull, &value))
        return usage_error(command, "--seed %s: must be a number of at least 1", text);
    out->seed = value;
    return -1;
}

static int set_device(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)id;
    bool all = !strcmp(text, "all");
    out->cpu = all || !strcmp(text, "cpu");
    out->cuda = all || !strcmp(text, "cuda");
    out->device_given = true;
    return out->cpu || out->cuda ? -1 : usage_error(command, "--device %s: must be cpu, cuda or all", text);
}

static int set_require(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)id;
    out->require_cuda = true;
    return strcmp(text, "cuda") ? usage_error(command, "--require %s: must be cuda", text) : -1;
}

static int set_filter(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)id;
    out->filter = text;
    return strcmp(text, "all") && strcmp(text, "compiled") && strcmp(text, "not-compiled")
               ? usage_error(command, "--filter %s: must be all, compiled or not-compiled", text)
               : -1;
}

static int set_archs(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    (void)id;
    const char *wrong = arch_parse_list(text, out->archs, MAX_ARCHS);
    return wrong ? usage_error(command, "--arch %s: %s", text, wrong) : -1;
}

/* A number and one of the letters, which multiply it by the factors. -1 if it is neither. */
static double parse_scaled(const char *text, const char *letters, const double *factors)
{
    char *end;
    double value = strtod(text, &end);
    const char *letter = *end ? strchr(letters, *end) : NULL;
    if (end == text || !isfinite(value) || value < 0 || text[0] == '+' || (*end && (!letter || end[1])))
        return -1;
    value *= letter ? factors[letter - letters] : 1;
    return value < 9e18 ? value : -1;
}

static int set_age(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    static const double factors[] = {1, 60, 3600, 86400, 7 * 86400};
    (void)id;
    bool has_unit = *text && !strchr("0123456789", text[strlen(text) - 1]);
    double seconds = parse_scaled(text, "smhdw", factors);
    out->unused_for = (int64_t)seconds;
    if (has_unit && seconds >= 1)
        return -1;
    return usage_error(command, "--unused-for %s: must be a time from 1s, as 90s, 30m, 12h, 30d or 4w", text);
}

static int set_bytes(const struct command *command, enum option_id id, const char *text, struct options *out)
{
    static const double factors[] = {1024, 1048576, 1073741824};
    (void)id;
    double bytes = parse_scaled(text, "KMG", factors);
    out->max_size = (int64_t)bytes;
    return bytes >= 0 ? -1 : usage_error(command, "--max-size %s: must be bytes, as 4096, 100K, 500M or 2G", text);
}

static int parse_operand(const struct command *command, char *word, struct options *out)
{
    if (command->operands == OPERANDS_OPS_VALUES && (strchr(word, '=') || word[0] == '-')) {
        size_t used = strlen(out->values);
        int length = snprintf(out->values + used, sizeof out->values - used, "%s%s", used ? " " : "", word);
        return length < (int)(sizeof out->values - used) ? -1 : usage_error(command, "too many values");
    }
    if (command->operands == OPERANDS_NONE)
        return usage_error(command, "\"%s\" was not expected", word);
    if (command->operands == OPERANDS_WORDS) {
        if (out->num_words == MAX_WORDS)
            return usage_error(command, "too many words");
        out->word[out->num_words++] = word;
        return -1;
    }
    const struct op *op = op_find(word);
    if (!op && option_taken(command, OPTION_FROM) && !out->list && (out->list = call_list_find(word)))
        return -1;
    if (!op && (strchr(word, '=') || word[0] == '-'))
        return usage_error(command, "\"%s\" was not expected: `%s` takes names of ops, and no values", word, command->name);
    if (!op) {
        char near[512];
        return usage_error(command, "there is no op \"%s\"%s", word, nearest_op(word, near, sizeof near));
    }
    if (out->num_named == MAX_OPS)
        return usage_error(command, "too many ops");
    out->op[out->num_named++] = op;
    return -1;
}

static const char *option_near(const struct command *command, const char *word, char *buffer, size_t size)
{
    int least = INT_MAX;
    buffer[0] = 0;
    for (int id = OPTION_END + 1; id <= OPTION_MAN; id++)
        if (option_taken(command, (enum option_id)id))
            nearest_take(word, "--", option_form((enum option_id)id)->name, &least, buffer, size);
    return buffer;
}

/* getopt says little of what it does not take: a letter, or the number of a row. */
static int refuse_option(const struct command *command, int reason, const char *word)
{
    char near[64];
    bool letter = optopt >= NUM_ROWS;
    if (reason == ':')
        return letter ? usage_error(command, "-%c needs a value", optopt) : usage_error(command, "%s needs a value", word);
    if (letter)
        return usage_error(command, "unknown option -%c%s", optopt,
                           command->operands == OPERANDS_OPS_VALUES ? "; -ARGUMENT, which leaves an argument out, stands after --"
                                                                    : "");
    if (optopt)
        return usage_error(command, "%s: the option takes no value", word);
    return usage_error(command, "unknown option %s%s", word, option_near(command, word + 2, near, sizeof near));
}

static bool has_shape(const struct op *op, const char *name)
{
    const struct op_shape *shape = op->shapes;
    while (shape && shape->name && strcmp(shape->name, name))
        shape++;
    return shape && shape->name;
}

/* Of all ops those that have the shape are meant; one that was named must have it. */
static int keep_ops_with_shape(const struct command *command, struct options *out)
{
    int kept = 0;
    for (int i = 0; out->op[i]; i++)
        if (has_shape(out->op[i], out->shape))
            out->op[kept++] = out->op[i];
        else if (out->num_named)
            return usage_error(command, "%s has no shape named %s; `flashinfer explain %s` names all", out->op[i]->name,
                               out->shape, out->op[i]->name);
    out->op[kept] = NULL;
    return kept ? -1 : usage_error(command, "no op has a shape named %s", out->shape);
}

/* Whether an op that was asked for has a row of the name that --kernel gave. */
static bool has_kernel(const struct options *options)
{
    for (const struct op *const *op = options->op; *op; op++)
        for (const struct op_kernel *row = (*op)->kernels; row && row->name; row++)
            if (!strcmp(row->name, options->kernel))
                return true;
    return false;
}

/* What options and operands say must fit together. */
static int check_together(const struct command *command, struct options *out)
{
    if (out->archs[0] && out->device_given && !out->cuda)
        return usage_error(command, "--arch names GPUs, and does not go with --device cpu");
    if (out->kernel && !has_kernel(out))
        return usage_error(command, "no op that was asked for has a kernel \"%s\"", out->kernel);
    return out->shape ? keep_ops_with_shape(command, out) : -1;
}

int options_parse(const struct command *command, int argc, char **argv, struct options *out)
{
    struct option accepted[NUM_ROWS + 1] = {{0}};
    char letters[2 * NUM_ROWS + 2] = ":";
    int count = 0, id, code = -1;
    memset(out, 0, sizeof *out);
    out->max_size = -1;
    for (int i = OPTION_END + 1; i < NUM_ROWS; i++) {
        const struct option_form *form = &rows[i].form;
        if (!option_taken(command, (enum option_id)i))
            continue;
        accepted[count++] = (struct option){form->name, form->value ? required_argument : no_argument, NULL, i};
        if (form->letter)
            snprintf(letters + strlen(letters), 3, "%c%s", form->letter, form->value ? ":" : "");
    }
    opterr = 0;
    while (code < 0 && (id = getopt_long(argc, argv, letters, accepted, NULL)) != -1) {
        for (int i = OPTION_END + 1; i < NUM_ROWS; i++)
            id = rows[i].form.letter == id && id >= 'a' ? i : id;
        code = id == '?' || id == ':' ? refuse_option(command, id, argv[optind - 1])
                                      : rows[id].parse(command, (enum option_id)id, optarg, out);
    }
    if (out->help && code < 0)
        return code;
    for (int i = optind; code < 0 && i < argc; i++)
        code = parse_operand(command, argv[i], out);
    for (int i = 0; !out->num_named && op_registry[i] && i < MAX_OPS; i++)
        out->op[i] = op_registry[i];
    return code < 0 ? check_together(command, out) : code;
}
