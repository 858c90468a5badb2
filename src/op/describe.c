/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations as JSON, for bindings and for `flashinfer list --json`. */
#include <locale.h>
#include <math.h>
#include <string.h>

#include "core/text.h"
#include "op/describe.h"
#include "op/variant.h"

static const char *const kind_names[] = {"", "in", "out", "inout", "number", "int", "enum", "dtype", "text", "plan", "comm"};

static void put_string(struct text *text, const char *key, const char *value)
{
    text_print(text, "\"%s\": \"", key);
    for (; *value; value++)
        text_print(text, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    text_print(text, "\"");
}

/* Nothing where there is none. */
static void put_member(struct text *text, const char *key, const char *value)
{
    if (!value)
        return;
    text_print(text, ", ");
    put_string(text, key, value);
}

static void put_dtypes(struct text *text, uint32_t set)
{
    char names[DTYPE_SET_NAMES];
    const char *quote = set ? "\"" : "";
    text_print(text, ", \"dtypes\": [%s%s%s]", quote, dtype_set_names(set, "\", \"", names), quote);
}

/* JSON knows no infinity: a limit that is one is none. */
static void put_number(struct text *text, const char *key, double value)
{
    if (isfinite(value))
        text_print(text, ", \"%s\": %.17g", key, value);
}

static void put_value(struct text *text, const struct op_arg *arg)
{
    const bool counts = arg->kind == OP_NUMBER || arg->kind == OP_INT;
    if (counts || arg->kind == OP_ENUM)
        put_number(text, "default", arg->value);
    if (arg->kind == OP_DTYPE && arg->value != 0)
        put_member(text, "default", dtype_name((enum dtype)arg->value));
    if (!counts)
        return;
    put_number(text, "min", arg->min);
    put_number(text, "max", op_max(arg));
    if (arg->bytes == sizeof(flashinfer_number) && !(arg->flags & HOST))
        text_print(text, ", \"may_be_tensor\": true");
}

static void put_argument(struct text *text, const struct op_arg *arg)
{
    text_print(text, "{");
    put_string(text, "name", arg->name);
    put_member(text, "kind", kind_names[arg->kind]);
    text_print(text, ", \"offset\": %d, \"bytes\": %d", arg->offset, arg->bytes);
    text_print(text, ", \"optional\": %s", arg->flags & OPTIONAL ? "true" : "false");
    if (arg->flags & HOST && arg->kind <= OP_INOUT)
        text_print(text, ", \"host\": true");
    if (arg->is_output)
        text_print(text, ", \"written\": true");
    put_member(text, "shape", arg->shape);
    put_member(text, "by", arg->by);
    if (arg->dtype.set)
        put_dtypes(text, arg->dtype.set);
    put_member(text, "dtype_of", arg->dtype.like);
    put_member(text, "names", arg->names);
    put_value(text, arg);
    put_member(text, "default_of", arg->value_of);
    put_member(text, "may_alias", arg->may_alias);
    put_member(text, "required_if", arg->required_if);
    text_print(text, "}");
}

static void put_op(struct text *text, const struct op *op)
{
    text_print(text, "{");
    put_string(text, "name", op->name);
    put_member(text, "family", op->family);
    put_member(text, "summary", op->summary);
    put_member(text, "plan", op->plan ? op->plan->name : NULL);
    text_print(text, ", \"size\": %zu", op->args_bytes);
    text_print(text, ", \"arguments\": [");
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++) {
        text_print(text, "%s", arg == op->args ? "" : ", ");
        put_argument(text, arg);
    }
    text_print(text, "], \"rules\": [");
    for (const char *const *rule = op->rules; rule && *rule; rule++)
        text_print(text, "%s\"%s\"", rule == op->rules ? "" : ", ", *rule);
    text_print(text, "], \"kernels\": [");
    for (const struct op_kernel *row = op->kernels; row && row->name; row++)
        text_print(text, "%s\"%s\"", row == op->kernels ? "" : ", ", row->name);
    text_print(text, "]}");
}

void op_describe(struct text *text, const struct op *op)
{
    locale_t of_json = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = uselocale(of_json); /* else 0.5 might be "0,5" */
    put_op(text, op);
    uselocale(before);
    if (of_json)
        freelocale(of_json);
}

static flashinfer_status describe_to(const struct op *op, char *buffer, size_t size, size_t *needed)
{
    struct text text = {0};
    op_describe(&text, op);
    flashinfer_status status = text_check(&text);
    if (status == FLASHINFER_OK) {
        *needed = text.size + 1;
        if (size >= *needed)
            memcpy(buffer, text.data, *needed);
        else if (size)
            buffer[0] = 0;
    }
    text_free(&text);
    return status;
}

flashinfer_status flashinfer_describe(const char *name, char *buffer, size_t size, size_t *needed)
{
    if (!name || !needed || (size && !buffer))
        return fail(FLASHINFER_INVALID, "flashinfer_describe: name, text or needed is NULL");
    const struct op *op = op_find(name);
    if (!op)
        return fail(FLASHINFER_INVALID, "no op is called \"%s\"; `flashinfer list` names all", name);
    return describe_to(op, buffer, size, needed);
}

flashinfer_status flashinfer_variant_describe(const flashinfer_variant *variant, char *buffer, size_t size, size_t *needed)
{
    if (!variant || !needed || (size && !buffer))
        return fail(FLASHINFER_INVALID, "flashinfer_variant_describe: variant, text or needed is NULL");
    return describe_to(variant->op, buffer, size, needed);
}

const char *flashinfer_op_name(size_t index)
{
    size_t i = 0;
    while (op_registry[i] && i < index)
        i++;
    return op_registry[i] ? op_registry[i]->name : NULL;
}
