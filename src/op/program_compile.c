/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles a declaration: gathers its symbols, parses shapes, rules and conditions, resolves the names of arguments. */
#include "op/program_compile.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHAPES = 96, MAX_ALTERNATIVES = 63, MAX_AXES = 256, MAX_STEPS = 1024, MAX_RULES = 48, MAX_TYPES = 256,
       MAX_NAMES = 2048, MAX_MESSAGE = 400 };

/* The program and what it points to, allocated as one. */
struct compiled {
    struct program program;
    struct program_alternative shapes[MAX_SHAPES];
    struct program_axis simple_axes[MAX_AXES];
    struct expression axes[MAX_AXES], rules[MAX_RULES], conditions[OP_MAX_ARGS];
    struct expression_step steps[MAX_STEPS];
    DLDataType types[MAX_TYPES];
    char names[MAX_NAMES];
};

struct compiler {
    const struct op *op;
    const struct program *plan; /* of the op that makes our plan; NULL */
    struct compiled *out;
    int num_steps, num_types, num_names;
    bool rules; /* reading a rule: a name must be known already */
    char wrong[MAX_MESSAGE];
};

static bool wrong(struct compiler *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Keeps the first sentence. Returns false. */
static bool wrong(struct compiler *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!c->wrong[0])
        vsnprintf(c->wrong, sizeof c->wrong, format, arguments);
    va_end(arguments);
    return false;
}

static bool same_name(const char *name, const char *text, int length)
{
    return !strncmp(name, text, (size_t)length) && !name[length];
}

static int find_argument(const struct op *op, const char *name, int length)
{
    for (int i = 0; op->args[i].kind != OP_END; i++)
        if (same_name(op->args[i].name, name, length))
            return i;
    return -1;
}

static int find_symbol(const struct program *program, const char *name, int length)
{
    for (int i = 0; i < program->num_symbols; i++)
        if (same_name(program->symbol[i].name, name, length))
            return i;
    return -1;
}

static bool has_symbol(const struct op_arg *arg)
{
    return arg->kind == OP_INT || arg->kind == OP_ENUM || arg->kind == OP_DTYPE;
}

/* The number of that symbol, which is added if it is new. */
static int symbol(struct compiler *c, const char *name, int length)
{
    struct program *p = &c->out->program;
    int found = find_symbol(p, name, length), arg = find_argument(c->op, name, length);
    if (found >= 0)
        return found;
    if (arg >= 0 && !has_symbol(&c->op->args[arg]))
        return wrong(c, "%.*s is an argument without a value of its own", length, name), -1;
    int plan_symbol = arg < 0 && c->plan ? find_symbol(c->plan, name, length) : -1;
    if (c->rules && arg < 0 && plan_symbol < 0)
        return wrong(c, "%.*s is no dimension and no integer argument", length, name), -1;
    if (p->num_symbols == SYMBOL_EXPRESSION || c->num_names + length + 1 > MAX_NAMES)
        return wrong(c, "it has more than %d dimensions and integers", SYMBOL_EXPRESSION), -1;
    char *kept = memcpy(c->out->names + c->num_names, name, (size_t)length);
    c->num_names += length + 1;
    p->symbol[p->num_symbols].name = kept;
    p->symbol[p->num_symbols].arg = arg;
    p->symbol[p->num_symbols].plan_symbol = plan_symbol;
    return p->num_symbols++;
}

static int resolve(void *context, const char *name, int length)
{
    return symbol(context, name, length);
}

static bool compile_expression(struct compiler *c, struct expression *out, const char *text, int length)
{
    const char *error = expression_compile(out, text, length, resolve, c, c->out->steps + c->num_steps, MAX_STEPS - c->num_steps);
    c->num_steps += out->num_steps;
    return !error || wrong(c, "%s in \"%.*s\"", error, length, text);
}

