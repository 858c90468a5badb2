/* SPDX-License-Identifier: Apache-2.0 */
/* Walks problems, devices and rows. */
#include "harness/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/compiles.h"
#include "harness/coverage.h"
#include "harness/refuse.h"
#include "harness/reproduce.h"

enum { MAX_DEVICES = 2, MORE_SEEDS = 6, MORE_DTYPES = 20, SMALL_SHAPE = 4000000 /* elements */ };

struct run {
    const struct op *op;
    const struct check_options *options;
    const struct check_events *events;
    struct check_counts *counts;
    struct coverage coverage;
    struct compiles compiles;
    const struct device *device[MAX_DEVICES];
    int num_devices;
    /* the problem at hand */
    const char *shape;
    uint64_t seed;
    struct problem *problem;
    struct expected *expected;
    bool has_expected;
};

static void describe_command(const struct run *r, const char *row, const struct device *device,
                             char text[REPRODUCE_COMMAND])
{
    reproduce(&(struct reproduce){.command = "check",
                                  .op = r->op,
                                  .row = row,
                                  .shape = r->shape,
                                  .values = r->options->values,
                                  .seed = r->problem ? r->seed : 0,
                                  .device = device},
              text);
}

static void fail_with(struct run *r, const char *row, const struct device *device, const char *sentence)
{
    char command[REPRODUCE_COMMAND], problem[PROBLEM_MAX_TEXT + 64] = "";
    describe_command(r, row, device, command);
    if (r->problem && r->shape)
        snprintf(problem, sizeof problem, "shape %s: %s", r->shape, r->problem->text);
    else if (r->problem)
        snprintf(problem, sizeof problem, "seed %llu: %s", (unsigned long long)r->seed, r->problem->text);
    const struct check_failure failure = {.op = r->op->name,
                                          .row = row,
                                          .device = device ? device->id.device_type : kDLCPU,
                                          .problem = problem,
                                          .sentence = sentence,
                                          .command = command};
    r->counts->failures++;
    r->events->failed(r->events->context, &failure);
}

static bool wanted(const struct run *r, const struct op_kernel *row)
{
    return !r->options->kernel || !strcmp(r->options->kernel, row->name);
}

/* What may crash from here on: a row, or with NULL the calls that are to be refused. */
static void tell_attempt(const struct run *r, const char *row, const struct device *device)
{
    char command[REPRODUCE_COMMAND];
    describe_command(r, row, device, command);
    if (r->events->trying)
        r->events->trying(r->events->context, command);
}

/* Before it runs: compiles what is not in the cache yet. *good: it can run. */
static flashinfer_status compile_row(struct run *r, const struct device *device, const struct op_kernel *row,
                                     const struct way *way, struct check_coverage *coverage, bool *good)
{
    enum compiles_answer answer;
    TRY(compiles(&r->compiles, way, device, &answer));
    *good = answer == COMPILES;
    if (answer == COMPILES_NOT) {
        coverage->failed++;
        fail_with(r, row->name, device, flashinfer_last_error());
    }
    if (!*good)
        coverage_skip(coverage, "its kernel does not compile, or cannot be loaded");
    return FLASHINFER_OK;
}

static void count_exact(const struct run *r, struct check_coverage *coverage)
{
    uint64_t outputs, exact;
    if (!r->expected)
        return;
    expected_exact(r->expected, r->problem, &outputs, &exact);
    coverage->exact += outputs && outputs == exact;
    coverage->other_outputs |= outputs & ~exact;
    coverage->exact_outputs = (coverage->exact_outputs | exact) & ~coverage->other_outputs;
}

/* The row is named, as a caller that forces it would: it serves what it can, not only what it is best at. */
static flashinfer_status try_row(struct run *r, struct placement *p, struct call *call,
                                 const struct op_kernel *row, const char *dtypes, bool *ran)
{
    char sentence[TRIAL_SENTENCE];
    bool good;
    struct way way;
    call->exec.kernel = row->name;
    struct check_coverage *coverage = coverage_of(&r->coverage, row->name, p->device->id.device_type, dtypes);
    if (!coverage)
        return fail(FLASHINFER_MEMORY, "no memory for the coverage of %s", r->op->name);
    coverage->tried++;
    tell_attempt(r, row->name, p->device);
    const char *why = call->empty                              ? "no output has an element"
                      : coverage->failed == CHECK_MAX_FAILURES ? "it failed too often before"
                                                               : call_fit(call, row, &way);
    if (why) {
        coverage_skip(coverage, why);
        return FLASHINFER_OK;
    }
    TRY(compile_row(r, p->device, row, &way, coverage, &good));
    if (!good)
        return FLASHINFER_OK;
    if (!r->has_expected) {
        TRY(expected_create(r->problem, call, &r->expected));
        r->has_expected = true;
    }
    flashinfer_status status = trial_run(r->problem, p, row, way.workspace, r->expected, sentence);
    r->counts->trials++;
    coverage->ran++;
    coverage_is_new(&r->coverage, row, r->problem, true);
    count_exact(r, coverage);
    *ran = true;
    if (sentence[0]) {
        coverage->failed++;
        fail_with(r, row->name, p->device, sentence);
    }
    return status;
}

