/* SPDX-License-Identifier: Apache-2.0 */
/* The public face of just-in-time compilation: kernels of the user, launched on DLPack tensors. */
#include "flashinfer/jit.h"

#include <stdlib.h>
#include <string.h>

#include "core/identifier.h"
#include "core/structure.h"
#include "core/tensor.h"
#include "jit/arguments.h"
#include "jit/internal.h"

struct flashinfer_kernel {
    struct {
        const struct jit_kernel *kernel; /* NULL: no source for this target */
        const struct jit_text *text;
    } target[2]; /* by enum jit_target */
    const char *name;
    int num_constants;
};

union arguments {
    struct tensor tensor[FLASHINFER_KERNEL_MAX_TENSORS];
    char bytes[FLASHINFER_KERNEL_MAX_TENSORS * sizeof(struct tensor)
               + FLASHINFER_KERNEL_MAX_NUMBERS * sizeof(union number)];
};

/* What one launch has come to, once checked. */
struct prepared {
    struct jit_spec spec;
    struct jit_queue queue;
    struct jit_launch launch;
    union arguments arguments;
};

static flashinfer_status keep_target(flashinfer_kernel *kernel, struct jit_kernel *description, enum jit_target target,
                                     const char *text)
{
    if (!text)
        return FLASHINFER_OK;
    description->target = target;
    kernel->target[target].kernel = jit_keep_kernel(description);
    kernel->target[target].text = jit_keep_text(text, true);
    if (!kernel->target[target].kernel || !kernel->target[target].text)
        return fail(FLASHINFER_MEMORY, "out of host memory");
    kernel->name = kernel->target[target].kernel->name;
    return FLASHINFER_OK;
}

flashinfer_status flashinfer_kernel_create(const struct flashinfer_kernel_source *source, flashinfer_kernel **out)
{
    struct flashinfer_kernel_source s;
    struct jit_kernel description = {0};
    int n = 0;
    if (!out)
        return fail(FLASHINFER_INVALID, "flashinfer_kernel_create: out is NULL");
    *out = NULL;
    TRY(structure_read(&s, sizeof s, source, "flashinfer_kernel_create: source"));
    if (!is_identifier(s.name))
        return fail(FLASHINFER_INVALID, "flashinfer_kernel_create: name is \"%s\", must be a C identifier of at most 60 "
                    "characters", s.name ? s.name : "");
    if (!s.cuda && !s.cpu)
        return fail(FLASHINFER_INVALID, "flashinfer_kernel_create: kernel %s has neither a cuda nor a cpu text", s.name);
    for (; s.constants && s.constants[n]; n++) {
        if (n == FLASHINFER_KERNEL_MAX_CONSTANTS)
            return fail(FLASHINFER_INVALID, "flashinfer_kernel_create: kernel %s has more than %d constants", s.name, n);
        if (!is_identifier(s.constants[n]))
            return fail(FLASHINFER_INVALID, "flashinfer_kernel_create: constants[%d] of kernel %s is \"%s\", must be a C "
                        "identifier", n, s.name, s.constants[n]);
        description.constants[n] = s.constants[n];
    }
    description.name = s.name;
    flashinfer_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return fail(FLASHINFER_MEMORY, "out of host memory");
    kernel->num_constants = n;
    flashinfer_status status = keep_target(kernel, &description, JIT_CUDA, s.cuda);
    if (!status)
        status = keep_target(kernel, &description, JIT_CPU, s.cpu);
    if (status)
        free(kernel);
    else
        *out = kernel;
    return status;
}

void flashinfer_kernel_destroy(flashinfer_kernel *kernel) { free(kernel); }

