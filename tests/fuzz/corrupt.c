/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of right calls, changed as the input says. */
#include "tests/fuzz/corrupt.h"

#include <string.h>

#include "op/plan.h"

static const struct op *op_of(const struct corrupt *c)
{
    return c->right->problem->op;
}

static int count_arguments(const struct corrupt *c)
{
    return c->right->problem->program->num_args;
}

/* Where nothing is, far from other arguments. */
static void *nowhere(int arg) { return (void *)((uintptr_t)(arg + 1) << 41); }

void corrupt_begin(struct corrupt *c, const struct placement *right)
{
    memset(c, 0, sizeof *c);
    c->right = right;
    memcpy(c->args, right->args, sizeof right->args);
    c->exec = right->exec;
    for (int i = 0; i < count_arguments(c); i++) {
        const struct op_arg *arg = &op_of(c)->args[i];
        if (arg->kind == OP_PLAN) {
            c->plan[0] = c->made = arg->is_output ? right->plan : right->planned->plan;
            *(flashinfer_plan **)op_field(c->args, arg) = c->plan;
        }
        c->tensor[i] = right->tensor[i];
        if (!right->problem->tensor[i].present)
            continue;
        for (int axis = 0; axis < c->tensor[i].ndim; axis++) {
            c->shape[i][axis] = right->tensor[i].shape[axis];
            c->stride[i][axis] = tensor_stride(&right->tensor[i], axis);
        }
        c->tensor[i].shape = c->shape[i];
        if (!c->tensor[i].data)
            c->tensor[i].data = nowhere(right->problem->tensor[i].alias < 0 ? i : right->problem->tensor[i].alias);
        if (c->tensor[i].strides)
            c->tensor[i].strides = c->stride[i];
        op_set_tensor(c->args, arg, &c->tensor[i]);
    }
}

/* Something near the number that stands there, an end of a range, or anything. */
static int64_t other_number(struct fuzz_input *in, int64_t now)
{
    static const int64_t ends[] = {0,    1, -1, INT64_MAX, INT64_MIN, INT32_MAX, INT32_MIN, (int64_t)1 << 32, (int64_t)1 << 62,
                                   65536};
    int how = fuzz_below(in, 6);
    switch (how) {
    case 0:
        return (int64_t)((uint64_t)now + (uint64_t)(int8_t)fuzz_byte(in));
    case 1:
        return (int64_t)((uint64_t)now * fuzz_byte(in));
    case 2:
        return now / (1 + fuzz_byte(in));
    case 3:
        return ends[fuzz_below(in, sizeof ends / sizeof *ends)];
    case 4:
        return (int8_t)fuzz_byte(in);
    default:
        return (int64_t)fuzz_bytes(in, 8);
    }
}

/* Tensors that have another size then lie where nothing is, far apart. */
static void resize(struct corrupt *c, int arg, const int64_t *shape)
{
    DLTensor *t = &c->tensor[arg];
    if (!memcmp(shape, c->shape[arg], sizeof *shape * (size_t)t->ndim))
        return;
    uint64_t stride = 1;
    for (int axis = t->ndim - 1; axis >= 0; axis--) {
        c->shape[arg][axis] = shape[axis];
        c->stride[arg][axis] = (int64_t)stride;
        stride *= (uint64_t)shape[axis];
    }
    t->data = nowhere(arg);
    t->byte_offset = 0;
}

/* False if the plan's op does not make that plan. */
static bool plan_again(struct corrupt *c, const struct device *device, int symbol, int64_t value)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    const struct placement *planned = c->right->planned;
    const struct op *op = planned->problem->op;
    int arg = program_argument(planned->problem->program, planned->problem->program->symbol[symbol].name);
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
    if (arg < 0 || op->args[arg].kind != OP_INT)
        return false;
    memcpy(args, planned->args, sizeof args);
    for (int i = 0; i < planned->problem->program->num_args; i++)
        if (op->args[i].kind == OP_PLAN)
            *(flashinfer_plan **)op_field(args, &op->args[i]) = c->plan;
    op_set_int(args, &op->args[arg], value);
    if (call_check(&call, op, args, &planned->exec, false, device) || call_pick(&call, &row, &way) || call_run(&call, row, &way))
        return false;
    c->made = c->plan[0];
    return true;
}

