/* SPDX-License-Identifier: Apache-2.0 */
/* Values, shapes and rules of an accepted call, judged from the declaration's text. Memory is judged in oracle_memory.c. */
#include "tests/fuzz/oracle.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/grammar.h"
#include "tests/fuzz/oracle_memory.h"

static char sentence[300];

__attribute__((format(printf, 1, 2))) static const char *wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return sentence;
}

#define JUDGE(call)             \
    do {                        \
        const char *why = call; \
        if (why)                \
            return why;         \
    } while (0)

struct names {
    const struct call *call;
    bool all_known;
};

static bool look_up(void *context, const char *name, int length, int64_t *value)
{
    struct names *names = context;
    const struct program *program = names->call->program;
    for (int i = 0; i < program->num_symbols; i++)
        if ((int)strlen(program->symbol[i].name) == length && !memcmp(program->symbol[i].name, name, (size_t)length)) {
            names->all_known = names->all_known && names->call->bound >> i & 1;
            *value = names->call->dim[i];
            return true;
        }
    return false;
}

static enum grammar_outcome evaluate(const struct call *call, const char *text, int length, int64_t *value, bool *all_known)
{
    struct names names = {call, true};
    enum grammar_outcome outcome = grammar_evaluate(text, length, look_up, &names, value);
    *all_known = names.all_known;
    return outcome;
}

static const struct op_arg *find(const struct op *op, const char *name)
{
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        if (!strcmp(arg->name, name))
            return arg;
    return op->plan ? find(op->plan, name) : NULL;
}

/* The name of the value that the ENUM `by` has in this call. */
static const char *label_of(const struct call *call, const char *by, int *length)
{
    int64_t value = 0;
    bool known;
    const struct op_arg *arg = find(call->op, by);
    evaluate(call, by, (int)strlen(by), &value, &known);
    const char *name = arg ? arg->names : "";
    for (int64_t i = 0; i < value && *name; i++)
        name += strcspn(name, " ") + (strchr(name, ' ') != NULL);
    *length = (int)strcspn(name, " ");
    return name;
}

struct leading {
    const DLTensor *tensor; /* that first had leading axes */
    int count;
};

static const char *judge_leading(const struct call *call, const struct op_arg *arg, const DLTensor *t, int count,
                                 struct leading *leading)
{
    int64_t rows = 1, told;
    bool known;
    if (!leading->tensor)
        *leading = (struct leading){t, count};
    if (count != leading->count)
        return wrong("%s has %d leading axes, not %d", arg->name, count, leading->count);
    for (int i = 0; i < count; i++) {
        rows *= t->shape[i];
        if (t->shape[i] != leading->tensor->shape[i])
            return wrong("%s has other leading axes", arg->name);
    }
    evaluate(call, "rows", 4, &told, &known);
    return known && told == rows ? NULL : wrong("rows is %lld by %s", (long long)rows, arg->name);
}

static const char *judge_shape(const struct call *call, const struct op_arg *arg, const DLTensor *t, struct leading *leading)
{
    const char *text, *axis;
    int label_length = 0, left, length, axes = 0;
    bool has_leading = false, known;
    const char *label = arg->by ? label_of(call, arg->by, &label_length) : NULL;
    if (!grammar_alternative(arg->shape, label, label_length, &text, &left))
        return wrong("%s has no shape for %.*s", arg->name, label_length, label);
    const char *count_text = text;
    for (int count_left = left; grammar_axis(&count_text, &count_left, &axis, &length); axes++)
        if (length == 3 && !memcmp(axis, "...", 3))
            has_leading = true, axes--;
    int at = t->ndim - axes;
    if (has_leading ? at < 0 : at != 0)
        return wrong("%s has %d axes for \"%s\"", arg->name, t->ndim, arg->shape);
    if (has_leading)
        JUDGE(judge_leading(call, arg, t, at, leading));
    while (grammar_axis(&text, &left, &axis, &length)) {
        int64_t size;
        if (length == 3 && !memcmp(axis, "...", 3))
            continue;
        if (evaluate(call, axis, length, &size, &known) != GRAMMAR_VALUE || !known || size != t->shape[at])
            return wrong("axis %d of %s is %lld, \"%.*s\" is %lld", at, arg->name, (long long)t->shape[at], length, axis,
                         (long long)size);
        at++;
    }
    return NULL;
}

