/* SPDX-License-Identifier: Apache-2.0 */
/* Checks arguments that are values, and puts defaults in their place. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/status.h"
#include "core/text.h"
#include "op/check.h"

static void bind(struct check *c, int arg, int64_t value)
{
    check_bind(c, arg, c->program->arg[arg].symbol, value);
}

__attribute__((cold)) static flashinfer_status complain_range(const struct check *c, const struct op_arg *arg, const char *value)
{
    struct text rule = {0};
    if (isfinite(op_max(arg)))
        text_print(&rule, "%g to %g", arg->min, arg->max);
    else if (isinf(arg->min))
        text_print(&rule, "finite");
    else
        text_print(&rule, "at least %g%s", arg->min, arg->kind == OP_NUMBER ? " and finite" : "");
    flashinfer_status status = fail(FLASHINFER_INVALID, "%s: %s is %s, must be %s", c->op->name, arg->name, value,
                                    rule.data ? rule.data : "in its range");
    text_free(&rule);
    return status;
}

static bool in_range(const struct op_arg *arg, double value)
{
    return value >= arg->min && value <= op_max(arg) && fabs(value) <= DBL_MAX;
}

/* True if the number is a tensor, which is checked later. `status` says whether it is allowed to be what it is. */
static bool is_number_tensor(struct check *c, int i, const flashinfer_number *number, flashinfer_status *status)
{
    const struct op_arg *arg = &c->op->args[i];
    *status = FLASHINFER_OK;
    if (number->kind == FLASHINFER_NUMBER_TENSOR) {
        if (arg->flags & HOST)
            *status = fail(FLASHINFER_INVALID, "%s: %s is given as a tensor, must be given by value", c->op->name, arg->name);
        c->number_tensors |= UINT64_C(1) << i;
        return true;
    }
    if (number->kind < FLASHINFER_NUMBER_ABSENT || number->kind > FLASHINFER_NUMBER_TENSOR)
        *status = fail(FLASHINFER_INVALID, "%s: %s has kind %d, must be 0 (absent), 1 (int), 2 (float) or 3 (tensor)",
                       c->op->name, arg->name, (int)number->kind);
    return false;
}

static flashinfer_status check_double(const struct check *c, const struct op_arg *arg, double value)
{
    if (in_range(arg, value))
        return FLASHINFER_OK;
    char text[32];
    snprintf(text, sizeof text, "%g", value);
    return complain_range(c, arg, text);
}

/* True if it is not given, and its default, if it has one, is in its place. */
static inline bool number_is_default(struct check *c, const struct op_arg *arg)
{
    void *field = op_field(c->args, arg);
    if (arg->bytes == sizeof(double)) {
        if (*(double *)field != 0)
            return false;
        *(double *)field = arg->value;
        return true;
    }
    flashinfer_number *number = field;
    if (number->kind != FLASHINFER_NUMBER_ABSENT)
        return false;
    if (!(arg->flags & OPTIONAL))
        *number = (flashinfer_number)FLASHINFER_FLOAT(arg->value);
    return true;
}

static flashinfer_status check_number(struct check *c, int i)
{
    const struct op_arg *arg = &c->op->args[i];
    if (arg->bytes == sizeof(double))
        return check_double(c, arg, *(double *)op_field(c->args, arg));
    flashinfer_number *number = op_field(c->args, arg);
    flashinfer_status status;
    if (is_number_tensor(c, i, number, &status) || status)
        return status;
    *number = (flashinfer_number)FLASHINFER_FLOAT(number_value(number));
    return check_double(c, arg, number->value.f);
}

static flashinfer_status check_int_range(const struct check *c, const struct op_arg *arg, int64_t value)
{
    if (in_range(arg, (double)value))
        return FLASHINFER_OK;
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return complain_range(c, arg, text);
}

static int64_t default_int(const struct check *c, int i)
{
    int symbol = c->program->arg[i].value_of;
    return symbol >= 0 ? c->call->dim[symbol] : (int64_t)c->op->args[i].value;
}

