/* SPDX-License-Identifier: Apache-2.0 */
/* call_check: walks a declaration over a call's arguments and refuses what the op does not define. */
#include "op/check.h"

#include <string.h>

#include "core/status.h"
#include "op/plan.h"

enum {
    MAX_EXTRA_BYTES = 4096
}; /* by which a later version's struct may be larger than ours; beyond, its size is taken for garbage */

/* Copies a caller's struct, which may be of an earlier version (missing fields are zero) or of a later one (the fields that we do
 * not know must be zero). */
static flashinfer_status copy_struct(const char *op, const char *what, void *to, size_t to_bytes, const void *from)
{
    size_t size = *(const size_t *)from;
    if (size == to_bytes) {
        memcpy(to, from, to_bytes);
        return FLASHINFER_OK;
    }
    /* No version's struct ends amid 8 bytes; half a pointer would be read. */
    if (size < sizeof size || size % sizeof size || size > to_bytes + MAX_EXTRA_BYTES)
        return fail(FLASHINFER_INVALID, "%s: %s.size is %zu, must be the size of its struct, %zu", op, what, size, to_bytes);
    for (size_t i = to_bytes; i < size; i++)
        if (((const unsigned char *)from)[i])
            return fail(FLASHINFER_INVALID,
                        "%s: %s.size is %zu, and a field that this version, whose size is %zu, does not know is set", op, what,
                        size, to_bytes);
    size_t known = size < to_bytes ? size : to_bytes;
    memcpy(to, from, known);
    memset((char *)to + known, 0, to_bytes - known);
    memcpy(to, &to_bytes, sizeof to_bytes);
    return FLASHINFER_OK;
}

static flashinfer_status check_exec(struct check *c, const flashinfer_exec *exec)
{
    flashinfer_exec *own = &c->call->exec;
    if (!exec) {
        memset(own, 0, sizeof *own);
        return FLASHINFER_OK;
    }
    TRY(copy_struct(c->op->name, "exec", own, sizeof *own, exec));
    if (own->flags & ~(uint32_t)(FLASHINFER_PDL | FLASHINFER_BATCH_INVARIANT))
        return fail(FLASHINFER_INVALID, "%s: exec.flags is %#x, must be made of FLASHINFER_PDL and FLASHINFER_BATCH_INVARIANT",
                    c->op->name, own->flags);
    if (own->threads < 0)
        return fail(FLASHINFER_INVALID, "%s: exec.threads is %d, must not be negative", c->op->name, (int)own->threads);
    return FLASHINFER_OK;
}

/* Takes over what the plan knows of dimensions and integers. */
static flashinfer_status check_plan(struct check *c, int arg)
{
    const struct op_arg *declared = &c->op->args[arg];
    const flashinfer_plan *plan = *(const flashinfer_plan *const *)op_field(c->args, declared);
    const struct plan_blob *blob;
    if (!plan)
        return complain_missing(c, arg, NULL);
    if ((uintptr_t)plan % _Alignof(flashinfer_plan))
        return fail(FLASHINFER_INVALID, "%s: %s begins at %p, must be a multiple of %d bytes", c->op->name, declared->name,
                    (const void *)plan, (int)_Alignof(flashinfer_plan));
    if (declared->is_output)
        return FLASHINFER_OK;
    TRY(plan_read(c->op, plan, &blob));
    c->call->plan = blob->constants;
    const struct program *program = c->program;
    for (int i = 0; i < program->num_from_plan; i++) /* 0 where the plan knows none */
        c->call->dim[program->from_plan[i].symbol] = blob->symbol[program->from_plan[i].plan_symbol];
    c->call->bound |= program_told_by_plan(program, blob->bound);
    return FLASHINFER_OK;
}

static flashinfer_status check_arguments(struct check *c)
{
    const struct program *program = c->program;
    const uint8_t *at = program->order, *tensors = at + program->num_values, *end = at + program->num_args;
    for (; at < tensors; at++)
        TRY(program->arg[*at].kind == OP_PLAN ? check_plan(c, *at) : check_value(c, *at));
    for (;; at++) {
        at = c->elsewhere ? at : check_plain_tensors(c, at, end);
        if (at == end)
            break;
        const DLTensor *tensor = *(const DLTensor *const *)(c->args + program->arg[*at].offset);
        TRY(tensor ? check_tensor(c, *at, tensor, false) : check_absent(c, *at));
    }
    if (c->number_tensors)
        TRY(check_number_tensors(c));
    return c->deferred ? check_deferred(c) : FLASHINFER_OK;
}