/* How far `text` goes until `stop` outside of parentheses. */
static int piece(const char *text, int length, char stop)
{
    int depth = 0, at = 0;
    for (; at < length && (depth > 0 || text[at] != stop); at++)
        depth += (text[at] == '(') - (text[at] == ')');
    return at;
}

static struct program_axis simplify(const struct expression *axis)
{
    const int32_t offset = (int32_t)axis->offset;
    if (offset == axis->offset && axis->is_constant)
        return (struct program_axis){SYMBOL_ZERO, offset};
    if (offset == axis->offset && axis->linear >= 0 && axis->scale == 1)
        return (struct program_axis){axis->linear, offset};
    return (struct program_axis){SYMBOL_EXPRESSION, 0};
}

static void simplify_axes(struct compiler *c, struct program_alternative *shape)
{
    struct program_axis *axes = &c->out->simple_axes[shape->first];
    int expressions = 0;
    for (int i = 0; i < shape->count; i++) {
        axes[i] = simplify(&c->out->axes[shape->first + i]);
        shape->symbols |= UINT64_C(1) << axes[i].symbol;
        expressions += axes[i].symbol == SYMBOL_EXPRESSION;
    }
    shape->axes = expressions < 2 ? axes : NULL;
}

/* "... heads head_dim" */
static bool compile_axes(struct compiler *c, struct program_alternative *shape, const char *text, int length)
{
    struct program *p = &c->out->program;
    *shape = (struct program_alternative){.first = (int16_t)p->num_axes};
    for (int at = 0; at < length; at++) {
        int size = piece(text + at, length - at, ' ');
        if (size == 0)
            continue;
        if (size == 3 && !memcmp(text + at, "...", 3)) {
            if (shape->count || shape->leading)
                return wrong(c, "... does not stand first in \"%.*s\"", length, text);
            shape->leading = true;
            p->rows = symbol(c, "rows", 4);
        } else if (p->num_axes == MAX_AXES || shape->count == TENSOR_MAX_DIMS) {
            return wrong(c, "too many axes in \"%.*s\"", length, text);
        } else if (!compile_expression(c, &c->out->axes[p->num_axes], text + at, size)) {
            return false;
        } else {
            p->num_axes++;
            shape->count++;
        }
        at += size;
    }
    simplify_axes(c, shape);
    return true;
}

/* "NHD: pages page_size heads head_dim | HND: ...": one alternative for each name of the ENUM `by`. */
static bool compile_alternatives(struct compiler *c, struct program_arg *out, const struct op_arg *arg, const struct op_arg *by)
{
    struct program_alternative *shapes = &c->out->shapes[out->first_shape];
    const char *text = arg->shape;
    uint64_t seen = 0;
    for (int left = (int)strlen(text); left > 0;) {
        int size = piece(text, left, '|'), label = piece(text, size, ':'), start = (int)strspn(text, " ");
        int value = label < size ? op_enum_value(by, text + start, label - start) : -1;
        if (value < 0 || seen >> value & 1)
            return wrong(c, "an alternative of \"%s\" does not start with one of: %s", arg->shape, by->names);
        seen |= UINT64_C(1) << value;
        if (!compile_axes(c, &shapes[value], text + label + 1, size - label - 1))
            return false;
        text += size + 1;
        left -= size + 1;
    }
    return seen == (UINT64_C(1) << out->num_shapes) - 1 ||
           wrong(c, "\"%s\" has no alternative for some of: %s", arg->shape, by->names);
}

static int count_names(const struct op_arg *arg)
{
    int length, count = 0;
    while (op_enum_name(arg, count, &length))
        count++;
    return count;
}

/* The ENUM argument of that name, of the op or of its plan. */
static const struct op_arg *find_enum(const struct compiler *c, const char *name)
{
    int length = (int)strlen(name), found = find_argument(c->op, name, length);
    const struct op_arg *arg = found >= 0 ? &c->op->args[found] : NULL;
    if (!arg && c->plan && (found = find_argument(c->plan->op, name, length)) >= 0)
        arg = &c->plan->op->args[found];
    return arg && arg->kind == OP_ENUM ? arg : NULL;
}

