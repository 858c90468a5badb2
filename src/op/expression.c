/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions: a recursive-descent parser to postfix code, and the machine that runs it. The parser also follows which
 * expressions are linear in one symbol, since such a dimension can be read backwards: a shape [2*hidden] tells hidden. */
#include "op/expression.h"

#include <string.h>

/* Where a step finds its right side: `value` itself, the symbol `value`, or the top of the stack, which it takes off. */
enum step_operand { OPERAND_CONSTANT, OPERAND_SYMBOL, OPERAND_STACK };

enum step_code {
    STEP_PUSH,
    STEP_ADD,
    STEP_SUBTRACT,
    STEP_MULTIPLY,
    STEP_DIVIDE,
    STEP_CEIL_DIVIDE,
    STEP_REMAINDER,
    STEP_NEGATE,
    STEP_MIN,
    STEP_MAX,
    STEP_EQUAL,
    STEP_UNEQUAL,
    STEP_LESS,
    STEP_LESS_EQUAL,
    STEP_GREATER,
    STEP_GREATER_EQUAL,
    STEP_TRUTH, /* 1 unless it is 0 */
    STEP_AND,   /* jumps if the value is 0, which it leaves; else drops it */
    STEP_OR     /* jumps if the value is not 0, for which it leaves 1; else drops it */
};

/* What the value of a subexpression is known to be. */
struct form {
    bool known; /* it is scale * symbol + offset, or offset if symbol is -1 */
    int symbol;
    int64_t scale, offset;
    int64_t divisor; /* not 0: it is symbol // divisor, and not known in the sense above */
};

struct parser {
    const char *at, *end;
    expression_resolve resolve;
    void *context;
    struct expression_step *steps;
    int num_steps, room, nesting;
    int depth; /* values on the stack at this point */
    uint64_t symbols;
    const char *error; /* the first one; parsing goes on and changes nothing any more */
};

static const struct form unknown = {.symbol = -1};

static bool parse_or(struct parser *p, struct form *form);

static bool failed(struct parser *p, const char *error)
{
    if (!p->error)
        p->error = error;
    return false;
}

static bool emit(struct parser *p, enum step_code code, enum step_operand operand, int64_t value, int depth_change)
{
    if (p->num_steps == p->room || p->num_steps == EXPRESSION_MAX_STEPS)
        return failed(p, "the expression is too long");
    p->depth += depth_change;
    if (p->depth > EXPRESSION_MAX_DEPTH)
        return failed(p, "the expression is too deep");
    p->steps[p->num_steps++] = (struct expression_step){value, code, operand};
    return true;
}

/* Joins the two values that were emitted last. A right side that is one push becomes the step's own operand. */
static bool emit_binary(struct parser *p, enum step_code code)
{
    if (p->error)
        return false;
    struct expression_step *last = &p->steps[p->num_steps - 1];
    if (last->code != STEP_PUSH)
        return emit(p, code, OPERAND_STACK, 0, -1);
    last->code = code;
    p->depth--;
    return true;
}