static flashinfer_status check_conditions(const struct check *c)
{
    const struct program *program = c->program;
    const struct call *call = c->call;
    for (int i = 0; i < program->num_rules; i++)
        if (!program_rule_holds(program, i, call->dim, call->bound))
            return complain_rule(c, &program->rules[i]);
    for (uint64_t left = c->absent & program->conditional; left; left &= left - 1) {
        int arg = __builtin_ctzll(left);
        const struct expression *condition = &program->conditions[program->arg[arg].required_if];
        if (condition->symbol >= 0 && !call->dim[condition->symbol])
            continue;
        if (program_required(program, arg, call->dim))
            return complain_missing(c, arg, condition);
    }
    return FLASHINFER_OK;
}

static flashinfer_status resolve_device(struct check *c)
{
    DLDevice wanted = device_canonical(c->call->exec.device), found = c->device_arg >= 0 ? c->device : wanted;
    char given[40], other[40];
    if (found.device_type == 0)
        return fail(FLASHINFER_INVALID, "%s: exec.device is not given, must name the device, since no argument tells it",
                    c->op->name);
    if (wanted.device_type != 0 && !device_equal(wanted, found))
        return fail(FLASHINFER_INVALID, "%s: exec.device is %s, must be %s as %s", c->op->name,
                    device_text(wanted, given, sizeof given), device_text(found, other, sizeof other),
                    c->op->args[c->device_arg].name);
    flashinfer_status status = device_get(found, &c->call->device);
    return status ? fail(status, "%s: %s", c->op->name, flashinfer_last_error()) : FLASHINFER_OK;
}

/* The device, and what depends on it. */
static flashinfer_status check_where(struct check *c, const struct device *device)
{
    struct call *call = c->call;
    call->device = device;
    if (!device)
        TRY(resolve_device(c));
    if (call->exec.stream && call->device->id.device_type == kDLCPU)
        return fail(FLASHINFER_INVALID, "%s: exec.stream is %p, must be NULL on the CPU", c->op->name, call->exec.stream);
    if (!call->plan || device)
        return FLASHINFER_OK;
    const struct plan_blob *blob = (const void *)((const char *)call->plan - offsetof(struct plan_blob, constants));
    char planned[40], here[40];
    if (device_equal(blob->device, call->device->id))
        return FLASHINFER_OK;
    return fail(FLASHINFER_FOREIGN_PLAN, "%s: %s was made for %s, must be made for %s", c->op->name,
                c->op->args[c->program->plan_arg].name, device_text(blob->device, planned, sizeof planned),
                device_text(call->device->id, here, sizeof here));
}

flashinfer_status call_check(struct call *call, const struct op *op, const void *args, const flashinfer_exec *exec, bool loosely,
                             const struct device *device)
{
    const struct program *program = op_program(op);
    struct check c; /* not initialised as a whole: it is large, and most of it is written before it is read */
    if (!program)
        return FLASHINFER_INTERNAL;
    if (!args)
        return fail(FLASHINFER_INVALID, "%s: args is NULL, must point to a struct flashinfer_%s", op->name, op->name);
    call->op = op;
    call->program = program;
    call->args = call->storage;
    call->plan = NULL;
    call->replay = NULL;
    call->bound = UINT64_C(1) << SYMBOL_ZERO;
    memset(call->dim, 0, (size_t)program->num_symbols * sizeof *call->dim);
    call->dim[SYMBOL_ZERO] = 0;
    c.call = call;
    c.program = program;
    c.op = op;
    c.args = call->storage;
    c.loosely = loosely;
    c.elsewhere = device != NULL;
    c.has_output = c.has_elements = false;
    c.device_arg = c.leading_arg = -1;
    c.absent = c.number_tensors = c.deferred = 0;
    c.num_read = c.num_written = 0;
    memset(c.source, CHECK_FROM_PLAN, sizeof c.source);
    TRY(copy_struct(op->name, "args", call->storage, op->args_bytes, args));
    TRY(check_exec(&c, exec));
    TRY(check_arguments(&c));
    TRY(check_conditions(&c));
    TRY(check_where(&c, device));
    if (op->view)
        op->view(call->args, call->view);
    call->empty = c.has_output && !c.has_elements && !(program->plan_arg >= 0 && op->args[program->plan_arg].is_output);
    return FLASHINFER_OK;
}
