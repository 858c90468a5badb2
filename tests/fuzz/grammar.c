/* SPDX-License-Identifier: Apache-2.0 */
/* A reader of shapes and rules that keeps nothing: each rule of the grammar is a function that returns the value. */
#include "tests/fuzz/grammar.h"

#include <ctype.h>
#include <string.h>

enum { MAX_NESTING = 120 };

struct reader {
    const char *at, *end;
    grammar_lookup lookup;
    void *context;
    int nesting;
    bool wrong, too_deep;
};

struct number {
    bool exists;
    int64_t value;
};

static const struct number none = {false, 0};

static struct number read_or(struct reader *r);

static struct number wrong(struct reader *r)
{
    r->wrong = true;
    return none;
}

static struct number number(__int128 value)
{
    return value >= INT64_MIN && value <= INT64_MAX ? (struct number){true, (int64_t)value} : none;
}

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static void skip(struct reader *r)
{
    while (r->at < r->end && *r->at == ' ')
        r->at++;
}

/* Whether the next characters are these and the one behind them is none of `not_before`. */
static bool accept(struct reader *r, const char *token, const char *not_before)
{
    skip(r);
    size_t length = strlen(token), left = (size_t)(r->end - r->at);
    if (r->wrong || left < length || strncmp(r->at, token, length))
        return false;
    if (left > length && r->at[length] && strchr(not_before, r->at[length]))
        return false;
    if (left > length && in_word(token[0]) && in_word(r->at[length]))
        return false;
    r->at += length;
    return true;
}

