/* SPDX-License-Identifier: Apache-2.0 */
/* Violations of one tensor argument: a copy of a legal call in which that tensor alone is wrong. */
#include "harness/refuse.h"

#include <stdio.h>

enum { MAX_NAMES = OP_MAX_ARGS + OP_MAX_DIMS + 1 };

static const struct problem *base(const struct refusals *r)
{
    return r->placement->problem;
}

static void expect(struct refusals *r, int arg, const char *what)
{
    char text[160];
    const char *names[] = {base(r)->op->args[arg].name, NULL};
    snprintf(text, sizeof text, "%s %s", names[0], what);
    refusal_expect(r, FLASHINFER_INVALID, text, names);
}

/* The sentence may name whatever other argument the wrong one is compared with. */
static void expect_any(struct refusals *r, int arg, const char *what)
{
    char text[160];
    const char *names[MAX_NAMES];
    int n = 0;
    for (int i = 0; i < base(r)->program->num_args; i++)
        if (base(r)->tensor[i].present)
            names[n++] = base(r)->op->args[i].name;
    names[n] = NULL;
    snprintf(text, sizeof text, "%s %s", base(r)->op->args[arg].name, what);
    refusal_expect(r, FLASHINFER_INVALID, text, names);
}

static void refuse_pointer(struct refusals *r, int arg)
{
    const struct op_arg *a = &base(r)->op->args[arg];
    if (!op_is_tensor(a) || program_required(base(r)->program, arg, base(r)->dim)) {
        refusal_begin(r, arg);
        op_set_tensor(r->args, a, NULL);
        expect(r, arg, "NULL");
    }
    if (base(r)->tensor[arg].elements) {
        DLTensor *t = refusal_begin(r, arg);
        t->data = NULL;
        t->byte_offset = 0;
        expect(r, arg, "whose data is NULL");
    }
}

static void refuse_dtypes(struct refusals *r, int arg)
{
    const uint32_t legal = problem_legal_dtypes(base(r), arg);
    DLTensor *t = refusal_begin(r, arg);
    int dtype = 1;
    while (dtype < DTYPE_COUNT && legal >> dtype & 1)
        dtype++;
    if (dtype < DTYPE_COUNT) {
        t->dtype = dtype_dlpack((enum dtype)dtype);
        expect_any(r, arg, "of a wrong dtype");
    }
    t = refusal_begin(r, arg);
    t->dtype.lanes = 3;
    expect(r, arg, "of a dtype with 3 lanes");
}

static const struct program_alternative *alternative(const struct problem *problem, int arg)
{
    const struct program_arg *a = &problem->program->arg[arg];
    return problem->tensor[arg].single || a->first_shape < 0
               ? NULL
               : &problem->program->shapes[a->first_shape + (a->by >= 0 ? problem->dim[a->by] : 0)];
}

static void refuse_rank(struct refusals *r, int arg)
{
    const struct program_alternative *shape = alternative(base(r), arg);
    DLTensor *t = refusal_begin(r, arg);
    t->ndim = TENSOR_MAX_DIMS + 1;
    expect(r, arg, "of 9 axes");
    t = refusal_begin(r, arg);
    t->ndim = -1;
    expect(r, arg, "of -1 axes");
    /* A number may have one element in any number of axes. */
    bool number = !op_is_tensor(&base(r)->op->args[arg]);
    if (!shape || (number && base(r)->tensor[arg].elements < 2))
        return;
    if (shape->count > 0 && !number) {
        t = refusal_begin(r, arg);
        t->ndim = shape->count - 1;
        expect_any(r, arg, "of too few axes");
    }
    if (!shape->leading && shape->count < TENSOR_MAX_DIMS) {
        t = refusal_begin(r, arg);
        r->shape[t->ndim] = r->stride[t->ndim] = 1;
        t->ndim++;
        expect_any(r, arg, "of too many axes");
    }
}

/* Whether anything but this argument tells that symbol. */
static bool told_elsewhere(const struct problem *problem, int arg, int symbol)
{
    if (problem->program->symbol[symbol].arg >= 0 || problem->program->symbol[symbol].plan_symbol >= 0)
        return true;
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct program_alternative *shape =
            i != arg && problem->tensor[i].present ? alternative(problem, i) : NULL;
        for (int axis = 0; shape && axis < shape->count; axis++)
            if (problem->program->axes[shape->first + axis].linear == symbol)
                return true;
    }
    return false;
}

static bool leading_elsewhere(const struct problem *problem, int arg)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct program_alternative *shape =
            i != arg && problem->tensor[i].present ? alternative(problem, i) : NULL;
        if (shape && shape->leading)
            return true;
    }
    return false;
}