static void skip_spaces(struct parser *p)
{
    while (p->at < p->end && *p->at == ' ')
        p->at++;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

/* Takes the token if it is next. A word is taken only whole, and '/' and '<' are not taken from '//' and '<='. */
static bool take(struct parser *p, const char *token)
{
    skip_spaces(p);
    size_t length = strlen(token), left = (size_t)(p->end - p->at);
    if (left < length || memcmp(p->at, token, length))
        return false;
    char last = token[length - 1], next = left > length ? p->at[length] : ' ';
    if (is_word(last) ? is_word(next)
                      : (last == '/' && length == 1 && next == '/') || ((last == '<' || last == '>') && next == '='))
        return false;
    p->at += length;
    return true;
}

static bool expect(struct parser *p, const char *token, const char *error)
{
    return take(p, token) || failed(p, error);
}

static struct form add_forms(struct form a, struct form b, int64_t sign)
{
    struct form sum = {.known = a.known && b.known && (a.symbol < 0 || b.symbol < 0),
                       .symbol = a.symbol >= 0 ? a.symbol : b.symbol};
    int64_t scale, offset;
    if (!sum.known || __builtin_mul_overflow(b.scale, sign, &scale) || __builtin_mul_overflow(b.offset, sign, &offset) ||
        __builtin_add_overflow(a.scale, scale, &sum.scale) || __builtin_add_overflow(a.offset, offset, &sum.offset))
        return unknown;
    return sum;
}

static struct form multiply_forms(struct form a, struct form b)
{
    struct form product = {.known = a.known && b.known && (a.symbol < 0 || b.symbol < 0)};
    if (b.symbol >= 0) {
        struct form swap = a;
        a = b;
        b = swap;
    }
    product.symbol = a.symbol;
    if (!product.known || __builtin_mul_overflow(a.scale, b.offset, &product.scale) ||
        __builtin_mul_overflow(a.offset, b.offset, &product.offset))
        return unknown;
    return product;
}

static struct form divide_forms(struct form a, struct form b)
{
    bool simple = a.known && a.symbol >= 0 && a.scale == 1 && a.offset == 0 && b.known && b.symbol < 0 && b.offset > 0;
    return simple ? (struct form){.symbol = a.symbol, .divisor = b.offset} : unknown;
}

static bool parse_integer(struct parser *p, struct form *form)
{
    int64_t value = 0;
    while (p->at < p->end && is_digit(*p->at))
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p->at++ - '0', &value))
            return failed(p, "an integer is too large");
    *form = (struct form){.known = true, .symbol = -1, .offset = value};
    return emit(p, STEP_PUSH, OPERAND_CONSTANT, value, 1);
}

static bool parse_product(struct parser *p, struct form *form);
static bool parse_unary(struct parser *p, struct form *form);

/* min(a, b) and max(a, b), after the parenthesis. */
static bool parse_pair(struct parser *p, enum step_code code, struct form *form)
{
    struct form argument;
    *form = unknown;
    return parse_or(p, &argument) && expect(p, ",", "a comma is missing") && parse_or(p, &argument) &&
           expect(p, ")", "a closing parenthesis is missing") && emit_binary(p, code);
}

/* ceil(a/b), after the parenthesis. */
static bool parse_ceil(struct parser *p, struct form *form)
{
    struct form argument;
    *form = unknown;
    return parse_product(p, &argument) && expect(p, "/", "ceil takes a quotient, a/b") && parse_unary(p, &argument) &&
           expect(p, ")", "ceil takes a quotient, a/b") && emit_binary(p, STEP_CEIL_DIVIDE);
}

static bool parse_name(struct parser *p, struct form *form)
{
    const char *name = p->at;
    while (p->at < p->end && is_word(*p->at))
        p->at++;
    int symbol = p->resolve(p->context, name, (int)(p->at - name));
    if (symbol < 0)
        return failed(p, "a name is not known");
    p->symbols |= UINT64_C(1) << symbol;
    *form = (struct form){.known = true, .symbol = symbol, .scale = 1};
    return emit(p, STEP_PUSH, OPERAND_SYMBOL, symbol, 1);
}

static bool take_call(struct parser *p, const char *name)
{
    const char *start = p->at;
    if (take(p, name) && take(p, "("))
        return true;
    p->at = start;
    return false;
}

static bool parse_primary(struct parser *p, struct form *form)
{
    if (take(p, "("))
        return parse_or(p, form) && expect(p, ")", "a closing parenthesis is missing");
    if (take_call(p, "min"))
        return parse_pair(p, STEP_MIN, form);
    if (take_call(p, "max"))
        return parse_pair(p, STEP_MAX, form);
    if (take_call(p, "ceil"))
        return parse_ceil(p, form);
    if (p->at < p->end && is_digit(*p->at))
        return parse_integer(p, form);
    if (p->at < p->end && is_word(*p->at))
        return parse_name(p, form);
    return failed(p, "a number, a name or a parenthesis is missing");
}