void corrupt_dimension(struct corrupt *c, const struct device *device, struct fuzz_input *in)
{
    const struct problem *problem = c->right->problem;
    const struct program *program = problem->program;
    int symbol = fuzz_below(in, program->num_symbols), arg = program->symbol[symbol].arg;
    int64_t dim[OP_MAX_DIMS], shape[TENSOR_MAX_DIMS];
    memcpy(dim, problem->dim, sizeof dim);
    dim[symbol] = fuzz_byte(in) & 1 ? fuzz_below(in, 200) : other_number(in, dim[symbol]);
    if (arg >= 0 && op_of(c)->args[arg].kind == OP_INT)
        op_set_int(c->args, &op_of(c)->args[arg], dim[symbol]);
    if (program->symbol[symbol].plan_symbol >= 0 && !plan_again(c, device, program->symbol[symbol].plan_symbol, dim[symbol]))
        return;
    for (int i = 0; i < program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        int ndim, num_leading = problem->num_leading;
        bool has_rows = symbol == program->rows && num_leading > 0;
        int64_t leading[TENSOR_MAX_DIMS];
        memcpy(leading, problem->leading, sizeof leading);
        for (int axis = 0; has_rows && axis < num_leading; axis++)
            leading[axis] = axis ? 1 : dim[symbol];
        if (t->present && !t->single && program_shape(program, i, dim, leading, num_leading, shape, &ndim) && ndim == t->ndim)
            resize(c, i, shape);
    }
}

/* An argument that is a tensor in the right call, -1 if there is none. */
static int pick_tensor(const struct corrupt *c, struct fuzz_input *in)
{
    int first = fuzz_below(in, count_arguments(c));
    for (int i = 0; i < count_arguments(c); i++) {
        int arg = (first + i) % count_arguments(c);
        if (c->right->problem->tensor[arg].present)
            return arg;
    }
    return -1;
}

static void change_memory(struct corrupt *c, struct fuzz_input *in, DLTensor *t)
{
    int other = pick_tensor(c, in);
    switch (fuzz_below(in, 6)) {
    case 0:
        t->data = NULL;
        break;
    case 1:
        t->data = (void *)((uintptr_t)t->data + (uintptr_t)(int8_t)fuzz_byte(in));
        break;
    case 2:
        t->data = (void *)(uintptr_t)other_number(in, (int64_t)(uintptr_t)t->data);
        break;
    case 3:
        t->byte_offset = (uint64_t)other_number(in, (int64_t)t->byte_offset);
        break;
    default:
        t->data = c->tensor[other].data;
        t->byte_offset = c->tensor[other].byte_offset + (uint64_t)(int8_t)fuzz_byte(in);
    }
}

static void change_dtype(struct fuzz_input *in, DLDataType *type)
{
    switch (fuzz_below(in, 4)) {
    case 0:
        type->code = fuzz_byte(in);
        break;
    case 1:
        type->bits = fuzz_byte(in);
        break;
    case 2:
        type->lanes = (uint16_t)other_number(in, type->lanes);
        break;
    default:
        *type = dtype_dlpack((enum dtype)fuzz_below(in, DTYPE_COUNT));
    }
}

static void change_device(struct fuzz_input *in, DLDevice *device)
{
    if (fuzz_byte(in) & 1)
        device->device_id = (int32_t)other_number(in, device->device_id);
    else
        device->device_type = (DLDeviceType)fuzz_below(in, 20);
}

static void exchange_axes(struct corrupt *c, int arg, int a, int b)
{
    int64_t size = c->shape[arg][a], stride = c->stride[arg][a];
    c->shape[arg][a] = c->shape[arg][b];
    c->stride[arg][a] = c->stride[arg][b];
    c->shape[arg][b] = size;
    c->stride[arg][b] = stride;
}

static void change_tensor(struct corrupt *c, struct fuzz_input *in)
{
    int arg = pick_tensor(c, in), what = fuzz_below(in, 10);
    if (arg < 0)
        return;
    DLTensor *t = &c->tensor[arg];
    int axis = fuzz_below(in, TENSOR_MAX_DIMS);
    switch (what) {
    case 0:
        t->ndim = (int32_t)other_number(in, t->ndim);
        break;
    case 1:
        c->shape[arg][axis] = other_number(in, c->shape[arg][axis]);
        break;
    case 2:
        t->strides = c->stride[arg];
        c->stride[arg][axis] = other_number(in, c->stride[arg][axis]);
        break;
    case 3:
        t->strides = t->strides ? NULL : c->stride[arg];
        break;
    case 4:
        t->shape = NULL;
        break;
    case 5:
        change_dtype(in, &t->dtype);
        break;
    case 6:
        change_device(in, &t->device);
        break;
    case 7:
        exchange_axes(c, arg, axis, fuzz_below(in, TENSOR_MAX_DIMS));
        break;
    case 8: {
        int other = pick_tensor(c, in);
        op_set_tensor(c->args, &op_of(c)->args[arg], fuzz_byte(in) & 1 ? &c->tensor[other] : NULL);
        break;
    }
    default:
        change_memory(c, in, t);
    }
}

static void change_number_struct(struct corrupt *c, struct fuzz_input *in, flashinfer_number *number)
{
    number->kind = fuzz_below(in, 5);
    if (number->kind == 4)
        number->kind = (int32_t)fuzz_bytes(in, 4) | 4; /* never that of a tensor, whose pointer would be any number */
    int tensor = pick_tensor(c, in);
    if (number->kind == FLASHINFER_NUMBER_TENSOR)
        number->value.tensor = tensor >= 0 && fuzz_byte(in) % 8 ? &c->tensor[tensor] : NULL;
    else
        number->value.i = other_number(in, number->value.i);
}

