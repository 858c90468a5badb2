/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer check */
#include "harness/check.h"
#include "harness/huge.h"
#include "harness/reproduce.h"
#include "op/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/crash.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/table.h"

enum { DEFAULT_PROBLEMS = 40, MAX_TALLIES = 64, MAX_BLOCKS = 3 };
#define DEFAULT_MAX_ELEMENTS 2e7

/* How many failures a kernel had that were not printed. One defect fails many problems. */
struct tally {
    const char *row; /* NULL: of the op as a whole */
    int failures;
};

struct output {
    struct table *table;
    bool json;
    struct tally tally[MAX_TALLIES]; /* of the op at hand */
    int num_tallies;
};

static void trying(void *context, const char *command)
{
    (void)context;
    crash_attempt(command);
    progress_show(0, 0, "%s", command);
}

/* Counts it. True if so many were printed already that this one is not. */
static bool is_enough(struct output *out, const char *row)
{
    int i = 0;
    while (i < out->num_tallies && out->tally[i].row != row)
        i++;
    if (i == MAX_TALLIES)
        return false;
    if (i == out->num_tallies)
        out->tally[out->num_tallies++] = (struct tally){.row = row};
    return ++out->tally[i].failures > MAX_BLOCKS;
}

static void end_op(struct output *out, const struct op *op)
{
    for (int i = 0; i < out->num_tallies && !out->json; i++) {
        const struct tally *t = &out->tally[i];
        if (t->failures > MAX_BLOCKS)
            printf("FAIL %s%s%s\n     and %d more of this %s (--json prints all)\n", op->name, t->row ? " " : "",
                   t->row ? t->row : "", t->failures - MAX_BLOCKS, t->row ? "kernel" : "op");
    }
    out->num_tallies = 0;
}

static void failed(void *context, const struct check_failure *f)
{
    struct output *out = context;
    bool enough = is_enough(out, f->row);
    progress_clear();
    if (out->json) {
        struct table *table = table_open(true);
        table_text(table, "type", "failure");
        table_text(table, "op", f->op);
        table_text(table, "kernel", f->row ? f->row : "");
        table_text(table, "device", reproduce_device(f->device));
        table_text(table, "problem", f->problem);
        table_text(table, "sentence", f->sentence);
        table_text(table, "command", f->command);
        table_end_row(table);
        table_close(table);
        return;
    }
    if (enough)
        return;
    printf("FAIL %s%s%s\n", f->op, f->row ? " " : "", f->row ? f->row : "");
    if (f->problem[0])
        printf("     %s\n", f->problem);
    printf("     %s\n     again: %s\n", f->sentence, f->command);
    fflush(stdout);
}

/* The outputs that had to be exact each time, by name. */
static void name_exact(const struct check_coverage *c, char *names, size_t size)
{
    size_t length = 0;
    names[0] = 0;
    const struct op *op = op_find(c->op);
    for (int i = 0; i < OP_MAX_ARGS && length < size; i++)
        if (c->exact_outputs >> i & 1)
            length += (size_t)snprintf(names + length, size - length, "%s%s", length ? " " : "", op->args[i].name);
}

static void covered(void *context, const struct check_coverage *c)
{
    char exact[256];
    const struct output *out = context;
    char why[CHECK_MAX_REASONS * (CHECK_REASON + 16)] = "";
    size_t length = 0;
    for (int i = 0; i < CHECK_MAX_REASONS && c->skipped[i].count; i++)
        length += (size_t)snprintf(why + length, sizeof why - length, "%s%d x %s", i ? "; " : "", c->skipped[i].count,
                                   c->skipped[i].text);
    if (out->json)
        table_text(out->table, "type", "coverage");
    table_text(out->table, "op", c->op);
    table_text(out->table, "kernel", c->row);
    table_text(out->table, "device", reproduce_device(c->device));
    table_text(out->table, "dtypes", c->dtypes);
    table_integer(out->table, "tried", c->tried);
    table_integer(out->table, "ran", c->ran);
    table_integer(out->table, "exact", c->exact);
    name_exact(c, exact, sizeof exact);
    table_text(out->table, "exact outputs", exact);
    table_integer(out->table, "failed", c->failed);
    table_text(out->table, "skipped because", why);
    table_end_row(out->table);
}

static flashinfer_status check_ops(const struct options *options, struct output *out, struct check_counts *counts)
{
    const struct check_options check = {
        .cpu = options->cpu || !options->device_given,
        .cuda = options->cuda || !options->device_given,
        .kernel = options->kernel,
        .shape = options->shape,
        .values = options->values[0] ? options->values : NULL,
        .seed = options->seed,
        .problems = options->problems ? options->problems
                    : options->seed   ? 1
                                      : DEFAULT_PROBLEMS,
        .max_elements = options->all ? 0 : DEFAULT_MAX_ELEMENTS,
    };
    const struct check_events events = {.context = out, .trying = trying, .failed = failed, .covered = covered};
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; options->op[i] && !status; i++) {
        status = check_op(options->op[i], &check, &events, counts);
        end_op(out, options->op[i]);
    }
    return status;
}

