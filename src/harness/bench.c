/* SPDX-License-Identifier: Apache-2.0 */
/* From named shapes to timed rows. */
#include "harness/bench.h"

#include <stdio.h>
#include <string.h>

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
};

static double count_elements(const struct problem *problem)
{
    double elements = 0;
    for (int i = 0; i < problem->program->num_args; i++)
        elements += problem->tensor[i].present ? (double)problem->tensor[i].elements : 0;
    return elements;
}

static flashinfer_status check(struct problem *problem, struct placement *placement,
                               const struct op_kernel *row, const struct way *way, struct expected *expected,
                               char *sentence)
{
    flashinfer_status status = trial_run(problem, placement, row, way->workspace, expected, sentence);
    return status == FLASHINFER_DEVICE && sentence[0] ? FLASHINFER_OK : status;
}

static flashinfer_status bench_row(struct bench *b, struct problem *problem, struct placement *placement,
                                   const struct call *call, const struct op_kernel *row,
                                   const struct way *way, struct expected *expected)
{
    char sentence[TRIAL_SENTENCE] = "";
    struct bench_result result = {.op = b->op->name,
                                  .row = row->name,
                                  .shape = b->shape,
                                  .problem = problem->text,
                                  .device = b->device,
                                  .ceiling = bench_ceiling(b->device),
                                  .checked = expected != NULL};
    if (expected)
        TRY(check(problem, placement, row, way, expected, sentence));
    if (!sentence[0]) {
        placement->exec.kernel = row->name;
        TRY(placement_workspace(placement, way->workspace));
        flashinfer_status status = op_call(b->op, placement->args, &placement->exec);
        if (!status)
            status = bench_time(placement, &result);
        placement->exec.kernel = NULL;
        if (status)
            snprintf(sentence, sizeof sentence, "%s", flashinfer_last_error());
    }
    if (b->op->cost)
        b->op->cost(call, &result.bytes, &result.operations);
    else
        result.bytes = problem_bytes(problem);
    result.wrong = sentence[0] ? sentence : NULL;
    *b->failures += sentence[0] != 0;
    b->report(b->context, &result);
    return FLASHINFER_OK;
}

static flashinfer_status bench_rows(struct bench *b, struct problem *problem, struct placement *placement)
{
    struct call call;
    struct way way;
    struct expected *expected = NULL;
    TRY(placement_check(placement, &call));
    if (call.empty)
        return FLASHINFER_OK;
    if (!b->options->unchecked && count_elements(problem) <= MAX_CHECKED_ELEMENTS)
        TRY(expected_create(problem, &call, &expected));
    flashinfer_status status = FLASHINFER_OK;
    for (const struct op_kernel *row = b->op->kernels; !status && row && row->name; row++)
        if ((!b->options->kernel || !strcmp(row->name, b->options->kernel)) && !call_fit(&call, row, &way))
            status = bench_row(b, problem, placement, &call, row, &way, expected);
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
        status = bench_rows(b, problem, placement);
        placement_destroy(placement);
    } else if (status == FLASHINFER_UNSUPPORTED) {
        status = FLASHINFER_OK;
    }
    problem_destroy(problem);
    return status;
}

flashinfer_status bench_op(const struct op *op, const struct device *device,
                           const struct bench_options *options,
                           void (*report)(void *context, const struct bench_result *result), void *context,
                           int *failures)
{
    struct bench b = {op, device, options, report, context, failures, "random"};
    bool found = !options->shape;
    TRY(device_enter(device));
    if (options->seed) {
        const struct problem_request request = {.op = op, .values = options->values, .seed = options->seed};
        return bench_problem(&b, &request);
    }
    for (const struct op_shape *shape = op->shapes; shape && shape->name; shape++) {
        char values[PROBLEM_MAX_TEXT];
        const struct problem_request request = {.op = op, .values = values};
        if (options->shape && strcmp(shape->name, options->shape))
            continue;
        found = true;
        bool given = options->values && !options->shape;
        b.shape = given ? "given" : shape->name;
        snprintf(values, sizeof values, "%s %s", shape->values, options->values ? options->values : "");
        TRY(bench_problem(&b, &request));
        if (given)
            break;
    }
    return found ? FLASHINFER_OK
                 : fail(FLASHINFER_INVALID, "%s has no shape named %s", op->name, options->shape);
}