static bool parse_unary(struct parser *p, struct form *form)
{
    *form = unknown;
    if (++p->nesting > EXPRESSION_MAX_DEPTH)
        return failed(p, "the expression is too deep");
    bool negative = take(p, "-");
    bool good = parse_primary(p, form);
    if (negative) {
        *form = add_forms((struct form){.known = true, .symbol = -1}, *form, -1);
        good = good && emit(p, STEP_NEGATE, OPERAND_CONSTANT, 0, 0);
    }
    p->nesting--;
    return good;
}

static bool parse_product(struct parser *p, struct form *form)
{
    if (!parse_unary(p, form))
        return false;
    for (;;) {
        enum step_code code;
        if (take(p, "*"))
            code = STEP_MULTIPLY;
        else if (take(p, "//"))
            code = STEP_DIVIDE;
        else if (take(p, "%"))
            code = STEP_REMAINDER;
        else
            return true;
        struct form right;
        if (!parse_unary(p, &right) || !emit_binary(p, code))
            return false;
        *form = code == STEP_MULTIPLY ? multiply_forms(*form, right) : code == STEP_DIVIDE ? divide_forms(*form, right) : unknown;
    }
}

static bool parse_sum(struct parser *p, struct form *form)
{
    if (!parse_product(p, form))
        return false;
    for (;;) {
        bool add = take(p, "+");
        if (!add && !take(p, "-"))
            return true;
        struct form right;
        if (!parse_product(p, &right) || !emit_binary(p, add ? STEP_ADD : STEP_SUBTRACT))
            return false;
        *form = add_forms(*form, right, add ? 1 : -1);
    }
}

/* STEP_PUSH if no comparison is next. */
static enum step_code take_comparison(struct parser *p)
{
    static const struct {
        const char *token;
        enum step_code code;
    } comparisons[] = {{"==", STEP_EQUAL},         {"!=", STEP_UNEQUAL}, {"<=", STEP_LESS_EQUAL},
                       {">=", STEP_GREATER_EQUAL}, {"<", STEP_LESS},     {">", STEP_GREATER}};
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++)
        if (take(p, comparisons[i].token))
            return comparisons[i].code;
    return STEP_PUSH;
}

static bool parse_comparison(struct parser *p, struct form *form)
{
    if (!parse_sum(p, form))
        return false;
    enum step_code code = take_comparison(p);
    if (code == STEP_PUSH)
        return true;
    if (!parse_sum(p, form) || !emit_binary(p, code))
        return false;
    *form = unknown;
    return take_comparison(p) == STEP_PUSH || failed(p, "a < b < c is written a < b and b < c");
}

/* A row of operands with `and` or `or` between them; what each evaluates to is settled by a jump to the end of its operator. */
static bool parse_chain(struct parser *p, const char *word, enum step_code code, bool (*operand)(struct parser *, struct form *),
                        struct form *form)
{
    if (!operand(p, form))
        return false;
    while (take(p, word)) {
        int jump = p->num_steps;
        if (!emit(p, code, OPERAND_CONSTANT, 0, -1) || !operand(p, form) || !emit(p, STEP_TRUTH, OPERAND_CONSTANT, 0, 0))
            return false;
        p->steps[jump].value = p->num_steps - jump - 1;
        *form = unknown;
    }
    return true;
}

static bool parse_and(struct parser *p, struct form *form)
{
    return parse_chain(p, "and", STEP_AND, parse_comparison, form);
}
static bool parse_or(struct parser *p, struct form *form)
{
    return parse_chain(p, "or", STEP_OR, parse_and, form);
}