static bool compile_shape(struct compiler *c, struct program_arg *out, const struct op_arg *arg)
{
    struct program *p = &c->out->program;
    const struct op_arg *by = NULL;
    out->num_shapes = 1;
    if (arg->by) {
        by = find_enum(c, arg->by);
        if (!by)
            return wrong(c, "%s is no ENUM argument", arg->by);
        out->by = (int16_t)symbol(c, arg->by, (int)strlen(arg->by));
        out->num_shapes = (int16_t)count_names(by);
    }
    if (out->num_shapes > MAX_ALTERNATIVES || p->num_shapes + out->num_shapes > MAX_SHAPES)
        return wrong(c, "too many shapes");
    out->first_shape = (int16_t)p->num_shapes;
    p->num_shapes += out->num_shapes;
    return by ? compile_alternatives(c, out, arg, by)
              : compile_axes(c, &c->out->shapes[out->first_shape], arg->shape, (int)strlen(arg->shape));
}

/* Only tensors whose every shape is simple are plain. */
static const struct program_alternative *plain_shapes(const struct compiler *c, const struct program_arg *arg)
{
    const struct program_alternative *shapes = &c->out->shapes[arg->first_shape];
    for (int i = 0; i < arg->num_shapes; i++)
        if (!shapes[i].axes)
            return NULL;
    return shapes;
}

static bool compile_dtypes(struct compiler *c, struct program_arg *out, const struct op_arg *arg)
{
    out->dtypes = arg->dtype.set;
    out->types = c->out->types + c->num_types;
    if (!out->dtypes && arg->kind == OP_NUMBER)
        out->dtypes = F32;
    else if (!out->dtypes && arg->kind == OP_INT)
        out->dtypes = I32 | I64 | U32 | U64;
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++)
        if (out->dtypes >> dtype & 1) {
            if (c->num_types == MAX_TYPES)
                return wrong(c, "too many dtypes");
            c->out->types[c->num_types++] = dtype_dlpack((enum dtype)dtype);
            out->num_types++;
        }
    if (out->num_types == 1 && !arg->dtype.like)
        out->only_type = out->types[0];
    if (!arg->dtype.like)
        return out->dtypes || !op_is_tensor(arg) || wrong(c, "%s has no dtypes", arg->name);
    int length = (int)strlen(arg->dtype.like), found = find_argument(c->op, arg->dtype.like, length);
    bool in_plan = found < 0 && c->plan && find_symbol(c->plan, arg->dtype.like, length) >= 0;
    if (in_plan || (found >= 0 && c->op->args[found].kind == OP_DTYPE))
        out->like_symbol = (int16_t)symbol(c, arg->dtype.like, length);
    else if (found >= 0 && op_is_tensor(&c->op->args[found]) && &c->op->args[found] != arg)
        out->like = (int16_t)found;
    else
        return wrong(c, "the dtype of %s is like %s, which has none", arg->name, arg->dtype.like);
    return true;
}

/* Whoever is like another must end at one that has dtypes. */
static bool check_likes(struct compiler *c)
{
    const struct program *p = &c->out->program;
    for (int i = 0; i < p->num_args; i++) {
        int steps = 0;
        for (int at = p->arg[i].like; at >= 0; at = p->arg[at].like)
            if (++steps > p->num_args)
                return wrong(c, "the dtype of %s is like its own", c->op->args[i].name);
    }
    return true;
}

static bool compile_aliases(struct compiler *c, struct program_arg *out, const struct op_arg *arg)
{
    for (const char *name = arg->may_alias; name && *name; name += strspn(name, " ")) {
        int length = (int)strcspn(name, " "), found = find_argument(c->op, name, length);
        if (found < 0 || !op_is_tensor(&c->op->args[found]))
            return wrong(c, "%s may alias %.*s, which is no tensor", arg->name, length, name);
        out->may_alias |= UINT64_C(1) << found;
        name += length;
    }
    return true;
}

