/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations as such: whether one makes sense beyond what compiling it shows, and new ones made from old. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "op/plan.h"

static bool is_output(const struct op_arg *arg)
{
    return arg->kind == OP_OUT || arg->kind == OP_INOUT || arg->is_output;
}

/* A dimension or argument of the op, or of its plan. */
static bool is_known(const struct program *program, const char *name)
{
    if (program_symbol(program, name) >= 0 || program_argument(program, name) >= 0)
        return true;
    return program->op->plan && is_known(op_program(program->op->plan), name);
}

static flashinfer_status wrong(const struct op *op, const char *format, ...) __attribute__((format(printf, 2, 3)));

static flashinfer_status wrong(const struct op *op, const char *format, ...)
{
    char sentence[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return fail(FLASHINFER_INTERNAL, "the declaration of %s is wrong: %s", op->name, sentence);
}

static flashinfer_status validate_value(const struct op *op, const struct op_arg *arg)
{
    bool ranged = arg->kind == OP_NUMBER || arg->kind == OP_INT;
    if (ranged && op_max(arg) < arg->min)
        return wrong(op, "%s: max is less than min", arg->name);
    bool has_default = arg->value != 0 || arg->bytes == sizeof(flashinfer_number);
    if (ranged && has_default && !(arg->flags & OPTIONAL) && (arg->value < arg->min || arg->value > op_max(arg)))
        return wrong(op, "%s: the default is out of range", arg->name);
    return FLASHINFER_OK;
}

/* The dimensions of an argument that nothing else gives a meaning. What no call tells apart from a misspelt name is taken for
 * one: kernels and references would read past the end of a tensor whose size is another than they think. */
static uint64_t strange_dimensions(const struct program *program, int arg)
{
    const struct op *op = program->op;
    const bool output = op->args[arg].kind == OP_OUT;
    uint64_t strange = program_dimensions(program, arg);
    for (int i = 0; i < program->num_symbols; i++)
        if (i < program->num_dims || program->symbol[i].plan_symbol >= 0)
            strange &= ~(UINT64_C(1) << i);
    for (int i = 0; i < program->num_args; i++)
        if (i != arg && (!output || op->args[i].kind != OP_OUT))
            strange &= ~program_dimensions(program, i);
    if (output)
        return strange;
    for (int i = 0; i < program->num_rules; i++)
        strange &= ~program->rules[i].symbols;
    for (int i = 0; i < program->num_args; i++)
        if (op->args[i].fill.of && program_symbol(program, op->args[i].fill.of) >= 0)
            strange &= ~(UINT64_C(1) << program_symbol(program, op->args[i].fill.of));
    for (const struct op_range *range = op->ranges; range && range->name; range++)
        if (program_symbol(program, range->name) >= 0)
            strange &= ~(UINT64_C(1) << program_symbol(program, range->name));
    return strange;
}

static flashinfer_status validate_dimensions(const struct program *program, int arg)
{
    const struct op_arg *declared = &program->op->args[arg];
    const uint64_t strange = strange_dimensions(program, arg);
    if (!strange)
        return FLASHINFER_OK;
    const char *name = program->symbol[__builtin_ctzll(strange)].name;
    if (declared->kind == OP_OUT)
        return wrong(program->op, "%s has a dimension %s, which no input has and DIMS does not name", declared->name, name);
    return wrong(program->op, "%s has a dimension %s, which nothing else names: no other argument, DIMS, rule, fill or range",
                 declared->name, name);
}

static flashinfer_status validate_argument(const struct program *program, const struct op_arg *arg)
{
    const struct op *op = program->op;
    if (arg > op->args && is_output(arg) && !is_output(arg - 1))
        return wrong(op, "%s is an output and stands behind %s, which is none", arg->name, arg[-1].name);
    if (arg->required_if && !(arg->flags & OPTIONAL))
        return wrong(op, "%s has a condition but is not OPTIONAL", arg->name);
    if (arg->may_alias && !is_output(arg))
        return wrong(op, "%s may alias but is not written", arg->name);
    if (arg->fill.of && !is_known(program, arg->fill.of))
        return wrong(op, "the values of %s are bounded by %s, which is unknown", arg->name, arg->fill.of);
    if (!op->variant) /* whose further arguments may have dimensions of their own */
        TRY(validate_dimensions(program, (int)(arg - op->args)));
    return validate_value(op, arg);
}

/* A field that no argument describes would be ignored; bindings give arguments by their order, which is the struct's. */
static flashinfer_status validate_fields(const struct op *op)
{
    int64_t end = sizeof(size_t);
    const char *before = "size";
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        if (arg > op->args && arg->offset < arg[-1].offset)
            return wrong(op, "%s stands behind %s in the table, and before it in the struct", arg->name, arg[-1].name);
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++) {
        int64_t alignment = arg->bytes < 8 ? arg->bytes : 8;
        if (arg->offset > ceil_div(end, alignment) * alignment)
            return wrong(op, "the struct has a field behind %s that is not in the table", before);
        end = arg->offset + arg->bytes;
        before = arg->name;
    }
    if ((int64_t)op->args_bytes > ceil_div(end, 8) * 8)
        return wrong(op, "the struct has a field behind %s that is not in the table", before);
    return FLASHINFER_OK;
}