static void change_value(struct corrupt *c, struct fuzz_input *in)
{
    const struct op_arg *arg = &op_of(c)->args[fuzz_below(in, count_arguments(c))];
    void *field = op_field(c->args, arg);
    static const double doubles[] = {0, -0.0, 1e-6, 0.5, 1, -1, 1e300, -1e300, 1.0 / 0.0, -1.0 / 0.0, 0.0 / 0.0};
    if (arg->kind == OP_DTYPE) {
        change_dtype(in, field);
    } else if (arg->kind == OP_NUMBER && arg->bytes == sizeof(double)) {
        int i = fuzz_below(in, 12);
        uint64_t bits = fuzz_bytes(in, 8);
        memcpy(field, i < 11 ? (const void *)&doubles[i] : &bits, sizeof bits);
    } else if ((arg->kind == OP_NUMBER || arg->kind == OP_INT) && arg->bytes == sizeof(flashinfer_number)) {
        change_number_struct(c, in, field);
    } else if ((arg->kind == OP_INT || arg->kind == OP_ENUM) && arg->bytes == sizeof(int32_t)) {
        *(int32_t *)field = (int32_t)other_number(in, *(int32_t *)field);
    } else if (arg->kind == OP_INT) {
        *(int64_t *)field = other_number(in, *(int64_t *)field);
    } else if (arg->kind >= OP_TEXT || arg->kind <= OP_INOUT) {
        *(void **)field = NULL;
    }
}

/* Not the checksum: a plan is guarded against accidents, not against those who make one. */
static void change_plan(struct corrupt *c, struct fuzz_input *in)
{
    int arg = c->right->problem->program->plan_arg;
    size_t at = fuzz_bytes(in, 2) % sizeof(flashinfer_plan);
    if (arg < 0)
        return;
    if (fuzz_byte(in) % 8 == 0)
        *(void **)op_field(c->args, &op_of(c)->args[arg]) = (char *)c->plan + at % 16;
    else if (at < offsetof(struct plan_blob, checksum) || at >= offsetof(struct plan_blob, symbol))
        ((unsigned char *)c->plan)[at] ^= fuzz_byte(in);
}

static void change_workspace(struct corrupt *c, struct fuzz_input *in)
{
    size_t less = fuzz_bytes(in, 2);
    less = less < c->exec.workspace_size ? less : c->exec.workspace_size;
    c->exec.workspace_size -= less;
    if (less % 16 == 0 && fuzz_byte(in) & 1)
        c->exec.workspace = NULL;
    else if (c->exec.workspace)
        c->exec.workspace = (char *)c->exec.workspace + less;
}

static void change_exec(struct corrupt *c, struct fuzz_input *in)
{
    const struct op_kernel *row = op_of(c)->kernels;
    int count = 0;
    switch (fuzz_below(in, 7)) {
    case 0:
        c->exec.flags = (uint32_t)fuzz_bytes(in, 1 + fuzz_below(in, 4));
        break;
    case 1:
        c->exec.threads = (int32_t)other_number(in, 0);
        break;
    case 2:
        c->exec.stream = c->plan;
        break;
    case 3:
        change_device(in, &c->exec.device);
        break;
    case 4:
        change_workspace(c, in);
        break;
    case 5:
        while (row[count].name)
            count++;
        c->exec.kernel = row[fuzz_below(in, count)].name;
        break;
    default:
        for (size_t i = 0; i + 1 < sizeof c->kernel; i++)
            c->kernel[i] = (char)fuzz_byte(in);
        c->exec.kernel = c->kernel;
    }
}

static void change_struct(struct corrupt *c, struct fuzz_input *in)
{
    bool of_exec = fuzz_byte(in) & 1;
    unsigned char *bytes = of_exec ? c->exec_bytes : c->args;
    size_t size = of_exec ? sizeof(flashinfer_exec) : op_of(c)->args_bytes;
    size_t given =
        fuzz_byte(in) & 1 ? size + fuzz_bytes(in, 2) % (CORRUPT_EXTRA_BYTES + 100) : (size_t)other_number(in, (int64_t)size);
    memcpy(bytes, &given, sizeof given);
    if (fuzz_byte(in) & 1)
        bytes[size + fuzz_bytes(in, 2) % CORRUPT_EXTRA_BYTES] = fuzz_byte(in);
}

void corrupt_once(struct corrupt *c, struct fuzz_input *in)
{
    int what = fuzz_below(in, 16);
    if (what < 9)
        change_tensor(c, in);
    else if (what < 12)
        change_value(c, in);
    else if (what < 13)
        change_plan(c, in);
    else if (what < 15)
        change_exec(c, in);
    else
        change_struct(c, in);
}
