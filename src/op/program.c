/* SPDX-License-Identifier: Apache-2.0 */
/* Questions asked of a compiled declaration, and access to the fields of an op's struct. */
#include "op/program.h"

#include <stdlib.h>
#include <string.h>

#include "op/program_compile.h"

const struct program *op_program(const struct op *op)
{
    const struct program *program = atomic_load_explicit(op->compiled, memory_order_acquire);
    if (program)
        return program;
    struct program *made = program_compile(op);
    if (!made)
        return NULL;
    if (!atomic_compare_exchange_strong_explicit(op->compiled, &program, made, memory_order_acq_rel, memory_order_acquire)) {
        free(made);
        return program;
    }
    return made;
}

int program_symbol(const struct program *program, const char *name)
{
    for (int i = 0; i < program->num_symbols; i++)
        if (!strcmp(program->symbol[i].name, name))
            return i;
    return -1;
}

int program_argument(const struct program *program, const char *name)
{
    for (int i = 0; i < program->num_args; i++)
        if (!strcmp(program->op->args[i].name, name))
            return i;
    return -1;
}

bool program_shape(const struct program *program, int arg, const int64_t *dim, const int64_t *leading, int num_leading,
                   int64_t shape[TENSOR_MAX_DIMS], int *ndim)
{
    const struct program_arg *a = &program->arg[arg];
    int64_t choice = a->by >= 0 ? dim[a->by] : 0;
    if (a->first_shape < 0 || choice < 0 || choice >= a->num_shapes)
        return false;
    const struct program_alternative *alternative = &program->shapes[a->first_shape + choice];
    int n = alternative->leading ? num_leading : 0;
    if (n + alternative->count > TENSOR_MAX_DIMS)
        return false;
    for (int i = 0; i < n; i++)
        shape[i] = leading[i];
    for (int i = 0; i < alternative->count; i++)
        if (!expression_evaluate(&program->axes[alternative->first + i], dim, &shape[n + i]) || shape[n + i] < 0)
            return false;
    *ndim = n + alternative->count;
    return true;
}

uint64_t program_dimensions(const struct program *program, int arg)
{
    const struct program_arg *a = &program->arg[arg];
    uint64_t named = 0;
    for (int choice = 0; a->first_shape >= 0 && choice < a->num_shapes; choice++) {
        const struct program_alternative *alternative = &program->shapes[a->first_shape + choice];
        for (int i = 0; i < alternative->count; i++)
            named |= program->axes[alternative->first + i].symbols;
    }
    for (int i = 0; i < program->num_symbols; i++)
        if (program->symbol[i].arg >= 0)
            named &= ~(UINT64_C(1) << i);
    return named;
}

uint64_t program_told_by_plan(const struct program *program, uint64_t known)
{
    uint64_t told = 0;
    if (!(program->plan_symbols & ~known))
        return program->told_by_plan;
    for (int i = 0; i < program->num_from_plan; i++)
        told |= (known >> program->from_plan[i].plan_symbol & 1) << program->from_plan[i].symbol;
    return told;
}

bool program_required(const struct program *program, int arg, const int64_t *dim)
{
    int64_t holds;
    if (!(program->op->args[arg].flags & OPTIONAL))
        return true;
    int condition = program->arg[arg].required_if;
    return condition >= 0 && expression_evaluate(&program->conditions[condition], dim, &holds) && holds;
}

bool program_rule_holds(const struct program *program, int rule, const int64_t *dim, uint64_t bound)
{
    const struct expression *expression = &program->rules[rule];
    int64_t holds;
    return (expression->symbols & ~bound) || (expression_evaluate(expression, dim, &holds) && holds);
}

const char *op_enum_name(const struct op_arg *arg, int64_t value, int *length)
{
    const char *name = arg->names;
    for (int64_t i = 0; name && *name; i++) {
        *length = (int)strcspn(name, " ");
        if (i == value)
            return name;
        name += *length + strspn(name + *length, " ");
    }
    *length = -1;
    return NULL;
}

int op_enum_value(const struct op_arg *arg, const char *name, int length)
{
    int at_length;
    const char *at;
    for (int i = 0; (at = op_enum_name(arg, i, &at_length)); i++)
        if (at_length == length && !memcmp(at, name, (size_t)length))
            return i;
    return -1;
}

DLTensor *op_tensor(const void *args, const struct op_arg *arg)
{
    const void *field = op_field_const(args, arg);
    if (op_is_tensor(arg))
        return *(DLTensor *const *)field;
    if (arg->bytes != sizeof(flashinfer_number) || (arg->kind != OP_NUMBER && arg->kind != OP_INT))
        return NULL;
    const flashinfer_number *number = field;
    return number->kind == FLASHINFER_NUMBER_TENSOR ? (DLTensor *)(uintptr_t)number->value.tensor : NULL;
}

void op_set_tensor(void *args, const struct op_arg *arg, DLTensor *tensor)
{
    if (op_is_tensor(arg))
        *(DLTensor **)op_field(args, arg) = tensor;
    else
        *(flashinfer_number *)op_field(args, arg) = (flashinfer_number)FLASHINFER_TENSOR(tensor);
}

void op_set_number(void *args, const struct op_arg *arg, double value)
{
    if (arg->bytes == sizeof(double))
        *(double *)op_field(args, arg) = value;
    else
        *(flashinfer_number *)op_field(args, arg) = (flashinfer_number)FLASHINFER_FLOAT(value);
}

void op_set_int(void *args, const struct op_arg *arg, int64_t value)
{
    void *field = op_field(args, arg);
    if (arg->bytes == sizeof(int32_t))
        *(int32_t *)field = (int32_t)value;
    else if (arg->bytes == sizeof(int64_t))
        *(int64_t *)field = value;
    else
        *(flashinfer_number *)field = (flashinfer_number)FLASHINFER_INT(value);
}