/* The field's size must be one that its kind knows. */
static bool check_field(struct compiler *c, const struct op_arg *arg)
{
    static const struct {
        uint8_t first, second, third;
    } sizes[] = {
        [OP_IN] = {sizeof(void *), 0, 0},
        [OP_OUT] = {sizeof(void *), 0, 0},
        [OP_INOUT] = {sizeof(void *), 0, 0},
        [OP_NUMBER] = {sizeof(double), sizeof(flashinfer_number), 0},
        [OP_INT] = {4, 8, sizeof(flashinfer_number)},
        [OP_ENUM] = {4, 0, 0},
        [OP_DTYPE] = {sizeof(DLDataType), 0, 0},
        [OP_TEXT] = {sizeof(void *), 0, 0},
        [OP_PLAN] = {sizeof(void *), 0, 0},
        [OP_COMM] = {sizeof(void *), 0, 0},
    };
    if (arg->kind > OP_COMM ||
        (arg->bytes != sizes[arg->kind].first && arg->bytes != sizes[arg->kind].second && arg->bytes != sizes[arg->kind].third))
        return wrong(c, "%s has a C type that its kind does not have", arg->name);
    return (size_t)arg->offset + arg->bytes <= c->op->args_bytes || wrong(c, "%s lies outside of the struct", arg->name);
}

static bool compile_argument(struct compiler *c, const struct op_arg *arg, struct program_arg *out)
{
    struct program *p = &c->out->program;
    *out = (struct program_arg){.kind = arg->kind, .flags = arg->flags, .offset = arg->offset, .symbol = -1, .like = -1,
                                .like_symbol = -1, .by = -1, .first_shape = -1, .required_if = -1, .value_of = -1};
    if (!check_field(c, arg) || !compile_dtypes(c, out, arg) || !compile_aliases(c, out, arg))
        return false;
    if (arg->shape && !compile_shape(c, out, arg))
        return false;
    if (op_is_tensor(arg) && !arg->shape)
        return wrong(c, "%s has no shape", arg->name);
    if (op_is_tensor(arg) && !(arg->flags & HOST))
        out->plain = plain_shapes(c, out);
    if (has_symbol(arg))
        out->symbol = (int16_t)symbol(c, arg->name, (int)strlen(arg->name));
    if (arg->value_of) {
        int length = (int)strlen(arg->value_of), other = find_argument(c->op, arg->value_of, length);
        if (arg->kind != OP_INT || other < 0 || &c->op->args[other] >= arg || c->op->args[other].kind != OP_INT)
            return wrong(c, "%s defaults to %s, which is no INT before it", arg->name, arg->value_of);
        out->value_of = (int16_t)symbol(c, arg->value_of, length);
    }
    if (arg->kind == OP_ENUM && (out->num_names = (int16_t)count_names(arg)) == 0)
        return wrong(c, "%s has no names", arg->name);
    if (arg->kind == OP_PLAN) {
        if (p->plan_arg >= 0 || (!arg->is_output && !c->op->plan))
            return wrong(c, "it has two plans, or one that no op makes");
        p->plan_arg = (int)(arg - c->op->args);
    }
    return true;
}

static bool compile_arguments(struct compiler *c)
{
    struct program *p = &c->out->program;
    for (const char *name = c->op->dims; name && *name; name += strspn(name, ", ")) {
        int length = (int)strcspn(name, ", ");
        symbol(c, name, length);
        name += length;
    }
    p->num_dims = p->num_symbols;
    for (const struct op_arg *arg = c->op->args; arg->kind != OP_END; arg++) {
        if (p->num_args == OP_MAX_ARGS)
            return wrong(c, "it has more than %d arguments", OP_MAX_ARGS);
        if (find_argument(c->op, arg->name, (int)strlen(arg->name)) != p->num_args)
            return wrong(c, "it has two arguments %s", arg->name);
        if (!compile_argument(c, arg, &p->arg[p->num_args++]))
            return false;
    }
    return true;
}

