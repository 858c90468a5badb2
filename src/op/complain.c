/* SPDX-License-Identifier: Apache-2.0 */
/* Sentences about arguments that break the declaration: what was given, what must hold, and where the dimensions in it come from.
 */
#include <inttypes.h>

#include "core/status.h"
#include "core/text.h"
#include "op/check.h"

static const char *name_of(const struct check *c, int arg)
{
    return c->op->args[arg].name;
}

static flashinfer_status say(const struct check *c, struct text *sentence)
{
    flashinfer_status status = sentence->failed ? fail(FLASHINFER_INVALID, "%s: an argument breaks the declaration", c->op->name)
                                                : fail(FLASHINFER_INVALID, "%s: %s", c->op->name, sentence->data);
    text_free(sentence);
    return status;
}

static void print_sizes(struct text *text, const int64_t *sizes, int n)
{
    text_print(text, "[");
    for (int i = 0; i < n; i++)
        text_print(text, "%s%" PRId64, i ? ", " : "", sizes[i]);
    text_print(text, "]");
}

/* The name that a symbol's value has if it is an ENUM, of the op or of its plan; else NULL. */
static const char *value_name(const struct program *program, int symbol, int64_t value, int *length)
{
    int arg = program->symbol[symbol].arg, plan_symbol = program->symbol[symbol].plan_symbol;
    if (plan_symbol >= 0)
        return value_name(op_program(program->op->plan), plan_symbol, value, length);
    return arg >= 0 && program->op->args[arg].kind == OP_ENUM ? op_enum_name(&program->op->args[arg], value, length) : NULL;
}

/* "hidden = 128 (from input)", "kv_layout = 1 (HND, from the plan)"; an argument's own value needs no source. */
static void print_symbol(struct text *text, const struct check *c, int symbol, const char *separator)
{
    int length = 0, source = c->source[symbol];
    int64_t value = c->call->dim[symbol];
    const char *name = value_name(c->program, symbol, value, &length);
    bool own = source != CHECK_FROM_PLAN && c->program->symbol[symbol].arg == source;
    text_print(text, "%s%s = %" PRId64, separator, c->program->symbol[symbol].name, value);
    if (!name && own)
        return;
    text_print(text, " (%.*s%s%s%s)", length, name ? name : "", name && !own ? ", " : "", own ? "" : "from ",
               own                         ? ""
               : source == CHECK_FROM_PLAN ? "the plan"
                                           : name_of(c, source));
}

/* The known ones among `symbols`, each with `first` or, after the first, ", " before it. */
static void print_symbols(struct text *text, const struct check *c, uint64_t symbols, const char *first)
{
    for (symbols &= c->call->bound; symbols; symbols &= symbols - 1, first = ", ")
        print_symbol(text, c, __builtin_ctzll(symbols), first);
}

/* "[..., hidden//2]", and the symbols in it. */
static uint64_t print_declared(struct text *text, const struct check *c, const struct program_alternative *shape)
{
    uint64_t symbols = 0;
    text_print(text, "[%s", shape->leading ? shape->count ? "..., " : "..." : "");
    for (int i = 0; i < shape->count; i++) {
        const struct expression *axis = &c->program->axes[shape->first + i];
        text_print(text, "%s%.*s", i ? ", " : "", (int)axis->length, axis->text);
        symbols |= axis->symbols;
    }
    text_print(text, "]");
    return symbols;
}

flashinfer_status complain_shape(const struct check *c, int arg, const DLTensor *tensor)
{
    struct text text = {0};
    const struct program_alternative *shape = check_shape_of(c, arg);
    bool number = !op_is_tensor(&c->op->args[arg]);
    text_print(&text, "%s has shape ", name_of(c, arg));
    print_sizes(&text, tensor->shape, tensor->ndim);
    text_print(&text, ", must %s", number ? shape ? "have one element or be " : "have one element" : "be ");
    if (!shape)
        return say(c, &text);
    uint64_t symbols = print_declared(&text, c, shape);
    const char *with = " with ";
    if (shape->leading && c->leading_arg >= 0) {
        text_print(&text, " with ... = ");
        print_sizes(&text, c->leading, c->num_leading);
        text_print(&text, " (from %s)", name_of(c, c->leading_arg));
        with = ", ";
    }
    int by = c->program->arg[arg].by;
    print_symbols(&text, c, symbols | (by >= 0 ? UINT64_C(1) << by : 0), with);
    return say(c, &text);
}