static void report_huge(void *context, const struct huge_result *r)
{
    static const char *const outcomes[] = {
        [HUGE_RIGHT] = "right", [HUGE_WRONG] = "wrong", [HUGE_NOT_SERVED] = "not checked"};
    const struct output *out = context;
    progress_clear();
    if (r->outcome == HUGE_WRONG && !out->json)
        printf("FAIL %s %s\n     %s\n     %s\n", r->op, r->row, r->problem, r->why);
    table_text(out->table, "op", r->op);
    table_text(out->table, "kernel", r->row ? r->row : "-");
    table_text(out->table, "huge", r->dimension);
    table_number(out->table, "elements", r->elements > 0 ? r->elements : -1, 0);
    table_integer(out->table, "rows compared", r->compared);
    table_number(out->table, "s", r->seconds > 0 ? r->seconds : -1, 1);
    table_text(out->table, "outcome", outcomes[r->outcome]);
    table_text(out->table, "because", r->why ? r->why : "");
    table_json_only(out->table);
    table_text(out->table, "problem", r->problem);
    table_end_row(out->table);
}

/* The reference sees a block of rows only; yet the tensors want tens of gigabytes, and the CPU hours. */
static int run_huge(const struct options *options)
{
    const struct huge_options huge = {.kernel = options->kernel,
                                      .shape = options->shape,
                                      .values = options->values[0] ? options->values : NULL,
                                      .min_elements = HUGE_ELEMENTS,
                                      .trying = trying};
    const struct device *device;
    struct output out = {.json = options->json};
    int failures = 0;
    if (options->cpu && !options->cuda)
        return usage_error(&command_check, "--huge is for a GPU");
    if (options->seed || options->problems)
        return usage_error(&command_check, "--huge goes with neither --seed nor --problems");
    if (device_get((DLDevice){kDLCUDA, 0}, &device))
        return exit_with(FLASHINFER_UNSUPPORTED);
    out.table = table_open(options->json);
    progress_watch_compiler();
    interrupt_watch();
    crash_watch();
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; options->op[i] && !status; i++)
        status = huge_op(options->op[i], device, &huge, report_huge, &out, &failures);
    progress_clear();
    table_close(out.table);
    return exit_after(status, failures);
}

static int run(const struct options *options)
{
    if (options->huge)
        return run_huge(options);
    struct devices devices;
    flashinfer_status status = devices_wanted(options, &devices);
    if (status)
        return exit_with(status);
    struct check_counts counts = {0};
    struct output out = {.table = table_open(options->json), .json = options->json};
    progress_watch_compiler();
    interrupt_watch();
    crash_watch();
    status = check_ops(options, &out, &counts);
    progress_clear();
    table_close(out.table);
    if (status)
        return exit_after(status, counts.failures);
    if (options->json) {
        struct table *total = table_open(true);
        table_text(total, "type", "total");
        table_integer(total, "trials", counts.trials);
        table_integer(total, "refused", counts.refusals);
        table_integer(total, "failures", counts.failures);
        table_integer(total, "left_out", counts.left_out);
        table_end_row(total);
        table_close(total);
    } else {
        printf("%d trials, %d calls to be refused, %d failures", counts.trials, counts.refusals, counts.failures);
        printf(counts.left_out ? ", %d large shapes left out (--all checks them)\n" : "\n", counts.left_out);
    }
    return counts.failures ? EXIT_FAILED : EXIT_FINE;
}

const struct command command_check = {
    .name = "check",
    .summary = "compare every kernel with its reference",
    .operands_text = "[OP...] [NAME=VALUE...] [-- -ARGUMENT...]",
    .operands = OPERANDS_OPS_VALUES,
    .description = "Makes problems from the declaration of each OP (default: every op): its named shapes, smaller ones once "
                   "more with random lengths, places in memory and contents, and random ones with odd sizes, strides, "
                   "addresses and optional arguments, at last with dtypes that a kernel has not had yet. Each problem is run by "
                   "every kernel that serves it, not only by the one "
                   "that would be chosen, "
                   "twice (on CPUs three times), and compared with a float64 reference. Outputs must be right within the "
                   "error that the reference "
                   "allows, written in full "
                   "and the same bits each time; memory around and between tensors must stay as it was. Then every rule and "
                   "every argument is "
                   "violated, which must be refused by a sentence that names it. A kernel that no problem reaches is a failure. "
                   "At the end a table "
                   "says what was tried, what ran, how often all outputs had to be the reference's very bits and so the same "
                   "on CPU and GPU (exact), which outputs always had to, and why the rest did not run.\n\n"
                   "NAME=VALUE fixes a dimension, number, enum or dtype (dtype=bf16, ARGUMENT:dtype=f16) in every problem; "
                   "-ARGUMENT, after --, leaves "
                   "an optional argument out.",
    .options =
        (const struct command_option[]){{OPTION_DEVICE, "where to run; default all: the CPU, and a GPU if there is one"},
                                        {OPTION_REQUIRE, "fail if there is no GPU"},
                                        {OPTION_KERNEL, "this kernel only"},
                                        {OPTION_SHAPE, "this named shape only"},
                                        {OPTION_SEED, "only the random problem of seed N (with --problems M: of N to N+M-1); "
                                                      "with --shape, that shape with what the seed draws"},
                                        {OPTION_PROBLEMS, "random problems for each op; default 40"},
                                        {OPTION_ALL, "named shapes of more than 20 million elements too"},
                                        {OPTION_HUGE,
                                         "instead, on a GPU: one problem with tensors of more than 2^32 elements for each "
                                         "kernel; compares up to 1009 of its rows, the last among them"},
                                        {OPTION_END, NULL}},
    .json = "type (failure, coverage or total) and what belongs to it",
    .environment = (const char *const[]){"FLASHINFER_CACHE_DIR", "FLASHINFER_NUM_THREADS", NULL},
    .examples = "flashinfer check rmsnorm --device cpu\n"
                "flashinfer check mm --seed 17 --problems 100 dtype=bf16\n"
                "flashinfer check --huge rmsnorm append_paged_kv_cache\n",
    .run = run,
};