/* A call without elements does nothing, whatever the rows. */
static flashinfer_status try_empty(struct run *r, const struct placement *p)
{
    if (op_call(r->op, p->args, &p->exec))
        fail_with(r, NULL, p->device, flashinfer_last_error());
    return device_wait(p->device);
}

static void skip_all(struct run *r, const struct device *device, const char *dtypes, const char *why)
{
    for (const struct op_kernel *row = r->op->kernels; row && row->name; row++) {
        struct check_coverage *coverage =
            wanted(r, row) && call_row_is_for(row, device)
                ? coverage_of(&r->coverage, row->name, device->id.device_type, dtypes)
                : NULL;
        if (coverage) {
            coverage->tried++;
            coverage_skip(coverage, why);
        }
    }
}

static flashinfer_status try_rows(struct run *r, struct placement *p, const char *dtypes, bool *ran)
{
    struct call call;
    if (placement_check(p, &call)) {
        fail_with(r, NULL, p->device, flashinfer_last_error());
        return FLASHINFER_OK;
    }
    if (call.empty)
        TRY(try_empty(r, p));
    for (const struct op_kernel *row = r->op->kernels; row && row->name; row++)
        if (wanted(r, row) && call_row_is_for(row, p->device))
            TRY(try_row(r, p, &call, row, dtypes, ran));
    return FLASHINFER_OK;
}

static flashinfer_status try_device(struct run *r, const struct device *device, bool *ran)
{
    struct placement *p;
    char dtypes[48];
    problem_dtypes(r->problem, dtypes, sizeof dtypes);
    TRY(device_enter(device));
    flashinfer_status status = placement_create(r->problem, device, &p);
    if (status == FLASHINFER_UNSUPPORTED) {
        skip_all(r, device, dtypes, flashinfer_last_error());
        return FLASHINFER_OK;
    }
    TRY(status);
    if (r->shape || r->seed % 2)
        p->exec.flags |= FLASHINFER_PDL; /* kernels have code for it */
    status = try_rows(r, p, dtypes, ran);
    placement_destroy(p);
    return status;
}

static flashinfer_status try_problem(struct run *r, const struct problem_request *request, const char *shape,
                                     bool *ran)
{
    r->shape = shape;
    r->seed = request->seed;
    r->has_expected = false;
    flashinfer_status status = problem_create(request, &r->problem);
    if (status == FLASHINFER_MEMORY || (status == FLASHINFER_INVALID && (!shape || (r->options->shape && r->options->values))))
        return status;
    if (status) {
        r->problem = NULL;
        fail_with(r, NULL, NULL, flashinfer_last_error());
        return FLASHINFER_OK;
    }
    for (int i = 0; i < r->num_devices && !status; i++)
        status = try_device(r, r->device[i], ran);
    expected_destroy(r->expected);
    r->expected = NULL;
    problem_destroy(r->problem);
    r->problem = NULL;
    r->shape = NULL;
    return status;
}

/* Elements of all tensors, told without making them. */
static double count_elements(const struct problem_request *request)
{
    struct problem_request look = *request;
    struct problem *problem;
    double elements = 0;
    look.without_values = true;
    if (problem_create(&look, &problem))
        return 0;
    for (int i = 0; i < problem->program->num_args; i++)
        elements += problem->tensor[i].present ? (double)problem->tensor[i].elements : 0;
    problem_destroy(problem);
    return elements;
}

/* The n-th named shape, and if it is small once more, or with a seed only so, with lengths, places and contents that are drawn:
 * many rows serve certain sizes and options alone, which random problems hardly ever have together. */