static bool compile_rules(struct compiler *c)
{
    struct program *p = &c->out->program;
    c->rules = true;
    for (; c->op->rules && c->op->rules[p->num_rules]; p->num_rules++) {
        const char *rule = c->op->rules[p->num_rules];
        if (p->num_rules == MAX_RULES)
            return wrong(c, "it has more than %d rules", MAX_RULES);
        if (!compile_expression(c, &c->out->rules[p->num_rules], rule, (int)strlen(rule)))
            return false;
    }
    for (int i = 0; i < p->num_args; i++) {
        const char *condition = c->op->args[i].required_if;
        if (!condition)
            continue;
        p->conditional |= UINT64_C(1) << i;
        p->arg[i].required_if = (int16_t)p->num_conditions;
        if (!compile_expression(c, &c->out->conditions[p->num_conditions++], condition, (int)strlen(condition)))
            return false;
    }
    return true;
}

/* Every symbol must get its value from an argument, from the plan, or from an axis that can be read backwards. */
static bool check_symbols(struct compiler *c)
{
    const struct program *p = &c->out->program;
    uint64_t told = p->rows >= 0 ? UINT64_C(1) << p->rows : 0;
    for (int i = 0; i < p->num_axes; i++) {
        const struct expression *axis = &c->out->axes[i];
        if (axis->linear >= 0 || axis->quotient >= 0)
            told |= UINT64_C(1) << (axis->linear >= 0 ? axis->linear : axis->quotient);
    }
    for (int i = 0; i < p->num_symbols; i++)
        if (p->symbol[i].arg < 0 && p->symbol[i].plan_symbol < 0 && !(told >> i & 1))
            return wrong(c, "nothing tells %s", p->symbol[i].name);
    return true;
}

/* An axis that is an expression tells no dimension: [head_dim//2]. */
static bool needs_dimensions(const struct program *p, const struct program_arg *a)
{
    for (int i = 0; i < a->num_shapes; i++) {
        const struct program_alternative *shape = &p->shapes[a->first_shape + i];
        for (int k = shape->first; k < shape->first + shape->count; k++)
            if (p->axes[k].symbols && p->axes[k].linear < 0)
                return true;
    }
    return false;
}

/* Values are needed to understand inputs, and inputs tell the dimensions of others, and of outputs. */
enum stage { STAGE_PLAN, STAGE_VALUE, STAGE_INPUT, STAGE_INPUT_AFTER_OTHERS, STAGE_OUTPUT };

static enum stage stage_of(const struct program *p, int i)
{
    const struct op_arg *arg = &p->op->args[i];
    if (arg->kind == OP_PLAN)
        return STAGE_PLAN;
    if (!op_is_tensor(arg))
        return STAGE_VALUE;
    if (arg->kind == OP_OUT)
        return STAGE_OUTPUT;
    return needs_dimensions(p, &p->arg[i]) ? STAGE_INPUT_AFTER_OTHERS : STAGE_INPUT;
}

static void order_arguments(struct program *p)
{
    int n = 0;
    for (int i = 0; i < p->num_args; i++)
        if (p->op->args[i].kind == OP_OUT || p->op->args[i].kind == OP_INOUT)
            p->written |= UINT64_C(1) << i;
    for (enum stage stage = STAGE_PLAN; stage <= STAGE_OUTPUT; stage++)
        for (int i = 0; i < p->num_args; i++)
            if (stage_of(p, i) == stage) {
                p->order[n++] = (uint8_t)i;
                p->num_values += stage <= STAGE_VALUE;
            }
}

static void list_symbols_from_plan(struct program *p)
{
    for (int i = 0; i < p->num_symbols; i++) {
        if (p->symbol[i].plan_symbol < 0)
            continue;
        p->plan_symbols |= UINT64_C(1) << p->symbol[i].plan_symbol;
        p->told_by_plan |= UINT64_C(1) << i;
        p->from_plan[p->num_from_plan].symbol = (uint8_t)i;
        p->from_plan[p->num_from_plan++].plan_symbol = (uint8_t)p->symbol[i].plan_symbol;
    }
}