static flashinfer_status pass_tensor(const char *name, int i, const DLTensor *t, bool needs_data, struct tensor *out)
{
    if (t->ndim < 0 || t->ndim > TENSOR_MAX_DIMS)
        return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d] has %d axes, must have 0 to %d", name, i, (int)t->ndim,
                    TENSOR_MAX_DIMS);
    if (t->ndim > 0 && !t->shape)
        return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d]->shape is NULL", name, i);
    for (int axis = 0; axis < TENSOR_MAX_DIMS; axis++) {
        out->shape[axis] = axis < t->ndim ? t->shape[axis] : 1;
        out->stride[axis] = axis < t->ndim ? tensor_stride(t, axis) : 0;
        if (out->shape[axis] < 0)
            return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d] has size %lld on axis %d", name, i,
                        (long long)out->shape[axis], axis);
    }
    if (needs_data && !t->data && tensor_elements(t) > 0)
        return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d]->data is NULL", name, i);
    out->data = t->data ? tensor_data(t) : NULL;
    return FLASHINFER_OK;
}

static flashinfer_status pass_tensors(const char *name, const struct flashinfer_kernel_launch *l, bool needs_data,
                                      struct prepared *out)
{
    if (l->num_tensors < 1 || l->num_tensors > FLASHINFER_KERNEL_MAX_TENSORS)
        return fail(FLASHINFER_INVALID, "kernel %s: num_tensors is %d, must be 1 to %d", name, (int)l->num_tensors,
                    FLASHINFER_KERNEL_MAX_TENSORS);
    if (!l->tensors)
        return fail(FLASHINFER_INVALID, "kernel %s: tensors is NULL", name);
    for (int i = 0; i < l->num_tensors; i++) {
        const DLTensor *t = l->tensors[i];
        const struct device *device;
        if (!t)
            return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d] is NULL", name, i);
        TRY(pass_tensor(name, i, t, needs_data, &out->arguments.tensor[i]));
        TRY(device_get(t->device, &device));
        if (i == 0)
            out->queue.device = device;
        char first[256], other[256];
        if (device != out->queue.device)
            return fail(FLASHINFER_INVALID, "kernel %s: tensors[%d] is %s, tensors[0] is %s; all must be on one device", name,
                        i, tensor_describe(t, other, sizeof other), tensor_describe(l->tensors[0], first, sizeof first));
    }
    return FLASHINFER_OK;
}

static flashinfer_status pass_numbers(const char *name, const struct flashinfer_kernel_launch *l, struct prepared *out)
{
    if (l->num_numbers < 0 || l->num_numbers > FLASHINFER_KERNEL_MAX_NUMBERS)
        return fail(FLASHINFER_INVALID, "kernel %s: num_numbers is %d, must be 0 to %d", name, (int)l->num_numbers,
                    FLASHINFER_KERNEL_MAX_NUMBERS);
    if (l->num_numbers > 0 && !l->numbers)
        return fail(FLASHINFER_INVALID, "kernel %s: numbers is NULL", name);
    size_t at = (size_t)l->num_tensors * sizeof(struct tensor);
    for (int i = 0; i < l->num_numbers; i++, at += sizeof(union number)) {
        const flashinfer_number *number = &l->numbers[i];
        union number value;
        if (number->kind == FLASHINFER_NUMBER_INT)
            value.i = number->value.i;
        else if (number->kind == FLASHINFER_NUMBER_FLOAT)
            value.f = number->value.f;
        else
            return fail(FLASHINFER_INVALID, "kernel %s: numbers[%d].kind is %d, must be INT (1) or FLOAT (2)", name, i,
                        (int)number->kind);
        memcpy(out->arguments.bytes + at, &value, sizeof value);
    }
    out->launch.args = out->arguments.bytes;
    out->launch.args_size = (uint32_t)at;
    return FLASHINFER_OK;
}

static flashinfer_status pass_exec(const char *name, const flashinfer_exec *exec, struct prepared *out)
{
    flashinfer_exec e = {0};
    bool on_cpu = out->queue.device->id.device_type == kDLCPU;
    if (exec)
        TRY(structure_read(&e, sizeof e, exec, "exec"));
    if (on_cpu && e.stream)
        return fail(FLASHINFER_INVALID, "kernel %s: exec.stream must be NULL for tensors on a CPU", name);
    if (e.device.device_type) {
        const struct device *device;
        TRY(device_get(e.device, &device));
        if (device != out->queue.device)
            return fail(FLASHINFER_INVALID, "kernel %s: exec.device is not the tensors' device", name);
    }
    if (e.kernel && strcmp(e.kernel, name))
        return fail(FLASHINFER_UNSUPPORTED, "kernel %s: exec.kernel asks for %s", name, e.kernel);
    out->queue.stream = e.stream;
    out->queue.threads = e.threads;
    out->queue.pdl = (e.flags & FLASHINFER_PDL) && out->queue.device->arch >= 90;
    return FLASHINFER_OK;
}

