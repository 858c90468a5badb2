/* SPDX-License-Identifier: Apache-2.0 */
/* From named shapes to specialisations. */
#include <stdio.h>
#include <string.h>

#include "harness/placement.h"
#include "harness/specs.h"

static bool takes_text(const char *name)
{
    return strlen(name) > 6 && !strcmp(name + strlen(name) - 6, ":dtype");
}

void specs_constants(const struct jit_spec *spec, char *text, size_t size)
{
    size_t length = 0;
    text[0] = 0;
    for (int i = 0; i < JIT_MAX_CONSTANTS && spec->kernel->constants[i] && length < size; i++) {
        const char *name = spec->kernel->constants[i], *gap = i ? " " : "";
        length += takes_text(name) ? (size_t)snprintf(text + length, size - length, "%s%.*s=%s", gap, (int)strlen(name) - 6, name,
                                                      dtype_name((enum dtype)spec->constant[i]))
                                   : (size_t)snprintf(text + length, size - length, "%s%s=%d", gap, name, (int)spec->constant[i]);
    }
}

/* Reports what a row launches for the call, under these flags. False if it does not serve it. */
static bool walk_row(const struct specs_walk *w, const char *shape, struct call *call, const struct op_kernel *row,
                     uint32_t flags)
{
    struct way way;
    call->exec.flags = flags;
    if (call_fit(call, row, &way))
        return false;
    for (int i = 0; i < way.num_specs; i++)
        w->found(w->context, row, shape, &way.spec[i]);
    return true;
}

/* Whether a row serves the call. All rows are wanted as a caller that names them would have them: serving what they can. */
static bool walk_call(const struct specs_walk *w, const char *shape, struct call *call)
{
    bool served = false;
    for (const struct op_kernel *row = w->op->kernels; row && row->name && !(served && w->chosen_only); row++) {
        call->exec.kernel = w->chosen_only ? w->kernel : row->name;
        if (!w->kernel || !strcmp(w->kernel, row->name))
            served |= walk_row(w, shape, call, row, 0) && walk_row(w, shape, call, row, FLASHINFER_PDL);
    }
    call->exec.flags = 0;
    return served;
}

/* Why no row does. */
static flashinfer_status unserved(const struct specs_walk *w, struct call *call)
{
    const struct op_kernel *row;
    struct way way;
    call->exec.kernel = w->kernel;
    return call_pick(call, &row, &way);
}

/* instead: as in struct problem_request. */
static flashinfer_status walk_values(const struct specs_walk *w, const char *shape, const char *values, const char *instead)
{
    const struct problem_request request = {.op = w->op, .values = values, .instead = instead, .without_values = true};
    struct problem *problem;
    struct placement *placement;
    struct call call;
    TRY(problem_create(&request, &problem));
    flashinfer_status status = placement_create(problem, w->device, &placement);
    if (!status) {
        status = placement_check(placement, &call);
        if (!status && !walk_call(w, shape, &call))
            status = unserved(w, &call);
        placement_destroy(placement);
    }
    problem_destroy(problem);
    return status;
}

flashinfer_status specs_walk_values(const struct specs_walk *w, const char *values)
{
    const struct op_shape *shapes = w->op->shapes;
    TRY(op_validate(w->op));
    return walk_values(w, "", shapes ? shapes->values : NULL, values);
}

/* Appends each dtype of each open argument in turn to `dtypes`. Combinations that the op does not define are passed over. */
static void walk_dtypes(const struct specs_walk *w, const struct op_shape *shape, const struct op *op, int arg,
                        const char *dtypes)
{
    while (op->args[arg].kind != OP_END && !op_dtype_is_open(&op->args[arg]))
        arg++;
    if (op->args[arg].kind == OP_END) {
        if (op == w->op)
            walk_values(w, shape->name, shape->values, dtypes);
        else
            walk_dtypes(w, shape, w->op, 0, dtypes);
        return;
    }
    const struct op_arg *a = &op->args[arg];
    bool follows = a->dtype.like && (op_is_tensor(a) || !w->all_dtypes);
    if (follows)
        walk_dtypes(w, shape, op, arg + 1, dtypes);
    if (follows && a->kind == OP_DTYPE)
        return;
    for (int dtype = 1; dtype < DTYPE_COUNT; dtype++) {
        char more[PROBLEM_MAX_TEXT];
        if (!(a->dtype.set >> dtype & 1))
            continue;
        snprintf(more, sizeof more, a->kind == OP_DTYPE ? "%s %s=%s" : "%s %s:dtype=%s", dtypes, a->name,
                 dtype_name((enum dtype)dtype));
        walk_dtypes(w, shape, op, arg + 1, more);
    }
}

void specs_walk(const struct specs_walk *w)
{
    if (op_validate(w->op)) {
        w->failed(w->context, NULL, flashinfer_last_error());
        return;
    }
    for (const struct op_shape *shape = w->op->shapes; shape && shape->name; shape++) {
        flashinfer_status status = walk_values(w, shape->name, shape->values, NULL);
        /* A plan that no kernel serves on that device is no defect of the shape. */
        if (status && status != FLASHINFER_UNSUPPORTED)
            w->failed(w->context, shape->name, flashinfer_last_error());
        else if (w->all_dtypes || w->own_dtypes)
            walk_dtypes(w, shape, w->op->plan ? w->op->plan : w->op, 0, "");
    }
}