static void refuse_shape(struct refusals *r, int arg)
{
    const struct problem *problem = base(r);
    const struct program_alternative *shape = alternative(problem, arg);
    int ndim = problem->tensor[arg].ndim;
    char what[64];
    if (ndim > 0) {
        refusal_begin(r, arg);
        r->shape[ndim - 1] = -1;
        expect(r, arg, "with an axis of size -1");
    }
    for (int axis = 0; shape && axis < ndim; axis++) {
        int declared = axis - (ndim - shape->count);
        const struct expression *e = declared >= 0 ? &problem->program->axes[shape->first + declared] : NULL;
        if (e ? e->linear >= 0 && e->scale == 1 && !told_elsewhere(problem, arg, e->linear)
              : !leading_elsewhere(problem, arg))
            continue;
        if (e && !e->is_constant && e->linear < 0 && e->quotient >= 0 &&
            !told_elsewhere(problem, arg, e->quotient))
            continue;
        refusal_begin(r, arg);
        r->shape[axis]++;
        snprintf(what, sizeof what, "whose axis %d is one too long", axis);
        expect_any(r, arg, what);
    }
}

static void refuse_strides(struct refusals *r, int arg)
{
    const struct problem_tensor *t = &base(r)->tensor[arg];
    int flags = base(r)->op->args[arg].flags, last = t->ndim - 1;
    if (!op_is_tensor(&base(r)->op->args[arg]) || t->elements < 2)
        return;
    if (!(flags & STRIDED) && t->shape[last] > 1) {
        refusal_begin(r, arg);
        for (int axis = 0; axis <= last; axis++)
            r->stride[axis] *= 2;
        expect(r, arg, "whose last axis has stride 2");
    }
    for (int axis = 0; axis < last; axis++) {
        if (t->shape[axis] < 2 || !(flags & DENSE || t->written))
            continue;
        refusal_begin(r, arg);
        r->stride[axis] = t->written && !(flags & DENSE) ? 0 : r->stride[axis] + 1;
        expect(r, arg, t->written && !(flags & DENSE) ? "with an axis of stride 0" : "that is not dense");
        break;
    }
}

static void refuse_device(struct refusals *r, int arg)
{
    const struct problem_tensor *t = &base(r)->tensor[arg];
    bool cuda = device_is_cuda(r->placement->device);
    int others = 0;
    DLTensor *tensor = refusal_begin(r, arg);
    tensor->device.device_type = (DLDeviceType)99;
    expect_any(r, arg, "on an unknown device");
    for (int i = 0; i < base(r)->program->num_args; i++)
        others += i != arg && base(r)->tensor[i].present && !base(r)->tensor[i].host;
    if (!others && !t->host && base(r)->program->plan_arg < 0)
        return;
    tensor = refusal_begin(r, arg);
    tensor->device = cuda && !t->host ? (DLDevice){kDLCPU, 0} : (DLDevice){kDLCUDA, 0};
    expect_any(r, arg, "on another device");
}

static void refuse_overlaps(struct refusals *r, int arg)
{
    const struct problem *problem = base(r);
    const struct problem_tensor *t = &problem->tensor[arg];
    int bytes = dtype_bytes(t->dtype);
    for (int i = 0; t->written && t->elements && i < problem->program->num_args; i++) {
        const struct problem_tensor *other = &problem->tensor[i];
        if (i == arg || !other->present || !other->elements || other->host != t->host || other->single)
            continue;
        bool may =
            (problem->program->arg[arg].may_alias >> i | problem->program->arg[i].may_alias >> arg) & 1;
        int64_t shift = may ? 1 : 0;
        if ((may && other->elements < 3) || (i < arg && other->written))
            continue;
        DLTensor *tensor = refusal_begin(r, arg);
        uintptr_t address =
            (uintptr_t)tensor_data(&r->tensor[i]) + (uintptr_t)(shift * dtype_bytes(other->dtype));
        tensor->data = (void *)(address / (uintptr_t)bytes * (uintptr_t)bytes);
        tensor->byte_offset = 0;
        char what[128];
        snprintf(what, sizeof what, "that overlaps %s", problem->op->args[i].name);
        expect_any(r, arg, what);
    }
    if (bytes > 1 && t->elements) {
        DLTensor *tensor = refusal_begin(r, arg);
        tensor->byte_offset++;
        expect(r, arg, "between two elements' addresses");
    }
}

void refuse_tensor(struct refusals *r, int arg)
{
    refuse_pointer(r, arg);
    refuse_dtypes(r, arg);
    refuse_rank(r, arg);
    refuse_shape(r, arg);
    refuse_strides(r, arg);
    refuse_device(r, arg);
    refuse_overlaps(r, arg);
    refusal_begin(r, arg);
}