/* ", must be f16 as input, or one of f32, f64". An absent argument passes the question on to the one it is like. */
static void print_dtype_rule(struct text *text, const struct check *c, int arg)
{
    const struct program_arg *a = &c->program->arg[arg];
    const DLTensor *like = NULL;
    char names[DTYPE_SET_NAMES];
    uint32_t set = a->dtypes;
    bool follows = a->kind != OP_DTYPE || !set;
    for (; follows && a->like >= 0 && !(like = op_tensor(c->args, &c->op->args[a->like])); set |= a->dtypes)
        a = &c->program->arg[a->like];
    const char *separator = ", must be ";
    if (like)
        text_print(text, "%s%s as %s", separator, dtype_name(tensor_dtype(like)), name_of(c, a->like));
    else if (follows && a->like_symbol >= 0)
        text_print(text, "%s%s as %s", separator, dtype_name((enum dtype)c->call->dim[a->like_symbol]),
                   c->program->symbol[a->like_symbol].name);
    else if (!set)
        text_print(text, "%sgiven or have a dtype that this op knows", separator);
    if (like || (follows && a->like_symbol >= 0))
        separator = ", or ";
    if (set)
        text_print(text, "%s%s%s", separator, set & (set - 1) ? "one of " : "", dtype_set_names(set, ", ", names));
}

flashinfer_status complain_dtype(const struct check *c, int arg, const DLTensor *tensor)
{
    struct text text = {0};
    DLDataType d = tensor->dtype;
    text_print(&text, "%s ", name_of(c, arg));
    if (d.bits == 0 && c->op->args[arg].kind == OP_DTYPE)
        text_print(&text, "is not given");
    else if (dtype_of(d) == DTYPE_NONE)
        text_print(&text, "has dtype {code %d, bits %d, lanes %d}", d.code, d.bits, d.lanes);
    else
        text_print(&text, "is %s", dtype_name(dtype_of(d)));
    print_dtype_rule(&text, c, arg);
    return say(c, &text);
}

flashinfer_status complain_strides(const struct check *c, int arg, const DLTensor *tensor, const char *rule)
{
    struct text text = {0};
    text_print(&text, "%s has shape ", name_of(c, arg));
    print_sizes(&text, tensor->shape, tensor->ndim);
    text_print(&text, " and strides ");
    print_sizes(&text, tensor->strides, tensor->ndim);
    text_print(&text, ": %s", rule);
    return say(c, &text);
}

flashinfer_status complain_device(const struct check *c, int arg, DLDevice device)
{
    char given[40], expected[40];
    struct text text = {0};
    text_print(&text, "%s is on %s, must be on ", name_of(c, arg), device_text(device, given, sizeof given));
    if (c->op->args[arg].flags & HOST && op_is_tensor(&c->op->args[arg]))
        text_print(&text, "cpu");
    else if (c->device_arg < 0)
        text_print(&text, "cpu or cuda");
    else
        text_print(&text, "%s as %s", device_text(c->device, expected, sizeof expected), name_of(c, c->device_arg));
    return say(c, &text);
}

flashinfer_status complain_rule(const struct check *c, const struct expression *rule)
{
    struct text text = {0};
    text_print(&text, "%.*s does not hold", (int)rule->length, rule->text);
    print_symbols(&text, c, rule->symbols, ": ");
    return say(c, &text);
}

flashinfer_status complain_missing(const struct check *c, int arg, const struct expression *condition)
{
    struct text text = {0};
    text_print(&text, "%s is NULL, must be given", name_of(c, arg));
    if (condition) {
        text_print(&text, " where %.*s", (int)condition->length, condition->text);
        print_symbols(&text, c, condition->symbols, ": ");
    }
    return say(c, &text);
}

flashinfer_status complain_undefined(const struct check *c, int arg)
{
    struct text text = {0};
    const struct program_alternative *shape = check_shape_of(c, arg);
    text_print(&text, "%s must be ", name_of(c, arg));
    uint64_t symbols = print_declared(&text, c, shape) & ~c->call->bound;
    text_print(&text, ", but no argument tells %s", c->program->symbol[__builtin_ctzll(symbols)].name);
    return say(c, &text);
}