/* The op's struct, for recall.c. */
static void list_words(struct program *p)
{
    static atomic_uint_fast64_t programs;
    uint64_t pointers[OP_MAX_ARGS_BYTES / sizeof(void *) / 64 + 1] = {0};
    p->serial = atomic_fetch_add(&programs, 1) + 1;
    for (int written = 1; written >= 0; written--)
        for (int i = 0; i < p->num_args; i++) {
            const size_t word = p->arg[i].offset / sizeof(void *);
            if (p->arg[i].kind == OP_PLAN || op_is_tensor(&p->op->args[i]))
                pointers[word / 64] |= UINT64_C(1) << word % 64;
            if (!op_is_tensor(&p->op->args[i]) || (int)(p->written >> i & 1) != written)
                continue;
            p->tensor_offset[p->num_tensors++] = p->arg[i].offset;
            p->num_written += written;
        }
    for (size_t word = 0; word < p->op->args_bytes / sizeof(void *); word++)
        if (!(pointers[word / 64] >> word % 64 & 1))
            p->word_offset[p->num_words++] = (uint16_t)(word * sizeof(void *));
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    for (const unsigned char *byte = data; size--; byte++)
        hash = (hash ^ *byte) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return text ? hash_bytes(hash, text, strlen(text) + 1) : hash * 31;
}

/* FNV-1a over all that gives a plan its meaning. */
static uint64_t hash_declaration(const struct op *op)
{
    uint64_t hash = hash_text(UINT64_C(0xcbf29ce484222325), FLASHINFER_VERSION);
    hash = hash_text(hash_text(hash, op->name), op->dims);
    for (const struct op_arg *arg = op->args; arg->kind != OP_END; arg++) {
        const uint16_t numbers[] = {arg->kind, arg->flags, arg->offset, arg->bytes};
        const double values[] = {arg->value, arg->min, arg->max};
        hash = hash_bytes(hash_bytes(hash_text(hash, arg->name), numbers, sizeof numbers), values, sizeof values);
        hash = hash_text(hash_text(hash_text(hash, arg->shape), arg->names), arg->dtype.like);
        hash = hash_bytes(hash, &arg->dtype.set, sizeof arg->dtype.set);
    }
    for (const char *const *rule = op->rules; rule && *rule; rule++)
        hash = hash_text(hash, *rule);
    return hash;
}

static void point_to_pools(struct compiled *out)
{
    out->program.shapes = out->shapes;
    out->program.axes = out->axes;
    out->program.rules = out->rules;
    out->program.conditions = out->conditions;
}

struct program *program_compile(const struct op *op)
{
    const struct program *plan = op->plan ? op_program(op->plan) : NULL;
    if (op->plan && !plan)
        return NULL;
    struct compiled *out = calloc(1, sizeof *out);
    if (!out) {
        fail(FLASHINFER_MEMORY, "%s: out of memory", op->name);
        return NULL;
    }
    struct compiler c = {.op = op, .plan = plan, .out = out};
    out->program = (struct program){.op = op, .rows = -1, .plan_arg = -1, .build = hash_declaration(op)};
    point_to_pools(out);
    if (op->args_bytes > OP_MAX_ARGS_BYTES)
        wrong(&c, "its struct is larger than %d bytes", OP_MAX_ARGS_BYTES);
    if (c.wrong[0] || !compile_arguments(&c) || !check_likes(&c) || !compile_rules(&c) || !check_symbols(&c) || c.wrong[0]) {
        fail(FLASHINFER_INTERNAL, "the declaration of %s is wrong: %s", op->name, c.wrong);
        free(out);
        return NULL;
    }
    order_arguments(&out->program);
    list_symbols_from_plan(&out->program);
    list_words(&out->program);
    return &out->program;
}
