/* SPDX-License-Identifier: Apache-2.0 */
/* From named shapes to timed rows. */
#include "harness/bench.h"

#include <stdio.h>
#include <string.h>

#include "harness/compiles.h"
#include "harness/reproduce.h"

/* References of larger problems would take minutes and fill the memory. */
#define MAX_CHECKED_ELEMENTS 4e8

struct bench {
    const struct op *op;
    const struct device *device;
    const struct bench_options *options;
    void (*report)(void *context, const struct bench_result *result);
    void *context;
    int *failures;
    const char *shape;
    bool given; /* the problem is of values, not of that named shape */
    uint64_t seed;
    struct compiles compiles;
};

static double count_elements(const struct problem *problem)
{
    double elements = 0;
    for (int i = 0; i < problem->program->num_args; i++)
        elements += problem->tensor[i].present ? (double)problem->tensor[i].elements : 0;
    return elements;
}

/* row NULL: the reference. */
static void tell_attempt(const struct bench *b, const char *row)
{
    char command[REPRODUCE_COMMAND];
    if (!b->options->trying)
        return;
    reproduce(&(struct reproduce){.command = "bench",
                                  .op = b->op,
                                  .row = row,
                                  .shape = b->seed || b->given ? NULL : b->shape,
                                  .values = b->options->values,
                                  .seed = b->seed,
                                  .device = b->device},
              command);
    b->options->trying(b->context, command);
}

static flashinfer_status time_row(struct bench *b, struct placement *placement, const struct op_kernel *row,
                                  const struct way *way, struct bench_result *result)
{
    placement->exec.kernel = row->name;
    TRY(placement_workspace(placement, way->workspace));
    flashinfer_status status = op_call(b->op, placement->args, &placement->exec);
    if (!status)
        status = bench_time(placement, b->options->warm, result);
    placement->exec.kernel = NULL;
    return status;
}

/* Compares, then times. Not OK only if the benchmark cannot go on. */
static flashinfer_status try_row(struct bench *b, struct problem *problem, struct placement *placement,
                                 const struct op_kernel *row, const struct way *way,
                                 struct expected *expected, struct bench_result *result,
                                 char sentence[TRIAL_SENTENCE])
{
    result->outcome = expected ? BENCH_CHECKED : BENCH_UNCHECKED;
    if (expected) {
        flashinfer_status status = trial_run(problem, placement, row, way->workspace, expected, sentence);
        if (sentence[0]) {
            result->outcome = BENCH_WRONG;
            return FLASHINFER_OK;
        }
        TRY(status);
    }
    if (time_row(b, placement, row, way, result)) {
        snprintf(sentence, TRIAL_SENTENCE, "%s", flashinfer_last_error());
        result->outcome = BENCH_FAILED;
    }
    return FLASHINFER_OK;
}

static flashinfer_status bench_row(struct bench *b, struct problem *problem, struct placement *placement,
                                   const struct call *call, const struct op_kernel *row,
                                   const struct way *way, struct expected *expected)
{
    char sentence[TRIAL_SENTENCE] = "";
    enum compiles_answer answer;
    struct bench_result result = {.op = b->op->name,
                                  .row = row->name,
                                  .shape = b->shape,
                                  .problem = problem->text,
                                  .device = b->device,
                                  .ceiling = bench_ceiling(b->device)};
    if (b->op->cost)
        b->op->cost(call, &result.bytes, &result.operations);
    else
        result.bytes = problem_bytes(problem);
    TRY(compiles(&b->compiles, way, b->device, &answer));
    if (answer == COMPILES_NOT_AS_BEFORE)
        return FLASHINFER_OK;
    if (answer == COMPILES_NOT) {
        snprintf(sentence, sizeof sentence, "%s", flashinfer_last_error());
        result.outcome = BENCH_NOT_COMPILED;
    } else {
        TRY(try_row(b, problem, placement, row, way, expected, &result, sentence));
    }
    result.why = sentence[0] ? sentence : NULL;
    *b->failures += sentence[0] != 0;
    b->report(b->context, &result);
    return FLASHINFER_OK;
}

static flashinfer_status bench_rows(struct bench *b, struct problem *problem, struct placement *placement)
{
    struct call call;
    struct way way;
    struct expected *expected = NULL;
    tell_attempt(b, NULL);
    TRY(placement_check(placement, &call));
    if (call.empty)
        return FLASHINFER_OK;
    if (!b->options->unchecked && count_elements(problem) <= MAX_CHECKED_ELEMENTS)
        TRY(expected_create(problem, &call, &expected));
    flashinfer_status status = FLASHINFER_OK;
    call.exec.kernel = b->options->kernel;
    for (const struct op_kernel *row = b->op->kernels; !status && row && row->name; row++) {
        if (b->options->kernel && strcmp(row->name, b->options->kernel))
            continue;
        tell_attempt(b, row->name);
        if (!call_fit(&call, row, &way))
            status = bench_row(b, problem, placement, &call, row, &way, expected);
    }
    expected_destroy(expected);
    return status;
}

static flashinfer_status bench_problem(struct bench *b, const struct problem_request *request)
{
    struct problem *problem;
    struct placement *placement;
    TRY(problem_create(request, &problem));
    flashinfer_status status = placement_create(problem, b->device, &placement);
    if (!status) {
        placement->exec.flags = b->options->pdl ? FLASHINFER_PDL : 0;
        status = bench_rows(b, problem, placement);
        placement_destroy(placement);
    } else if (status == FLASHINFER_UNSUPPORTED) {
        status = FLASHINFER_OK;
    }
    problem_destroy(problem);
    return status;
}

static flashinfer_status bench_shapes(struct bench *b)
{
    const struct bench_options *options = b->options;
    bool found = !options->shape;
    for (const struct op_shape *shape = b->op->shapes; shape && shape->name; shape++) {
        const struct problem_request request = {.op = b->op, .values = shape->values, .instead = options->values};
        if (options->shape && strcmp(shape->name, options->shape))
            continue;
        found = true;
        b->given = options->values && !options->shape;
        b->shape = b->given ? "given" : shape->name;
        TRY(bench_problem(b, &request));
        if (b->given)
            break;
    }
    return found ? FLASHINFER_OK
                 : fail(FLASHINFER_INVALID, "%s has no shape named %s", b->op->name, options->shape);
}

flashinfer_status bench_op(const struct op *op, const struct device *device,
                           const struct bench_options *options,
                           void (*report)(void *context, const struct bench_result *result), void *context,
                           int *failures)
{
    struct bench b = {.op = op,
                      .device = device,
                      .options = options,
                      .report = report,
                      .context = context,
                      .failures = failures,
                      .shape = "random",
                      .seed = options->seed};
    const struct problem_request random = {.op = op, .values = options->values, .seed = options->seed};
    TRY(op_validate(op));
    TRY(device_enter(device));
    flashinfer_status status = options->seed ? bench_problem(&b, &random) : bench_shapes(&b);
    compiles_end(&b.compiles);
    return status;
}