static __int128 floor_of(__int128 a, __int128 b)
{
    __int128 q = a / b;
    return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

static struct number divide(struct number a, struct number b, char kind)
{
    if (!a.exists || !b.exists || b.value == 0 || (a.value == INT64_MIN && b.value == -1))
        return none;
    __int128 floor = floor_of(a.value, b.value), rest = a.value - floor * b.value;
    return number(kind == '/' ? floor : kind == '%' ? rest : floor + (rest != 0));
}

static struct number arithmetic(struct number a, struct number b, char operator)
{
    if (!a.exists || !b.exists)
        return none;
    __int128 x = a.value, y = b.value;
    switch (operator) {
    case '+':
        return number(x + y);
    case '-':
        return number(x - y);
    case '*':
        return number(x * y);
    case 'm':
        return number(x < y ? x : y);
    default:
        return number(x > y ? x : y);
    }
}

static struct number read_unary(struct reader *r);

static struct number read_product(struct reader *r)
{
    struct number left = read_unary(r);
    while (!r->wrong) {
        if (accept(r, "*", ""))
            left = arithmetic(left, read_unary(r), '*');
        else if (accept(r, "//", ""))
            left = divide(left, read_unary(r), '/');
        else if (accept(r, "%", ""))
            left = divide(left, read_unary(r), '%');
        else
            break;
    }
    return left;
}

static struct number read_word(struct reader *r)
{
    const char *start = r->at;
    __int128 value = 0;
    if (isdigit((unsigned char)*start)) {
        for (; r->at < r->end && isdigit((unsigned char)*r->at); r->at++)
            if ((value = value * 10 + (*r->at - '0')) > INT64_MAX)
                return wrong(r);
        return number(value);
    }
    while (r->at < r->end && in_word(*r->at))
        r->at++;
    struct number found = {true, 0};
    bool known = r->lookup(r->context, start, (int)(r->at - start), &found.value);
    return known ? found : wrong(r);
}

static struct number read_call(struct reader *r, char function)
{
    struct number left = function == 'c' ? read_product(r) : read_or(r);
    if (!accept(r, function == 'c' ? "/" : ",", function == 'c' ? "/" : ""))
        return wrong(r);
    struct number right = function == 'c' ? read_unary(r) : read_or(r);
    if (!accept(r, ")", ""))
        return wrong(r);
    return function == 'c' ? divide(left, right, 'c') : arithmetic(left, right, function);
}

static struct number read_primary(struct reader *r)
{
    static const struct {
        const char *name;
        char function;
    } calls[] = {{"min", 'm'}, {"max", 'M'}, {"ceil", 'c'}};
    if (accept(r, "(", "")) {
        struct number inner = read_or(r);
        return accept(r, ")", "") ? inner : wrong(r);
    }
    for (int i = 0; i < 3; i++) {
        const char *start = r->at;
        if (accept(r, calls[i].name, "") && accept(r, "(", ""))
            return read_call(r, calls[i].function);
        r->at = start;
    }
    skip(r);
    return r->at < r->end && in_word(*r->at) ? read_word(r) : wrong(r);
}

static struct number read_unary(struct reader *r)
{
    if (r->wrong)
        return none;
    if (++r->nesting > MAX_NESTING) {
        r->too_deep = true;
        return wrong(r);
    }
    bool negative = accept(r, "-", "");
    struct number value = read_primary(r);
    r->nesting--;
    return negative ? arithmetic((struct number){true, 0}, value, '-') : value;
}

static struct number read_sum(struct reader *r)
{
    struct number left = read_product(r);
    while (!r->wrong) {
        char operator= accept(r, "+", "") ? '+' : accept(r, "-", "") ? '-' : 0;
        if (!operator)
            break;
        left = arithmetic(left, read_product(r), operator);
    }
    return left;
}

/* 0 if none is next. */
static const char *read_comparator(struct reader *r)
{
    static const char *const all[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (int i = 0; i < 6; i++)
        if (accept(r, all[i], i < 4 ? "" : "="))
            return all[i];
    return NULL;
}

static struct number read_comparison(struct reader *r)
{
    struct number a = read_sum(r);
    const char *how = r->wrong ? NULL : read_comparator(r);
    if (!how)
        return a;
    struct number b = read_sum(r);
    if (!r->wrong && read_comparator(r))
        return wrong(r);
    if (!a.exists || !b.exists)
        return none;
    bool equal = a.value == b.value, less = a.value < b.value;
    bool holds = how[0] == '='   ? equal
                 : how[0] == '!' ? !equal
                 : how[0] == '<' ? less || (how[1] && equal)
                                 : !less && (how[1] || !equal);
    return number(holds);
}

static struct number read_and(struct reader *r)
{
    struct number left = read_comparison(r);
    while (!r->wrong && accept(r, "and", "")) {
        struct number right = read_comparison(r);
        if (left.exists && left.value)
            left = right.exists ? number(right.value != 0) : none;
        else if (left.exists)
            left = number(0);
    }
    return left;
}

static struct number read_or(struct reader *r)
{
    struct number left = read_and(r);
    while (!r->wrong && accept(r, "or", "")) {
        struct number right = read_and(r);
        if (left.exists && left.value)
            left = number(1);
        else if (left.exists)
            left = right.exists ? number(right.value != 0) : none;
    }
    return left;
}

enum grammar_outcome grammar_evaluate(const char *text, int length, grammar_lookup lookup, void *context, int64_t *value)
{
    struct reader r = {.at = text, .end = text + length, .lookup = lookup, .context = context};
    struct number result = read_or(&r);
    skip(&r);
    if (r.too_deep)
        return GRAMMAR_TOO_DEEP;
    if (r.wrong || r.at < r.end)
        return GRAMMAR_WRONG;
    *value = result.value;
    return result.exists ? GRAMMAR_VALUE : GRAMMAR_NO_VALUE;
}

/* The first place of `c` outside of parentheses, or the end. */
static int find(const char *text, int length, char c)
{
    int open = 0, i = 0;
    for (; i < length; i++) {
        if (text[i] == c && open <= 0)
            break;
        open += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
    }
    return i;
}

bool grammar_alternative(const char *shape, const char *label, int label_length, const char **text, int *length)
{
    *text = shape;
    *length = (int)strlen(shape);
    if (!label)
        return true;
    for (int left = *length; left > 0;) {
        int size = find(shape, left, '|'), colon = find(shape, size, ':'), start = 0;
        while (start < colon && shape[start] == ' ')
            start++;
        if (colon < size && colon - start == label_length && !strncmp(shape + start, label, (size_t)label_length)) {
            *text = shape + colon + 1;
            *length = size - colon - 1;
            return true;
        }
        shape += size + 1;
        left -= size + 1;
    }
    return false;
}

bool grammar_axis(const char **text, int *left, const char **axis, int *length)
{
    while (*left > 0 && **text == ' ')
        (*text)++, (*left)--;
    if (*left <= 0)
        return false;
    *axis = *text;
    *length = find(*text, *left, ' ');
    *text += *length;
    *left -= *length;
    return true;
}
