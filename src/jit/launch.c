/* SPDX-License-Identifier: Apache-2.0 */
/* From a spec to a running kernel. In the steady state: one look-up, one question for the current context,
 * one launch. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/arithmetic.h"
#include "core/threads.h"
#include "jit/internal.h"

struct cpu_launch {
    jit_cpu_entry entry;
    const void *args;
    int parts;
};

static void run_part(void *context, int part)
{
    const struct cpu_launch *launch = context;
    launch->entry(launch->args, part, launch->parts);
}

/* Scratch lies on the caller's stack, and a copy of args has its address: args themselves may be shared by several threads, and
 * by calls that are made again. */
static __attribute__((noinline)) void launch_with_scratch(const struct jit_code *code, const struct jit_queue *queue,
                                                          const struct jit_launch *launch)
{
    _Alignas(64) char scratch[JIT_MAX_SCRATCH], args[JIT_MAX_SCRATCH_ARGS];
    void *address = scratch;
    memset(scratch, 0, 64);
    memcpy(args, launch->args, launch->args_size);
    memcpy(args + launch->scratch_at, &address, sizeof address);
    struct cpu_launch context = {code->entry, args, (int)launch->grid[0]};
    threads_run(run_part, &context, context.parts, queue->threads);
}

static void run_parts(const struct jit_code *code, const struct jit_queue *queue, const struct jit_launch *launch)
{
    int parts = launch->grid[0] ? (int)launch->grid[0] : 1;
    struct cpu_launch context = {code->entry, launch->args, parts};
    if (parts == 1)
        code->entry(launch->args, 0, 1);
    else if (launch->scratch)
        launch_with_scratch(code, queue, launch);
    else
        threads_run(run_part, &context, parts, queue->threads);
}

/* Workers that are started meanwhile inherit how this thread computes. */
static flashinfer_status launch_cpu(const struct jit_code *code, const struct jit_queue *queue,
                                    const struct jit_launch *launch)
{
    const uint64_t own = arithmetic_get();
    arithmetic_change(own, ARITHMETIC_USUAL);
    run_parts(code, queue, launch);
    arithmetic_change(ARITHMETIC_USUAL, own);
    return FLASHINFER_OK;
}

static uint32_t at_least_1(uint32_t x) { return x ? x : 1; }

static int add_attributes(const struct jit_launch *launch, bool pdl, struct cuda_launch_attribute attributes[3])
{
    int n = 0;
    const uint32_t *cluster = launch->cluster;
    if (cluster[0] > 1 || cluster[1] > 1 || cluster[2] > 1) {
        attributes[n] = (struct cuda_launch_attribute){.id = CUDA_LAUNCH_CLUSTER_DIMENSION};
        for (int i = 0; i < 3; i++)
            attributes[n].value.dimension[i] = at_least_1(cluster[i]);
        n++;
    }
    if (pdl)
        attributes[n++] = (struct cuda_launch_attribute){.id = CUDA_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION,
                                                         .value.flag = 1};
    if (launch->cooperative)
        attributes[n++] = (struct cuda_launch_attribute){.id = CUDA_LAUNCH_COOPERATIVE, .value.flag = 1};
    return n;
}

static bool is_default_stream(const void *stream) { return (uintptr_t)stream <= 2; /* legacy, or one per thread */ }

static flashinfer_status launch_failed(int result, const char *name)
{
    char what[256];
    snprintf(what, sizeof what, "launch of kernel %s", name);
    return cuda_fail(result, what);
}

/* For a stream of another context than the primary one, or where no context of the device is current. The stream's context
 * decides; for a default stream it is the current one if it is the device's, else the primary one. */
