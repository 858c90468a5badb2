/* SPDX-License-Identifier: Apache-2.0 */
/* From named shapes to specialisations. */
#include <stdio.h>
#include <string.h>

#include "harness/placement.h"
#include "harness/specs.h"

struct walk {
    const struct op *op;
    const struct device *device;
    const char *shape;
    void (*found)(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec);
    void *context;
};

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
        length += takes_text(name) ? (size_t)snprintf(text + length, size - length, "%s%.*s=%s", gap,
                                                      (int)strlen(name) - 6, name,
                                                      dtype_name((enum dtype)spec->constant[i]))
                                   : (size_t)snprintf(text + length, size - length, "%s%s=%d", gap, name,
                                                      (int)spec->constant[i]);
    }
}

static void walk_call(const struct walk *w, const struct call *call)
{
    for (const struct op_kernel *row = w->op->kernels; row && row->name; row++) {
        struct way way;
        if (call_fit(call, row, &way))
            continue;
        for (int i = 0; i < way.num_specs; i++)
            w->found(w->context, row, w->shape, &way.spec[i]);
    }
}

/* Combinations that the op does not define are passed over. */
static void walk_values(const struct walk *w, const char *values)
{
    const struct problem_request request = {.op = w->op, .values = values, .without_values = true};
    struct problem *problem;
    struct placement *placement;
    struct call call;
    if (problem_create(&request, &problem))
        return;
    if (!placement_create(problem, w->device, &placement)) {
        if (!placement_check(placement, &call))
            walk_call(w, &call);
        placement_destroy(placement);
    }
    problem_destroy(problem);
}

/* Appends each dtype of each open argument in turn. */
static void walk_dtypes(const struct walk *w, const struct op *op, int arg, const char *values)
{
    while (op->args[arg].kind != OP_END && !(op->args[arg].dtype.set & (op->args[arg].dtype.set - 1)))
        arg++;
    if (op->args[arg].kind == OP_END) {
        if (op == w->op)
            walk_values(w, values);
        else
            walk_dtypes(w, w->op, 0, values);
        return;
    }
    for (int dtype = 1; dtype < DTYPE_COUNT; dtype++) {
        char more[PROBLEM_MAX_TEXT];
        const struct op_arg *a = &op->args[arg];
        if (!(a->dtype.set >> dtype & 1))
            continue;
        snprintf(more, sizeof more, a->kind == OP_DTYPE ? "%s %s=%s" : "%s %s:dtype=%s", values, a->name,
                 dtype_name((enum dtype)dtype));
        walk_dtypes(w, op, arg + 1, more);
    }
}

void specs_walk(const struct op *op, const struct device *device, bool all_dtypes,
                void (*found)(void *context, const struct op_kernel *row, const char *shape,
                              const struct jit_spec *spec),
                void *context)
{
    for (const struct op_shape *shape = op->shapes; shape && shape->name; shape++) {
        const struct walk w = {op, device, shape->name, found, context};
        if (all_dtypes)
            walk_dtypes(&w, op->plan ? op->plan : op, 0, shape->values);
        else
            walk_values(&w, shape->values);
    }
}