static flashinfer_status pass_sizes(const char *name, const struct flashinfer_kernel_launch *l, struct prepared *out)
{
    const struct device *device = out->queue.device;
    bool on_cpu = device->id.device_type == kDLCPU;
    memcpy(out->launch.grid, l->grid, sizeof out->launch.grid);
    memcpy(out->launch.block, l->block, sizeof out->launch.block);
    out->launch.smem = l->shared_bytes;
    if (on_cpu && (l->grid[0] > INT32_MAX || l->grid[1] > 1 || l->grid[2] > 1))
        return fail(FLASHINFER_INVALID, "kernel %s: grid is %u x %u x %u, must be parts x 1 x 1 on a CPU", name, l->grid[0],
                    l->grid[1], l->grid[2]);
    if (!on_cpu && l->shared_bytes > (uint32_t)device->smem_block)
        return fail(FLASHINFER_INVALID, "kernel %s: shared_bytes is %u, a block of %s has at most %d", name, l->shared_bytes,
                    device->name, (int)device->smem_block);
    return FLASHINFER_OK;
}

static flashinfer_status prepare(const flashinfer_kernel *kernel, const struct flashinfer_kernel_launch *launch,
                                 const flashinfer_exec *exec, bool needs_data, struct prepared *out)
{
    struct flashinfer_kernel_launch l;
    if (!kernel)
        return fail(FLASHINFER_INVALID, "flashinfer_kernel_launch: kernel is NULL");
    TRY(structure_read(&l, sizeof l, launch, "flashinfer_kernel_launch: launch"));
    const char *name = kernel->name;
    memset(&out->spec, 0, sizeof out->spec);
    memset(&out->launch, 0, sizeof out->launch);
    TRY(pass_tensors(name, &l, needs_data, out));
    TRY(pass_numbers(name, &l, out));
    TRY(pass_exec(name, exec, out));
    TRY(pass_sizes(name, &l, out));
    enum jit_target target = out->queue.device->id.device_type == kDLCPU ? JIT_CPU : JIT_CUDA;
    if (!kernel->target[target].kernel)
        return fail(FLASHINFER_UNSUPPORTED, "kernel %s has no %s text, and its tensors are on %s", name,
                    target == JIT_CPU ? "cpu" : "cuda", out->queue.device->name);
    if (kernel->num_constants > 0 && !l.constants)
        return fail(FLASHINFER_INVALID, "kernel %s: constants is NULL, must hold %d values", name, kernel->num_constants);
    out->spec.kernel = kernel->target[target].kernel;
    out->spec.user = kernel->target[target].text;
    if (kernel->num_constants > 0)
        memcpy(out->spec.constant, l.constants, (size_t)kernel->num_constants * sizeof *l.constants);
    return FLASHINFER_OK;
}

flashinfer_status flashinfer_kernel_launch(const flashinfer_kernel *kernel, const struct flashinfer_kernel_launch *launch,
                                           const flashinfer_exec *exec)
{
    struct prepared prepared;
    TRY(prepare(kernel, launch, exec, true, &prepared));
    return jit_launch(&prepared.spec, &prepared.queue, &prepared.launch);
}

flashinfer_status flashinfer_kernel_prepare(const flashinfer_kernel *kernel, const struct flashinfer_kernel_launch *launch,
                                            const flashinfer_exec *exec)
{
    struct prepared prepared;
    const struct jit_module *module;
    TRY(prepare(kernel, launch, exec, false, &prepared));
    return jit_load(&prepared.spec, prepared.queue.device, &module);
}