static flashinfer_status launch_in_other_context(const struct cuda *driver, const struct jit_queue *queue,
                                                 const struct cuda_launch_config *config, const struct jit_code *code,
                                                 void **parameters, const char *name)
{
    cuda_context context = queue->device->context, before;
    cuda_device device = -1, wanted;
    CUDA_TRY(driver->device_get(&wanted, queue->device->id.device_id), "cuDeviceGet");
    if (!is_default_stream(config->stream))
        CUDA_TRY(driver->stream_context(config->stream, &context), "cuStreamGetCtx");
    else if (driver->context_device(&device) == CUDA_OK && device == wanted)
        CUDA_TRY(driver->context_current(&context), "cuCtxGetCurrent");

    CUDA_TRY(driver->context_push(context), "cuCtxPushCurrent");
    int result = driver->context_device(&device);
    bool foreign = result == CUDA_OK && device != wanted;
    if (result == CUDA_OK && !foreign)
        result = driver->launch(config, (cuda_function)code->kernel, parameters, NULL);
    driver->context_pop(&before);
    if (foreign)
        return fail(FLASHINFER_INVALID, "kernel %s: exec.stream belongs to device %d, the tensors to cuda:%d", name,
                    (int)device, (int)queue->device->id.device_id);
    return result ? launch_failed(result, name) : FLASHINFER_OK;
}

static flashinfer_status launch_cuda(const struct jit_code *code, const char *name, const struct jit_queue *queue,
                                     const struct jit_launch *launch)
{
    const struct cuda *driver = cuda();
    struct cuda_launch_attribute attributes[3];
    struct cuda_launch_config config = {
        .grid = {at_least_1(launch->grid[0]), at_least_1(launch->grid[1]), at_least_1(launch->grid[2])},
        .block = {at_least_1(launch->block[0]), at_least_1(launch->block[1]), at_least_1(launch->block[2])},
        .shared_bytes = launch->smem,
        .stream = queue->stream,
        .attributes = attributes,
        .num_attributes = (uint32_t)add_attributes(launch, queue->pdl || launch->follows, attributes),
    };
    void *parameters[] = {(void *)(uintptr_t)launch->args};
    cuda_context current = NULL;
    driver->context_current(&current);
    if (current != queue->device->context)
        return launch_in_other_context(driver, queue, &config, code, parameters, name);
    int result = driver->launch(&config, code->function, parameters, NULL);
    if (result == CUDA_OK)
        return FLASHINFER_OK;
    if (result == CUDA_INVALID_HANDLE || result == CUDA_INVALID_CONTEXT)
        return launch_in_other_context(driver, queue, &config, code, parameters, name);
    return launch_failed(result, name);
}

/* What is not in memory would have to be loaded, which a capture does not allow. */
static flashinfer_status refuse_if_capturing(const struct jit_spec *spec, const struct jit_queue *queue)
{
    const struct cuda *driver;
    char kernel[1024];
    int capturing = 0;
    TRY(cuda_get(&driver));
    int result = driver->stream_is_capturing(queue->stream, &capturing);
    if (result != CUDA_STREAM_CAPTURE_IMPLICIT && (result != CUDA_OK || !capturing))
        return FLASHINFER_OK;
    return fail(FLASHINFER_NOT_PREPARED, "kernel %s is not loaded, and cannot be while the stream captures: call "
                "flashinfer_prepare, or the op itself, before the capture begins",
                jit_describe(spec, queue->device, kernel, sizeof kernel));
}

flashinfer_status jit_load_for(const struct jit_queue *queue, const struct jit_spec *spec, const struct jit_module **out)
{
    *out = jit_find(spec, queue->device);
    if (*out)
        return FLASHINFER_OK;
    if (spec->kernel->target == JIT_CUDA)
        TRY(refuse_if_capturing(spec, queue));
    return jit_load(spec, queue->device, out);
}

flashinfer_status jit_launch_module(const struct jit_module *module, const char *name, const struct jit_queue *queue,
                                    const struct jit_launch *launch)
{
    return module->code.entry ? launch_cpu(&module->code, queue, launch) : launch_cuda(&module->code, name, queue, launch);
}

flashinfer_status jit_launch(const struct jit_spec *spec, const struct jit_queue *queue, const struct jit_launch *launch)
{
    const struct jit_module *module;
    TRY(jit_load_for(queue, spec, &module));
    return jit_launch_module(module, spec->kernel->name, queue, launch);
}