const char *expression_compile(struct expression *out, const char *text, int length, expression_resolve resolve, void *context,
                               struct expression_step *steps, int room)
{
    struct parser p = {.at = text, .end = text + length, .resolve = resolve, .context = context, .steps = steps, .room = room};
    struct form form = unknown;
    if (parse_or(&p, &form)) {
        skip_spaces(&p);
        if (p.at < p.end)
            failed(&p, "an operator is missing");
    }
    bool simple = form.known && form.symbol >= 0 && form.scale == 1 && form.offset == 0;
    *out = (struct expression){.symbol = simple ? form.symbol : -1,
                               .linear = form.known && form.scale > 0 ? form.symbol : -1,
                               .quotient = form.divisor ? form.symbol : -1,
                               .divisor = form.divisor,
                               .is_constant = form.known && form.symbol < 0,
                               .scale = form.scale,
                               .offset = form.offset,
                               .symbols = p.symbols,
                               .steps = steps,
                               .num_steps = p.num_steps,
                               .length = length,
                               .text = text};
    return p.error;
}

static bool floor_divide(int64_t a, int64_t b, int64_t *quotient, int64_t *remainder)
{
    if (b == 0 || (a == INT64_MIN && b == -1))
        return false;
    int64_t q = a / b, r = a % b;
    bool down = r && (r < 0) != (b < 0);
    *quotient = q - down;
    *remainder = down ? r + b : r;
    return true;
}

/* a op b in *a; false if that has no value. */
static inline bool apply(enum step_code code, int64_t *a, int64_t b)
{
    int64_t rest;
    switch (code) {
    case STEP_ADD:
        return !__builtin_add_overflow(*a, b, a);
    case STEP_SUBTRACT:
        return !__builtin_sub_overflow(*a, b, a);
    case STEP_MULTIPLY:
        return !__builtin_mul_overflow(*a, b, a);
    case STEP_DIVIDE:
        return floor_divide(*a, b, a, &rest);
    case STEP_REMAINDER:
        return floor_divide(*a, b, &rest, a);
    case STEP_CEIL_DIVIDE:
        return floor_divide(*a, b, a, &rest) && !__builtin_add_overflow(*a, rest != 0, a);
    case STEP_MIN:
        *a = *a < b ? *a : b;
        return true;
    case STEP_MAX:
        *a = *a > b ? *a : b;
        return true;
    case STEP_EQUAL:
        *a = *a == b;
        return true;
    case STEP_UNEQUAL:
        *a = *a != b;
        return true;
    case STEP_LESS:
        *a = *a < b;
        return true;
    case STEP_LESS_EQUAL:
        *a = *a <= b;
        return true;
    case STEP_GREATER:
        *a = *a > b;
        return true;
    case STEP_GREATER_EQUAL:
        *a = *a >= b;
        return true;
    case STEP_TRUTH:
        *a = *a != 0;
        return true;
    case STEP_NEGATE:
        return !__builtin_sub_overflow(0, *a, a);
    default:
        return false;
    }
}

static inline int64_t operand_of(const struct expression_step *step, const int64_t *symbols)
{
    return step->operand == OPERAND_SYMBOL ? symbols[step->value] : step->value;
}

bool expression_evaluate(const struct expression *expression, const int64_t *symbols, int64_t *value)
{
    int64_t stack[EXPRESSION_MAX_DEPTH]; /* below `top` */
    const struct expression_step *step = expression->steps, *end = step + expression->num_steps;
    int64_t top = operand_of(step, symbols); /* the first step is a push */
    int depth = 0;
    for (step++; step < end; step++) {
        int64_t right = operand_of(step, symbols);
        if (step->operand == OPERAND_STACK) {
            right = top;
            top = stack[--depth];
        }
        if (step->code == STEP_PUSH) {
            stack[depth++] = top;
            top = right;
        } else if (step->code == STEP_AND || step->code == STEP_OR) {
            if ((top != 0) == (step->code == STEP_OR)) {
                top = top != 0;
                step += right;
            } else {
                step++; /* a push again */
                top = operand_of(step, symbols);
            }
        } else if (!apply((enum step_code)step->code, &top, right)) {
            return false;
        }
    }
    *value = top;
    return true;
}