static flashinfer_status try_shape(struct run *r, const struct op_shape *shape, int n)
{
    const struct check_options *o = r->options;
    struct problem_request request = {.op = r->op, .values = shape->values, .instead = o->values};
    double elements = count_elements(&request);
    bool ran = false;
    if (!o->shape && o->max_elements > 0 && elements > o->max_elements) {
        r->counts->left_out++;
        return FLASHINFER_OK;
    }
    if (!o->seed)
        TRY(try_problem(r, &request, shape->name, &ran));
    request.seed = o->seed ? o->seed : problem_aligned_seed(n);
    request.plain = true;
    return o->seed || elements <= SMALL_SHAPE ? try_problem(r, &request, shape->name, &ran) : FLASHINFER_OK;
}

static flashinfer_status try_shapes(struct run *r)
{
    const char *wanted_shape = r->options->shape;
    bool found = !wanted_shape;
    for (const struct op_shape *shape = r->op->shapes; shape && shape->name; shape++) {
        if (wanted_shape && strcmp(wanted_shape, shape->name))
            continue;
        found = true;
        TRY(try_shape(r, shape, (int)(shape - r->op->shapes)));
    }
    return found ? FLASHINFER_OK : fail(FLASHINFER_INVALID, "%s has no shape named %s", r->op->name, wanted_shape);
}

static flashinfer_status try_seeds(struct run *r)
{
    const struct check_options *o = r->options;
    int most = o->seed ? o->problems : o->problems * MORE_SEEDS;
    uint64_t first = o->seed ? o->seed : 1;
    for (int i = 0, done = 0; i < most && done < o->problems; i++) {
        bool ran = false;
        const struct problem_request request = {
            .op = r->op, .values = o->values, .seed = first + (uint64_t)i};
        TRY(try_problem(r, &request, NULL, &ran));
        done += ran || o->seed;
    }
    return FLASHINFER_OK;
}

/* Whether a row that serves the problem has not run with one of its dtypes yet. */
static bool is_new(struct run *r, const struct problem *problem)
{
    bool found = false;
    for (int i = 0; i < r->num_devices && !found; i++) {
        struct placement *p;
        struct call call;
        struct way way;
        if (placement_create(problem, r->device[i], &p))
            continue;
        const bool right = !placement_check(p, &call) && !call.empty;
        for (const struct op_kernel *row = r->op->kernels; right && row && row->name && !found; row++) {
            call.exec.kernel = row->name;
            found = wanted(r, row) && coverage_is_new(&r->coverage, row, problem, false) && !call_fit(&call, row, &way);
        }
        placement_destroy(p);
    }
    return found;
}

/* *left: how many more may be tried. A row that seems to serve a problem need not do so once its tensors lie somewhere. */
static flashinfer_status try_if_new(struct run *r, struct problem_request request, const char *shape, int *left)
{
    struct problem *problem;
    bool ran;
    request.without_values = true;
    if (problem_create(&request, &problem))
        return FLASHINFER_OK;
    const bool tried = *left > 0 && is_new(r, problem);
    problem_destroy(problem);
    request.without_values = false;
    *left -= tried;
    return tried ? try_problem(r, &request, shape, &ran) : FLASHINFER_OK;
}

/* Of random problems and named shapes with that dtype those that are new to a row. */
static flashinfer_status try_dtype(struct run *r, const char *dtype)
{
    const struct check_options *o = r->options;
    struct check_options with = *o;
    with.values = dtype;
    r->options = &with; /* for commands that repeat a failure */
    flashinfer_status status = FLASHINFER_OK;
    int left = MORE_DTYPES;
    for (int i = 1; i <= o->problems * MORE_SEEDS && !status; i++)
        status = try_if_new(r, (struct problem_request){.op = r->op, .values = dtype, .seed = (uint64_t)i}, NULL, &left);
    for (int i = 0; r->op->shapes && r->op->shapes[i].name && !status; i++) {
        const struct op_shape *shape = &r->op->shapes[i];
        const struct problem_request request = {.op = r->op, .values = shape->values, .instead = dtype};
        if (!(o->max_elements > 0 && count_elements(&request) > o->max_elements))
            status = try_if_new(r, request, shape->name, &left);
    }
    r->options = o;
    return status;
}

