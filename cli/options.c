/* SPDX-License-Identifier: Apache-2.0 */
/* Parses the options of all subcommands. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_id {
    HELP = 1,
    JSON,
    DEVICE,
    KERNEL,
    SEED,
    REQUIRE,
    PROBLEMS,
    SHAPE,
    ARCH,
    THREADS,
    ALL,
    NO_REFCHECK,
    REFCHECK,
    OVERHEAD,
    COMPILE
};

static const struct option known[] = {
    {"help", no_argument, NULL, HELP},
    {"json", no_argument, NULL, JSON},
    {"device", required_argument, NULL, DEVICE},
    {"kernel", required_argument, NULL, KERNEL},
    {"seed", required_argument, NULL, SEED},
    {"require", required_argument, NULL, REQUIRE},
    {"problems", required_argument, NULL, PROBLEMS},
    {"shape", required_argument, NULL, SHAPE},
    {"arch", required_argument, NULL, ARCH},
    {"threads", required_argument, NULL, THREADS},
    {"all", no_argument, NULL, ALL},
    {"no-refcheck", no_argument, NULL, NO_REFCHECK},
    {"refcheck", no_argument, NULL, REFCHECK},
    {"overhead", no_argument, NULL, OVERHEAD},
    {"compile", no_argument, NULL, COMPILE},
};

enum { NUM_KNOWN = sizeof known / sizeof *known };

static bool word_in(const char *word, const char *list)
{
    size_t length = strlen(word);
    for (; *list; list += strspn(list, " ")) {
        size_t size = strcspn(list, " ");
        if (size == length && !memcmp(list, word, size))
            return true;
        list += size;
    }
    return false;
}

/* How many letters must be added, removed or replaced to get from one name to the other. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int n = (int)strlen(b), row[LONGEST + 1];
    if (n > LONGEST)
        return LONGEST;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]),
                least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[n];
}

static int unknown_op(const struct command *command, const char *name)
{
    char near[512] = "";
    int least = 1 << 20;
    for (const struct op *const *op = op_registry; *op; op++) {
        int d = distance(name, (*op)->name);
        least = d < least ? d : least;
    }
    for (const struct op *const *op = op_registry; *op; op++)
        if (strstr((*op)->name, name) || distance(name, (*op)->name) == least)
            snprintf(near + strlen(near), sizeof near - strlen(near), "%s%s", near[0] ? ", " : "",
                     (*op)->name);
    return usage_error(command, "there is no op \"%s\"; near it: %s", name, near);
}

static int parse_operand(const struct command *command, const char *word, bool ops, bool values,
                         struct options *out)
{
    if (values && (strchr(word, '=') || word[0] == '-')) {
        size_t used = strlen(out->values);
        int length = snprintf(out->values + used, sizeof out->values - used, "%s%s", used ? " " : "", word);
        return length < (int)(sizeof out->values - used) ? -1 : usage_error(command, "too many values");
    }
    if (!ops)
        return usage_error(command, "\"%s\" was not expected", word);
    const struct op *op = op_find(word);
    if (!op)
        return unknown_op(command, word);
    if (out->num_named == MAX_OPS)
        return usage_error(command, "too many ops");
    out->op[out->num_named++] = op;
    return -1;
}

static bool parse_number(const char *text, unsigned long long most, unsigned long long *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return !errno && end != text && !*end && text[0] != '-' && *out > 0 && *out <= most;
}

static int parse_integer(const struct command *command, const char *name, unsigned long long most, int *out)
{
    unsigned long long value;
    if (!parse_number(optarg, most, &value))
        return usage_error(command, "--%s %s: must be a number from 1 to %llu", name, optarg, most);
    *out = (int)value;
    return -1;
}

static int parse_device(const struct command *command, struct options *out)
{
    bool all = !strcmp(optarg, "all");
    out->cpu = all || !strcmp(optarg, "cpu");
    out->cuda = all || !strcmp(optarg, "cuda");
    out->device_given = true;
    return out->cpu || out->cuda ? -1 : usage_error(command, "--device %s: must be cpu, cuda or all", optarg);
}

static int parse_option(const struct command *command, int id, struct options *out)
{
    switch (id) {
    case HELP:
        out->help = true;
        return -1;
    case JSON:
        out->json = true;
        return -1;
    case DEVICE:
        return parse_device(command, out);
    case KERNEL:
        out->kernel = optarg;
        return -1;
    case SHAPE:
        out->shape = optarg;
        return -1;
    case SEED:
        return parse_number(optarg, ~0ull, &out->seed)
                   ? -1
                   : usage_error(command, "--seed %s: must be a number, not 0", optarg);
    case REQUIRE:
        out->require_cuda = true;
        return strcmp(optarg, "cuda") ? usage_error(command, "--require %s: must be cuda", optarg) : -1;
    case PROBLEMS:
        return parse_integer(command, "problems", 1000000, &out->problems);
    case ARCH:
        return parse_integer(command, "arch", 999, &out->arch);
    case THREADS:
        return parse_integer(command, "threads", 4096, &out->threads);
    case ALL:
        out->all = true;
        return -1;
    case NO_REFCHECK:
        out->no_refcheck = true;
        return -1;
    case REFCHECK:
        out->no_refcheck = false;
        return -1;
    case OVERHEAD:
        out->overhead = true;
        return -1;
    case COMPILE:
        out->compile = true;
        return -1;
    default:
        return usage_error(command, "unknown option or missing argument");
    }
}

int options_parse(const struct command *command, int argc, char **argv, const char *taken, bool ops,
                  bool values, struct options *out)
{
    struct option accepted[NUM_KNOWN + 1] = {{0}};
    int count = 0, id, code = -1;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < NUM_KNOWN; i++)
        if (known[i].val == HELP || known[i].val == JSON || word_in(known[i].name, taken))
            accepted[count++] = known[i];
    opterr = 0;
    while (code < 0 && (id = getopt_long(argc, argv, "h", accepted, NULL)) != -1)
        code = id == '?' ? usage_error(command, "%s: unknown option or missing argument", argv[optind - 1])
                         : parse_option(command, id == 'h' ? HELP : id, out);
    if (code < 0 && out->help) {
        fputs(command->help, stdout);
        return EXIT_FINE;
    }
    for (int i = optind; code < 0 && i < argc; i++)
        code = parse_operand(command, argv[i], ops, values, out);
    for (int i = 0; !out->num_named && op_registry[i] && i < MAX_OPS; i++)
        out->op[i] = op_registry[i];
    return code;
}

bool options_has_kernel(const struct options *options)
{
    for (const struct op *const *op = options->op; *op; op++)
        for (const struct op_kernel *row = (*op)->kernels; row && row->name; row++)
            if (!strcmp(row->name, options->kernel))
                return true;
    return false;
}
