/* SPDX-License-Identifier: Apache-2.0 */
/* What a call of an op costs over its bare launch. For one call, the function that the call ends in (the
 * compiled entry, or the driver's launch) is replaced by one that times the real one, many times, with the
 * very arguments it got. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda.h"
#include "harness/bench.h"
#include "jit/internal.h"

enum {
    CPU_CALLS = 2000,
    GPU_CALLS = 300,
    BATCHES = 21
}; /* fewer launches than the driver queues before it waits */

static struct {
    jit_cpu_entry entry;
    int (*launch)(const struct cuda_launch_config *, cuda_function, void **, void **);
    double seconds; /* of all bare launches of one call */
} bare;

static void time_entry(const void *args, int part, int parts)
{
    double samples[BATCHES];
    if (part)
        return;
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = bench_now();
        for (int i = 0; i < CPU_CALLS; i++)
            for (int k = 0; k < parts; k++)
                bare.entry(args, k, parts);
        samples[batch] = (bench_now() - begin) / CPU_CALLS;
    }
    bare.seconds += bench_percentile(samples, BATCHES, 50);
}

static int time_launch(const struct cuda_launch_config *config, cuda_function function, void **parameters,
                       void **extra)
{
    double samples[BATCHES];
    int result = 0;
    for (int batch = 0; batch < BATCHES && !result; batch++) {
        double begin = bench_now();
        for (int i = 0; i < GPU_CALLS && !result; i++)
            result = bare.launch(config, function, parameters, extra);
        samples[batch] = (bench_now() - begin) / GPU_CALLS;
        result = result ? result : cuda()->context_synchronize();
    }
    bare.seconds += bench_percentile(samples, BATCHES, 50);
    return result;
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
    double samples[BATCHES];
    int calls = device_is_cuda(p->device) ? GPU_CALLS : CPU_CALLS;
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = bench_now();
        for (int i = 0; i < calls; i++)
            TRY(op_call(p->problem->op, p->args, &p->exec));
        samples[batch] = (bench_now() - begin) / calls;
        TRY(device_wait(p->device));
    }
    *seconds = bench_percentile(samples, BATCHES, 50);
    return FLASHINFER_OK;
}

static flashinfer_status measure(struct placement *p, const struct way *way, struct bench_overhead *result)
{
    TRY(op_call(p->problem->op, p->args, &p->exec));
    TRY(device_wait(p->device));
    bare.seconds = 0;
    TRY(device_is_cuda(p->device) ? time_bare_gpu(p) : time_bare_cpu(p, way));
    result->bare = bare.seconds;
    TRY(device_wait(p->device));
    return time_calls(p, &result->call);
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
    TRY(device_enter(device));
    for (const struct op_shape *shape = op->shapes; shape && shape->name; shape++) {
        char values[PROBLEM_MAX_TEXT];
        struct problem *problem;
        snprintf(values, sizeof values, "%s %s", shape->values, options->values ? options->values : "");
        struct problem_request request = {.op = op, .values = values, .without_values = true};
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