/* Every dtype of every argument, with each row that serves it: of some, random problems hold very few. */
static flashinfer_status try_dtypes(struct run *r)
{
    const struct op *const ops[] = {r->op, r->op->plan};
    for (int i = 0; i < 2 && ops[i]; i++)
        for (const struct op_arg *arg = ops[i]->args; arg->kind != OP_END; arg++)
            for (int dtype = 1; op_dtype_is_open(arg) && dtype < DTYPE_COUNT; dtype++) {
                char text[128];
                snprintf(text, sizeof text, "%s%s=%s", arg->name, arg->kind == OP_DTYPE ? "" : ":dtype",
                         dtype_name((enum dtype)dtype));
                if (arg->dtype.set >> dtype & 1)
                    TRY(try_dtype(r, text));
            }
    return FLASHINFER_OK;
}

static void failed_refusal(void *context, const char *sentence)
{
    fail_with(context, NULL, NULL, sentence);
}

static flashinfer_status find_devices(struct run *r)
{
    const struct check_options *o = r->options;
    if (o->cpu)
        TRY(device_get((DLDevice){kDLCPU, 0}, &r->device[r->num_devices++]));
    if (!o->cuda)
        return FLASHINFER_OK;
    if (!device_get((DLDevice){kDLCUDA, 0}, &r->device[r->num_devices])) {
        r->num_devices++;
        return FLASHINFER_OK;
    }
    for (const struct op_kernel *row = r->op->kernels; row && row->name; row++) {
        struct check_coverage *coverage = row->target == OP_CUDA && wanted(r, row)
                                              ? coverage_of(&r->coverage, row->name, kDLCUDA, "-")
                                              : NULL;
        if (coverage)
            coverage_skip(coverage, "this machine has no CUDA device");
    }
    return FLASHINFER_OK;
}

/* A row is reached if it ran or failed with any dtypes on any device; those that this machine cannot run at
 * all are let off. */
static void check_reached(struct run *r)
{
    for (const struct op_kernel *row = r->op->kernels; row && row->name; row++)
        for (int i = 0; i < r->num_devices; i++) {
            const struct device *device = r->device[i];
            bool here = call_row_is_for(row, device) &&
                        (row->target != OP_CUDA || (device->arch >= row->arch_min &&
                                                    (!row->arch_max || device->arch <= row->arch_max)));
            here = here && !(r->op->missing && r->op->missing(row));
            if (here && wanted(r, row) && !coverage_reached(&r->coverage, row->name, device->id.device_type))
                fail_with(r, row->name, device, "no problem reached this kernel");
        }
}

/* Values that no problem has, a misspelt name among them, are told once, not as a failure of each named shape. */
static flashinfer_status try_values(const struct run *r)
{
    const struct check_options *o = r->options;
    const struct problem_request request = {
        .op = r->op, .values = o->values, .seed = o->seed ? o->seed : 1, .without_values = true};
    struct problem *problem;
    TRY(problem_create(&request, &problem));
    problem_destroy(problem);
    return FLASHINFER_OK;
}

static flashinfer_status check_all(struct run *r)
{
    const struct check_options *o = r->options;
    bool complete = !o->seed && !o->shape && !o->values;
    bool communicates = false;
    for (const struct op_arg *arg = r->op->args; arg->kind != OP_END; arg++)
        communicates = communicates || arg->kind == OP_COMM;
    TRY(find_devices(r));
    if (communicates)
        return FLASHINFER_OK;
    if (o->values && !o->shape)
        TRY(try_values(r));
    if (!o->seed || o->shape)
        TRY(try_shapes(r));
    if (!o->shape)
        TRY(try_seeds(r));
    if (complete)
        TRY(try_dtypes(r));
    for (int i = 0; complete && !o->kernel && i < r->num_devices; i++) {
        int tried = 0;
        TRY(device_enter(r->device[i]));
        tell_attempt(r, NULL, r->device[i]);
        TRY(refuse_all(r->op, r->device[i], &tried, failed_refusal, r));
        r->counts->refusals += tried;
    }
    if (complete || o->kernel)
        check_reached(r);
    return FLASHINFER_OK;
}

flashinfer_status check_op(const struct op *op, const struct check_options *options,
                           const struct check_events *events, struct check_counts *counts)
{
    struct run r = {.op = op, .options = options, .events = events, .counts = counts, .coverage = {.op = op}};
    if (op_validate(op)) {
        fail_with(&r, NULL, NULL, flashinfer_last_error());
        return FLASHINFER_OK;
    }
    flashinfer_status status = check_all(&r);
    for (int i = 0; i < r.coverage.count; i++)
        events->covered(events->context, &r.coverage.entry[i]);
    free(r.coverage.entry);
    compiles_end(&r.compiles);
    return status;
}
