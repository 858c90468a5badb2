/* SPDX-License-Identifier: Apache-2.0 */
/* What a call of an op costs over its bare launch. For one call, the function that the call ends in (the
 * compiled entry, or the driver's launch) is replaced by one that times the real one, many times, with the
 * very arguments it got. */
#include <math.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/clock.h"
#include "harness/bench.h"
#include "jit/internal.h"

/* A batch of launches stays below what the driver queues before it waits. */
enum { MAX_CALLS = 2000, MAX_LAUNCHES = 300, MIN_CALLS = 5, BATCHES = 61 };
#define BATCH_SECONDS 1e-3 /* of a batch's calls */
#define DONE_SECONDS 1e-2  /* of a batch until all that it launched is done, if that is longer */

static struct {
    jit_cpu_entry entry;
    int (*launch)(const struct cuda_launch_config *, cuda_function, void **, void **);
    int calls;      /* of a batch */
    double seconds; /* of all bare launches that one call makes */
} bare;

static void time_entry(const void *args, int part, int parts)
{
    if (part)
        return;
    double begin = clock_seconds();
    for (int i = 0; i < bare.calls; i++)
        for (int k = 0; k < parts; k++)
            bare.entry(args, k, parts);
    bare.seconds += (clock_seconds() - begin) / bare.calls;
}

static int time_launch(const struct cuda_launch_config *config, cuda_function function, void **parameters,
                       void **extra)
{
    int result = 0;
    double begin = clock_seconds();
    for (int i = 0; i < bare.calls && !result; i++)
        result = bare.launch(config, function, parameters, extra);
    bare.seconds += (clock_seconds() - begin) / bare.calls;
    return result ? result : cuda()->context_synchronize();
}

static flashinfer_status time_bare_gpu(struct placement *p)
{
    struct cuda *driver = (struct cuda *)(uintptr_t)cuda();
    bare.launch = driver->launch;
    driver->launch = time_launch;
    flashinfer_status status = op_call(p->problem->op, p->args, &p->exec);
    driver->launch = bare.launch;
    return status;
}

/* A call may go through several modules: one at a time is replaced. */
static flashinfer_status time_bare_cpu(struct placement *p, const struct way *way)
{
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; i < way->num_specs && !status; i++) {
        struct jit_module *module = (struct jit_module *)(uintptr_t)jit_find(&way->spec[i], p->device);
        if (!module)
            return fail(FLASHINFER_INTERNAL, "%s: kernel %s is not in memory after a call",
                        p->problem->op->name, p->exec.kernel);
        bare.entry = module->code.entry;
        module->code.entry = time_entry;
        status = op_call(p->problem->op, p->args, &p->exec);
        module->code.entry = bare.entry;
    }
    return status;
}

static flashinfer_status time_calls(struct placement *p, double *seconds)
{
    double begin = clock_seconds();
    for (int i = 0; i < bare.calls; i++)
        TRY(op_call(p->problem->op, p->args, &p->exec));
    *seconds = (clock_seconds() - begin) / bare.calls;
    return device_wait(p->device);
}

static flashinfer_status measure(struct placement *p, const struct way *way, struct bench_overhead *result)
{
    double calls[BATCHES], launches[BATCHES];
    bool cuda = device_is_cuda(p->device);
    int most = cuda ? MAX_LAUNCHES : MAX_CALLS;
    bare.calls = MIN_CALLS;
    TRY(time_calls(p, &calls[0]));
    double begin = clock_seconds();
    TRY(time_calls(p, &calls[0]));
    double fitting = fmin(BATCH_SECONDS / calls[0], DONE_SECONDS / (clock_seconds() - begin) * MIN_CALLS);
    bare.calls = fitting > most ? most : fitting < MIN_CALLS ? MIN_CALLS : (int)fitting;
    for (int i = 0; i < BATCHES; i++) {
        bare.seconds = 0;
        TRY(cuda ? time_bare_gpu(p) : time_bare_cpu(p, way));
        TRY(device_wait(p->device));
        TRY(time_calls(p, &calls[i]));
        launches[i] = bare.seconds;
    }
    /* What else runs on the machine only ever adds: the fastest tenth is the cost itself. */
    result->call = bench_percentile(calls, BATCHES, 10);
    result->bare = bench_percentile(launches, BATCHES, 10);
    return FLASHINFER_OK;
}

static flashinfer_status measure_rows(const struct problem *problem, const struct device *device,
                                      const struct bench_options *options,
                                      void (*report)(void *context, const struct bench_overhead *result),
                                      void *context)
{
    struct placement *p;
    struct call call;
    struct way way;
    TRY(placement_create(problem, device, &p));
    flashinfer_status status = placement_check(p, &call);
    for (const struct op_kernel *row = problem->op->kernels; !status && row && row->name; row++) {
        struct bench_overhead result = {
            .op = problem->op->name, .row = row->name, .problem = problem->text, .device = device};
        if ((options->kernel && strcmp(options->kernel, row->name)) || call_fit(&call, row, &way) ||
            !way.num_specs)
            continue;
        p->exec.kernel = row->name;
        p->exec.flags = options->pdl ? FLASHINFER_PDL : 0;
        p->exec.threads = device_is_cuda(device) ? 0 : 1;
        status = placement_workspace(p, way.workspace);
        if (!status)
            status = measure(p, &way, &result);
        if (!status)
            report(context, &result);
    }
    placement_destroy(p);
    return status;
}

flashinfer_status bench_overhead_op(const struct op *op, const struct device *device,
                                    const struct bench_options *options,
                                    void (*report)(void *context, const struct bench_overhead *result),
                                    void *context)
{
    struct problem *smallest = NULL;
    TRY(op_validate(op));
    TRY(device_enter(device));
    for (const struct op_shape *shape = op->shapes; shape && shape->name; shape++) {
        struct problem *problem;
        struct problem_request request = {
            .op = op, .values = shape->values, .instead = options->values, .without_values = true};
        TRY(problem_create(&request, &problem));
        bool smaller = !smallest || problem_bytes(problem) < problem_bytes(smallest);
        problem_destroy(problem);
        if (!smaller)
            continue;
        problem_destroy(smallest);
        smallest = NULL;
        request.without_values = false;
        TRY(problem_create(&request, &smallest));
    }
    flashinfer_status status =
        smallest ? measure_rows(smallest, device, options, report, context) : FLASHINFER_OK;
    problem_destroy(smallest);
    return status == FLASHINFER_UNSUPPORTED ? FLASHINFER_OK : status;
}