static flashinfer_status check_int_number(struct check *c, int i, flashinfer_number *number)
{
    const struct op_arg *arg = &c->op->args[i];
    flashinfer_status status;
    if (number->kind == FLASHINFER_NUMBER_ABSENT) {
        if (!(arg->flags & OPTIONAL)) {
            *number = (flashinfer_number)FLASHINFER_INT(default_int(c, i));
            bind(c, i, number->value.i);
        }
        return FLASHINFER_OK;
    }
    if (is_number_tensor(c, i, number, &status) || status)
        return status;
    if (number->kind == FLASHINFER_NUMBER_FLOAT)
        return fail(FLASHINFER_INVALID, "%s: %s is the float %g, must be an integer", c->op->name, arg->name, number->value.f);
    bind(c, i, number->value.i);
    return check_int_range(c, arg, number->value.i);
}

static flashinfer_status check_int(struct check *c, int i)
{
    const struct op_arg *arg = &c->op->args[i];
    void *field = op_field(c->args, arg);
    if (arg->bytes == sizeof(flashinfer_number))
        return check_int_number(c, i, field);
    int64_t value;
    if (arg->bytes == sizeof(int32_t)) {
        int32_t *small = field;
        *small = *small ? *small : (int32_t)default_int(c, i);
        value = *small;
    } else {
        int64_t *large = field;
        *large = *large ? *large : default_int(c, i);
        value = *large;
    }
    bind(c, i, value);
    return check_int_range(c, arg, value);
}

__attribute__((cold)) static flashinfer_status complain_enum(const struct check *c, const struct op_arg *arg, int32_t value)
{
    struct text names = {0};
    const char *name;
    int length;
    for (int i = 0; (name = op_enum_name(arg, i, &length)); i++)
        text_print(&names, "%s%d (%.*s)", i ? ", " : "", i, length, name);
    flashinfer_status status = fail(FLASHINFER_INVALID, "%s: %s is %d, must be one of %s", c->op->name, arg->name, value,
                                    names.data ? names.data : arg->names);
    text_free(&names);
    return status;
}

static flashinfer_status check_enum(struct check *c, int i)
{
    const struct op_arg *arg = &c->op->args[i];
    int32_t *value = op_field(c->args, arg);
    if (*value == 0)
        *value = (int32_t)arg->value;
    if (*value < 0 || *value >= c->program->arg[i].num_names)
        return complain_enum(c, arg, *value);
    bind(c, i, *value);
    return FLASHINFER_OK;
}

/* What a DTYPE that is not given defaults to: another argument's, else the declared default. */
static DLDataType default_dtype(const struct check *c, int i)
{
    const struct program_arg *a = &c->program->arg[i];
    if (a->like_symbol >= 0)
        return dtype_dlpack((enum dtype)c->call->dim[a->like_symbol]);
    const DLTensor *like = a->like >= 0 ? op_tensor(c->args, &c->op->args[a->like]) : NULL;
    return like ? like->dtype : dtype_dlpack((enum dtype)c->op->args[i].value);
}

static flashinfer_status check_dtype(struct check *c, int i)
{
    const struct op_arg *arg = &c->op->args[i];
    DLDataType *field = op_field(c->args, arg);
    bool given = field->bits != 0;
    if (!given)
        *field = default_dtype(c, i);
    enum dtype dtype = dtype_of(*field);
    if (dtype == DTYPE_NONE && !given && arg->flags & OPTIONAL)
        return FLASHINFER_OK;
    if (dtype == DTYPE_NONE || (c->program->arg[i].dtypes && !(c->program->arg[i].dtypes >> dtype & 1))) {
        const DLTensor named = {.dtype = *field};
        return complain_dtype(c, i, &named);
    }
    bind(c, i, dtype);
    return FLASHINFER_OK;
}

static flashinfer_status check_pointer(struct check *c, int i)
{
    return *(void *const *)op_field(c->args, &c->op->args[i]) ? FLASHINFER_OK : check_absent(c, i);
}

__attribute__((noinline)) static flashinfer_status check_given(struct check *c, int arg)
{
    switch (c->op->args[arg].kind) {
    case OP_NUMBER:
        return check_number(c, arg);
    case OP_INT:
        return check_int(c, arg);
    case OP_ENUM:
        return check_enum(c, arg);
    case OP_DTYPE:
        return check_dtype(c, arg);
    default:
        return check_pointer(c, arg);
    }
}

flashinfer_status check_value(struct check *c, int arg)
{
    const struct op_arg *declared = &c->op->args[arg];
    return declared->kind == OP_NUMBER && number_is_default(c, declared) ? FLASHINFER_OK : check_given(c, arg);
}