static bool same_dtype(DLDataType a, DLDataType b)
{
    return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

static bool is_among(uint32_t set, DLDataType type)
{
    enum dtype dtype = dtype_of(type);
    return dtype != DTYPE_NONE && set >> dtype & 1;
}

/* The set of the argument itself, or what the argument that it is like has; an absent one is asked in turn. */
static const char *judge_dtype(const struct oracle *o, const void *args, const struct op_arg *arg, DLDataType type)
{
    const uint32_t unnamed = arg->kind == OP_NUMBER ? F32 : op_is_tensor(arg) ? 0 : I32 | I64 | U32 | U64;
    for (const struct op_arg *deciding = arg; deciding;) {
        const char *name = deciding->dtype.like;
        const struct op_arg *like = name ? find(o->call->op, name) : NULL;
        if (is_among(deciding->dtype.set ? deciding->dtype.set : name ? 0 : unnamed, type))
            return NULL;
        if (name && (!like || like->kind == OP_DTYPE)) {
            int64_t dtype;
            bool known;
            evaluate(o->call, name, (int)strlen(name), &dtype, &known);
            bool right = known ? same_dtype(type, dtype_dlpack((enum dtype)dtype)) : dtype_of(type) != DTYPE_NONE;
            return right ? NULL : wrong("%s has not the dtype %s", arg->name, name);
        }
        const DLTensor *other = like ? op_tensor(args, like) : NULL;
        if (other && same_dtype(type, other->dtype))
            return NULL;
        deciding = other ? NULL : like;
    }
    return wrong("%s has a dtype that it must not have", arg->name);
}

static const char *judge_tensor(const struct oracle *o, const void *args, const struct op_arg *arg, const DLTensor *t,
                                struct leading *leading)
{
    bool number = !op_is_tensor(arg), single = number;
    if (t->ndim < 0 || t->ndim > TENSOR_MAX_DIMS || (t->ndim > 0 && !t->shape))
        return wrong("%s cannot be read", arg->name);
    for (int i = 0; i < t->ndim; i++) {
        single = single && t->shape[i] == 1;
        if (t->shape[i] < 0)
            return wrong("%s has a negative size", arg->name);
    }
    JUDGE(judge_dtype(o, args, arg, t->dtype));
    if (!single && !arg->shape)
        return wrong("%s has more than one element", arg->name);
    if (!single)
        JUDGE(judge_shape(o->call, arg, t, leading));
    const char *memory = oracle_memory(arg, t, o->loosely);
    return memory ? wrong("%s: %s", arg->name, memory) : NULL;
}

static const char *judge_range(const struct op_arg *arg, long double value)
{
    bool fits = !isnan(value) && !isinf(value) && value >= arg->min &&
                ((arg->max == 0 && !(arg->flags & UP_TO_ZERO)) || value <= arg->max);
    return fits ? NULL : wrong("%s is %Lg, outside of %g to %g", arg->name, value, arg->min, arg->max);
}

/* The symbol of an argument has the value that the caller gave. */
static const char *judge_symbol(const struct call *call, const struct op_arg *arg, int64_t given)
{
    int64_t value;
    bool known;
    int symbol = program_symbol(call->program, arg->name);
    if (symbol >= 0 && call->program->symbol[symbol].plan_symbol >= 0)
        return NULL;
    evaluate(call, arg->name, (int)strlen(arg->name), &value, &known);
    return known && value == given ? NULL : wrong("%s is %lld, taken for %lld", arg->name, (long long)given, (long long)value);
}

static const char *judge_number(const struct oracle *o, const void *args, const struct op_arg *arg, struct leading *leading)
{
    const void *field = op_field_const(args, arg);
    if (arg->bytes != sizeof(flashinfer_number)) {
        bool real = arg->kind == OP_NUMBER;
        double value = real ? *(const double *)field : 0;
        int64_t integer = real ? 0 : arg->bytes == 4 ? *(const int32_t *)field : *(const int64_t *)field;
        if (real ? value == 0 : integer == 0)
            return NULL;
        JUDGE(judge_range(arg, real ? (long double)value : (long double)integer));
        return real ? NULL : judge_symbol(o->call, arg, integer);
    }
    const flashinfer_number *number = field;
    switch (number->kind) {
    case FLASHINFER_NUMBER_ABSENT:
        return NULL;
    case FLASHINFER_NUMBER_INT:
        JUDGE(judge_range(arg, number->value.i));
        return arg->kind == OP_INT ? judge_symbol(o->call, arg, number->value.i) : NULL;
    case FLASHINFER_NUMBER_FLOAT:
        return arg->kind == OP_INT ? wrong("%s is no integer", arg->name) : judge_range(arg, number->value.f);
    case FLASHINFER_NUMBER_TENSOR:
        if (arg->flags & HOST || !number->value.tensor)
            return wrong("%s may be no such tensor", arg->name);
        return judge_tensor(o, args, arg, number->value.tensor, leading);
    default:
        return wrong("%s has kind %d", arg->name, number->kind);
    }
}

static const char *judge_enum(const struct call *call, const void *args, const struct op_arg *arg)
{
    int32_t value = *(const int32_t *)op_field_const(args, arg), count = 1;
    for (const char *c = arg->names; *c; c++)
        count += *c == ' ';
    if (value == 0)
        return NULL;
    return value > 0 && value < count ? judge_symbol(call, arg, value) : wrong("%s is %d of %d", arg->name, value, count);
}

static const char *judge_dtype_argument(const struct call *call, const void *args, const struct op_arg *arg)
{
    DLDataType type = *(const DLDataType *)op_field_const(args, arg);
    enum dtype dtype = dtype_of(type);
    if (type.bits == 0)
        return NULL;
    if (dtype == DTYPE_NONE || (arg->dtype.set && !(arg->dtype.set >> dtype & 1)))
        return wrong("%s is outside of its set", arg->name);
    return judge_symbol(call, arg, dtype);
}

static const char *judge_absent(const struct call *call, const struct op_arg *arg)
{
    int64_t holds = 0;
    bool known;
    if (!(arg->flags & OPTIONAL))
        return wrong("%s is absent", arg->name);
    bool needed = arg->required_if &&
                  evaluate(call, arg->required_if, (int)strlen(arg->required_if), &holds, &known) == GRAMMAR_VALUE && holds;
    return needed ? wrong("%s is absent though %s", arg->name, arg->required_if) : NULL;
}

static const char *judge_argument(const struct oracle *o, const void *args, const struct op_arg *arg, struct leading *leading)
{
    switch (arg->kind) {
    case OP_NUMBER:
    case OP_INT:
        return judge_number(o, args, arg, leading);
    case OP_ENUM:
        return judge_enum(o->call, args, arg);
    case OP_DTYPE:
        return judge_dtype_argument(o->call, args, arg);
    default:
        break;
    }
    const void *pointer = *(void *const *)op_field_const(args, arg);
    if (!pointer)
        return judge_absent(o->call, arg);
    if (arg->kind == OP_PLAN)
        return (uintptr_t)pointer % 8 ? wrong("%s is misaligned", arg->name) : NULL;
    return op_is_tensor(arg) ? judge_tensor(o, args, arg, pointer, leading) : NULL;
}

static const char *judge_rules(const struct call *call)
{
    for (const char *const *rule = call->op->rules; rule && *rule; rule++) {
        int64_t holds = 0;
        bool known;
        enum grammar_outcome outcome = evaluate(call, *rule, (int)strlen(*rule), &holds, &known);
        if (known && (outcome != GRAMMAR_VALUE || !holds))
            return wrong("it breaks the rule %s", *rule);
    }
    return NULL;
}

static const char *judge_exec(const struct oracle *o)
{
    flashinfer_exec exec = {0};
    if (!o->exec)
        return NULL;
    memcpy(&exec, o->exec, o->exec->size < sizeof exec ? o->exec->size : sizeof exec);
    if (exec.flags >> 2 || exec.threads < 0)
        return wrong("exec has unknown flags or negative threads");
    if (exec.stream && o->call->device->id.device_type == kDLCPU)
        return wrong("exec has a stream on the CPU");
    return NULL;
}

const char *oracle_judge(const struct oracle *o)
{
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES] = {0};
    const struct op *op = o->call->op;
    struct leading leading = {NULL, 0};
    size_t size = *(const size_t *)o->args;
    memcpy(args, o->args, size < op->args_bytes ? size : op->args_bytes);
    for (size_t i = op->args_bytes; i < size; i++)
        if (((const unsigned char *)o->args)[i])
            return wrong("a field that this version does not know is set");
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++)
        JUDGE(judge_argument(o, args, arg, &leading));
    JUDGE(judge_rules(o->call));
    JUDGE(judge_exec(o));
    const char *place = oracle_places(op, args, o->elsewhere ? NULL : &o->call->device->id);
    return place ? wrong("%s", place) : NULL;
}
