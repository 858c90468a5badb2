/* SPDX-License-Identifier: Apache-2.0 */
/* Puts problems on devices. */
#include "harness/placement.h"

#include <stdlib.h>
#include <string.h>

static const DLDevice cpu = {kDLCPU, 0};

/* The device that a memory of the problem lies on. */
static const struct device *device_of(const struct placement *p, bool host)
{
    return host ? NULL : p->device;
}

void placement_destroy(struct placement *p)
{
    if (!p)
        return;
    placement_destroy(p->planned);
    for (int i = 0; i < p->problem->num_memories; i++)
        device_free(device_of(p, p->problem->memory[i].host), p->base[i]);
    device_free(p->device, p->workspace);
    free(p);
}

static void fill_tensor(struct placement *p, int i)
{
    const struct problem_tensor *t = &p->problem->tensor[i];
    DLTensor *out = &p->tensor[i];
    unsigned char *base = p->base[t->memory];
    *out =
        (DLTensor){.device = t->host ? cpu : p->device->id, .ndim = t->ndim, .dtype = dtype_dlpack(t->dtype)};
    out->shape = (int64_t *)(uintptr_t)t->shape;
    out->strides = (int64_t *)(uintptr_t)t->stride;
    if (base && t->use_byte_offset) {
        out->data = base;
        out->byte_offset = (uint64_t)t->offset;
    } else if (base) {
        out->data = base + t->offset;
    }
    if (t->omit_strides && tensor_is_dense(out))
        out->strides = NULL;
}

static void fill_argument(struct placement *p, int i)
{
    const struct op_arg *arg = &p->problem->op->args[i];
    int symbol = p->problem->program->arg[i].symbol;
    bool given = p->problem->given >> i & 1;
    if (p->problem->tensor[i].present) {
        fill_tensor(p, i);
        op_set_tensor(p->args, arg, &p->tensor[i]);
    } else if (arg->kind == OP_NUMBER && given) {
        op_set_number(p->args, arg, p->problem->number[i]);
    } else if ((arg->kind == OP_INT || arg->kind == OP_ENUM) && given) {
        op_set_int(p->args, arg, p->problem->dim[symbol]);
    } else if (arg->kind == OP_DTYPE && given) {
        *(DLDataType *)op_field(p->args, arg) = dtype_dlpack((enum dtype)p->problem->dim[symbol]);
    } else if (arg->kind == OP_PLAN) {
        *(flashinfer_plan **)op_field(p->args, arg) = arg->is_output ? &p->plan : &p->planned->plan;
    }
}

static bool device_is_told(const struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++)
        if (problem->tensor[i].present && !problem->tensor[i].host)
            return true;
    return false;
}

/* elsewhere: the device need not exist. */
static flashinfer_status check(const struct placement *p, bool elsewhere, struct call *call)
{
    return call_check(call, p->problem->op, p->args, &p->exec, p->problem->without_values, elsewhere ? p->device : NULL);
}

/* The plan op runs on the host and touches no device. */
static flashinfer_status make_plan(struct placement *p)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    TRY(placement_create(p->problem->plan, p->device, &p->planned));
    TRY(check(p->planned, p->problem->without_values, &call));
    TRY(call_pick(&call, &row, &way));
    return call_run(&call, row, &way);
}

static flashinfer_status build(struct placement *p)
{
    const struct problem *problem = p->problem;
    if (problem->plan)
        TRY(make_plan(p));
    for (int i = 0; !problem->without_values && i < problem->num_memories; i++) {
        const struct problem_memory *m = &problem->memory[i];
        TRY(device_alloc(device_of(p, m->host), m->bytes, &p->base[i]));
        TRY(device_upload(device_of(p, m->host), p->base[i], m->image, m->bytes));
    }
    memcpy(p->args, &problem->op->args_bytes, sizeof(size_t));
    for (int i = 0; i < problem->program->num_args; i++)
        fill_argument(p, i);
    p->exec.size = sizeof p->exec;
    if (!device_is_told(problem))
        p->exec.device = p->device->id;
    return FLASHINFER_OK;
}

flashinfer_status placement_create(const struct problem *problem, const struct device *device,
                                   struct placement **out)
{
    struct placement *p = calloc(1, sizeof *p);
    if (!p)
        return fail(FLASHINFER_MEMORY, "%s: no memory for a problem", problem->op->name);
    p->problem = problem;
    p->device = device;
    flashinfer_status status = build(p);
    if (status) {
        placement_destroy(p);
        return status;
    }
    *out = p;
    return FLASHINFER_OK;
}

flashinfer_status placement_check(const struct placement *p, struct call *call)
{
    return check(p, p->problem->without_values, call);
}

flashinfer_status placement_reset(const struct placement *p)
{
    const struct problem *problem = p->problem;
    bool written[OP_MAX_ARGS] = {false};
    for (int i = 0; i < problem->program->num_args; i++)
        if (problem->tensor[i].present && problem->tensor[i].written)
            written[problem->tensor[i].memory] = true;
    for (int i = 0; i < problem->num_memories; i++)
        if (written[i])
            TRY(device_upload(device_of(p, problem->memory[i].host), p->base[i], problem->memory[i].image,
                              problem->memory[i].bytes));
    return FLASHINFER_OK;
}

flashinfer_status placement_fetch(const struct placement *p, int memory, unsigned char *out)
{
    const struct problem_memory *m = &p->problem->memory[memory];
    return device_download(device_of(p, m->host), out, p->base[memory], m->bytes);
}

/* Filled with the guard's bytes, which are NaN: a kernel that reads what it did not write shows it. */
flashinfer_status placement_workspace(struct placement *p, size_t bytes)
{
    size_t all = bytes + 2 * PROBLEM_GUARD;
    device_free(p->device, p->workspace);
    p->workspace = NULL;
    p->exec.workspace = NULL;
    p->exec.workspace_size = bytes;
    if (!bytes)
        return FLASHINFER_OK;
    unsigned char *fill = malloc(all);
    if (!fill)
        return fail(FLASHINFER_MEMORY, "no memory for %zu bytes of workspace", bytes);
    memset(fill, PROBLEM_GUARD_BYTE, all);
    flashinfer_status status = device_alloc(p->device, all, &p->workspace);
    if (!status)
        status = device_upload(p->device, p->workspace, fill, all);
    free(fill);
    p->exec.workspace = (unsigned char *)p->workspace + PROBLEM_GUARD;
    return status;
}

flashinfer_status placement_workspace_intact(const struct placement *p, bool *intact)
{
    unsigned char guard[2 * PROBLEM_GUARD];
    *intact = true;
    if (!p->workspace)
        return FLASHINFER_OK;
    TRY(device_download(p->device, guard, p->workspace, PROBLEM_GUARD));
    TRY(device_download(p->device, guard + PROBLEM_GUARD,
                        (unsigned char *)p->exec.workspace + p->exec.workspace_size, PROBLEM_GUARD));
    for (int i = 0; i < 2 * PROBLEM_GUARD; i++)
        *intact = *intact && guard[i] == PROBLEM_GUARD_BYTE;
    return FLASHINFER_OK;
}