/* Plans are judged by the runs of the op that reads them. */
static flashinfer_status validate_kernels(const struct op *op)
{
    for (const struct op_kernel *row = op->kernels; row && row->name; row++) {
        if (!row->fit || !row->run)
            return wrong(op, "kernel %s lacks fit or run", row->name);
        if (row->target != OP_ANYWHERE && !op->reference && !op->verify)
            return wrong(op, "%s has neither reference nor verify", op->name);
    }
    return FLASHINFER_OK;
}

flashinfer_status op_validate(const struct op *op)
{
    const struct program *program = op_program(op);
    if (!program)
        return FLASHINFER_INTERNAL;
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        TRY(validate_argument(program, arg));
    for (const struct op_range *range = op->ranges; range && range->name; range++) {
        if (!is_known(program, range->name))
            return wrong(op, "ranges name %s, which is no dimension or number of %s", range->name, op->name);
        if (range->lo > range->hi)
            return wrong(op, "the range of %s is empty", range->name);
    }
    bool makes_plan = program->plan_arg >= 0 && op->args[program->plan_arg].is_output;
    if (makes_plan && program->num_symbols > PLAN_MAX_SYMBOLS)
        return wrong(op, "a plan keeps at most %d dimensions and integers", PLAN_MAX_SYMBOLS);
    if (op->plan && (program->plan_arg < 0 || makes_plan))
        return wrong(op, "it names the op that makes its plan, but reads no plan");
    if (!op->variant) /* whose further outputs stand in the struct behind all else */
        TRY(validate_fields(op));
    return validate_kernels(op);
}

enum { FIELD_BYTES = 8 /* of an argument that op_extend adds */ };

/* An op made at run time, with all that it points to. */
struct extended {
    struct op op;
    _Atomic(const struct program *) compiled;
    uint64_t own; /* bit i: the texts of args[i] are ours */
    struct op_arg args[OP_MAX_ARGS + 1];
};

/* NULL stays NULL; running out of memory clears *good. */
static const char *keep(const char *text, bool *good)
{
    char *copy = text ? strdup(text) : NULL;
    *good &= !text || copy;
    return copy;
}

static bool keep_texts(struct op_arg *arg)
{
    bool good = true;
    arg->name = keep(arg->name, &good);
    arg->dtype.like = keep(arg->dtype.like, &good);
    arg->shape = keep(arg->shape, &good);
    arg->by = keep(arg->by, &good);
    arg->may_alias = keep(arg->may_alias, &good);
    arg->names = keep(arg->names, &good);
    arg->required_if = keep(arg->required_if, &good);
    arg->fill.of = keep(arg->fill.of, &good);
    return good;
}

void op_extend_end(struct op *op)
{
    struct extended *made = (struct extended *)op;
    for (uint64_t left = made ? made->own : 0; left; left &= left - 1) {
        const struct op_arg *arg = &made->args[__builtin_ctzll(left)];
        const char *const texts[] = {arg->name,      arg->dtype.like, arg->shape,       arg->by,
                                     arg->may_alias, arg->names,      arg->required_if, arg->fill.of};
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            free((char *)(uintptr_t)texts[i]);
    }
    if (made) {
        free((struct program *)(uintptr_t)atomic_load(&made->compiled));
        free((char *)(uintptr_t)made->op.name);
    }
    free(made);
}

/* The base's arguments and the further ones, outputs first. */
static bool merge_arguments(struct extended *made, const struct op *base, const struct op_arg *extra, int num_extra)
{
    bool good = true;
    int count = 0;
    for (int outputs = 1; outputs >= 0; outputs--) {
        for (const struct op_arg *arg = base->args; arg->kind != OP_END; arg++)
            if (is_output(arg) == outputs)
                made->args[count++] = *arg;
        for (int i = 0; i < num_extra; i++) {
            if (is_output(&extra[i]) != outputs)
                continue;
            struct op_arg *arg = &made->args[count];
            *arg = extra[i];
            arg->offset = (uint16_t)(base->args_bytes + (size_t)i * FIELD_BYTES);
            arg->bytes = FIELD_BYTES;
            good &= keep_texts(arg);
            made->own |= UINT64_C(1) << count++;
        }
    }
    made->op.args_bytes = base->args_bytes + (size_t)num_extra * FIELD_BYTES;
    return good;
}

flashinfer_status op_extend(const struct op *base, const char *name, const struct op_arg *extra, int num_extra, struct op **out)
{
    int count = 0;
    while (base->args[count].kind != OP_END)
        count++;
    if (num_extra < 0 || count + num_extra > OP_MAX_ARGS ||
        base->args_bytes + (size_t)num_extra * FIELD_BYTES > OP_MAX_ARGS_BYTES)
        return fail(FLASHINFER_INVALID, "%s: %d further arguments to the %d of %s are more than %d, or than %d bytes", name,
                    num_extra, count, base->name, OP_MAX_ARGS, OP_MAX_ARGS_BYTES);
    struct extended *made = calloc(1, sizeof *made);
    if (!made)
        return fail(FLASHINFER_MEMORY, "%s: out of memory", name);
    bool good = true;
    made->op = *base;
    made->op.name = keep(name, &good);
    made->op.args = made->args;
    made->op.compiled = &made->compiled;
    good &= merge_arguments(made, base, extra, num_extra);
    if (good && op_program(&made->op)) {
        *out = &made->op;
        return FLASHINFER_OK;
    }
    op_extend_end(&made->op);
    return good ? fail(FLASHINFER_INVALID, "%s", flashinfer_last_error()) : fail(FLASHINFER_MEMORY, "%s: out of memory", name);
}
