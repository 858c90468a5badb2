/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer check */
#include "harness/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/table.h"

enum { DEFAULT_PROBLEMS = 40 };
#define DEFAULT_MAX_ELEMENTS 2e7

static char attempt[512]; /* the command that reproduces what is being tried, for a crash */

/* Only what is safe in a handler. */
static void crashed(int signal_number)
{
    static const char before[] = "\nflashinfer: crashed in: ";
    ssize_t ignored = write(STDERR_FILENO, before, sizeof before - 1);
    ignored += write(STDERR_FILENO, attempt, strlen(attempt));
    ignored += write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

struct output {
    struct table *table;
    bool json, progress;
};

static void trying(void *context, const char *command)
{
    const struct output *out = context;
    snprintf(attempt, sizeof attempt, "%s", command);
    if (out->progress)
        fprintf(stderr, "\r\033[K%.*s", 100, command);
}

static void clear_progress(const struct output *out)
{
    if (out->progress)
        fputs("\r\033[K", stderr);
}

static void failed(void *context, const struct check_failure *f)
{
    const struct output *out = context;
    clear_progress(out);
    if (out->json) {
        struct table *table = table_open(true);
        table_text(table, "type", "failure");
        table_text(table, "op", f->op);
        table_text(table, "kernel", f->row ? f->row : "");
        table_text(table, "device", check_device_name(f->device));
        table_text(table, "problem", f->problem);
        table_text(table, "sentence", f->sentence);
        table_text(table, "command", f->command);
        table_end_row(table);
        table_close(table);
        return;
    }
    printf("FAIL %s%s%s\n", f->op, f->row ? " " : "", f->row ? f->row : "");
    if (f->problem[0])
        printf("     %s\n", f->problem);
    printf("     %s\n     again: %s\n", f->sentence, f->command);
    fflush(stdout);
}

static void covered(void *context, const struct check_coverage *c)
{
    const struct output *out = context;
    char why[CHECK_MAX_REASONS * (CHECK_REASON + 16)] = "";
    size_t length = 0;
    for (int i = 0; i < CHECK_MAX_REASONS && c->skipped[i].count; i++)
        length += (size_t)snprintf(why + length, sizeof why - length, "%s%d x %s", i ? "; " : "",
                                   c->skipped[i].count, c->skipped[i].text);
    if (out->json)
        table_text(out->table, "type", "coverage");
    table_text(out->table, "op", c->op);
    table_text(out->table, "kernel", c->row);
    table_text(out->table, "device", check_device_name(c->device));
    table_text(out->table, "dtypes", c->dtypes);
    table_integer(out->table, "tried", c->tried);
    table_integer(out->table, "ran", c->ran);
    table_integer(out->table, "failed", c->failed);
    table_text(out->table, "skipped because", why);
    table_end_row(out->table);
}

static flashinfer_status check_ops(const struct options *options, struct output *out,
                                   struct check_counts *counts)
{
    const struct check_options check = {
        .cpu = options->cpu || !options->device_given,
        .cuda = options->cuda || !options->device_given || options->require_cuda,
        .require_cuda = options->require_cuda,
        .kernel = options->kernel,
        .shape = options->shape,
        .values = options->values[0] ? options->values : NULL,
        .seed = options->seed,
        .problems = options->problems ? options->problems
                    : options->seed   ? 1
                                      : DEFAULT_PROBLEMS,
        .max_elements = options->all ? 0 : DEFAULT_MAX_ELEMENTS,
    };
    const struct check_events events = {
        .context = out, .trying = trying, .failed = failed, .covered = covered};
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; options->op[i] && !status; i++)
        status = check_op(options->op[i], &check, &events, counts);
    return status;
}

static int run(int argc, char **argv)
{
    struct options options;
    struct check_counts counts = {0};
    int code = options_parse(&command_check, argc, argv, "device kernel seed problems shape require all",
                             true, true, &options);
    if (code >= 0)
        return code;
    if (options.kernel && !options_has_kernel(&options))
        return usage_error(&command_check, "no op that was asked for has a kernel \"%s\"", options.kernel);
    struct output out = {.table = table_open(options.json),
                         .json = options.json,
                         .progress = isatty(STDERR_FILENO) && !options.json};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], crashed);
    flashinfer_status status = check_ops(&options, &out, &counts);
    clear_progress(&out);
    table_close(out.table);
    if (options.json) {
        struct table *total = table_open(true);
        table_text(total, "type", "total");
        table_integer(total, "trials", counts.trials);
        table_integer(total, "refused", counts.refusals);
        table_integer(total, "failures", counts.failures);
        table_integer(total, "left_out", counts.left_out);
        table_end_row(total);
        table_close(total);
    } else {
        printf("%d trials, %d calls to be refused, %d failures", counts.trials, counts.refusals,
               counts.failures);
        printf(counts.left_out ? ", %d large shapes left out (--all checks them)\n" : "\n", counts.left_out);
    }
    return status ? exit_with(status) : counts.failures ? EXIT_FAILED : EXIT_FINE;
}

const struct command command_check = {
    .name = "check",
    .summary = "compare every kernel with its reference",
    .help = "usage: flashinfer check [OPTION...] [OP...] [NAME=VALUE...] [-- -ARGUMENT...]\n\n"
            "Makes problems from the declaration of each OP (default: every op): its named shapes, and "
            "random ones with odd sizes,\n"
            "strides, addresses and optional arguments. Each problem is run by every kernel that serves it, "
            "not only by the one that\n"
            "would be chosen, twice, and compared with a float64 reference. Outputs must be right within the "
            "error that the reference\n"
            "allows, written in full and the same bits both times; memory around and between tensors must "
            "stay as it was. Then every\n"
            "rule and every argument is violated, which must be refused by a sentence that names it. A "
            "kernel that no problem reaches\n"
            "is a failure. At the end a table says what was tried, what ran, and why the rest did not.\n\n"
            "NAME=VALUE fixes a dimension, number, enum or dtype (dtype=bf16, ARGUMENT:dtype=f16) in every "
            "problem; -ARGUMENT, after --,\n"
            "leaves an optional argument out.\n\n"
            "OPTIONS\n"
            "  --device cpu|cuda|all  where to run; default all: the CPU, and a GPU if there is one\n"
            "  --require cuda         fail if there is no GPU\n"
            "  --kernel NAME          this kernel only\n"
            "  --shape NAME           this named shape only\n"
            "  --seed N               only the random problem of seed N (with --problems M: of N to N+M-1)\n"
            "  --problems N           random problems for each op; default 40\n"
            "  --all                  named shapes of more than 20 million elements too\n"
            "  --json                 one object a line; type: failure, coverage or total\n"
            "  --help                 this text\n\n"
            "EXAMPLES\n"
            "  flashinfer check rmsnorm --device cpu\n"
            "  flashinfer check mm --seed 17 --problems 100 dtype=bf16\n\n" EXIT_CODES_HELP,
    .run = run,
};
