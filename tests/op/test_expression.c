/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of shapes and rules: values, precedence, what overflows, what is no expression, and what can be read backwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "op/expression.h"

static const char *const names[] = {"a", "b", "hidden", "zero", "huge", "min"};
static const int64_t values[] = {7, -3, 128, 0, INT64_MAX, 5};

static int resolve(void *context, const char *name, int length)
{
    (void)context;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == (size_t)length && !memcmp(names[i], name, (size_t)length))
            return (int)i;
    return -1;
}

static const char *compile(struct expression *e, const char *text)
{
    static struct expression_step steps[EXPRESSION_MAX_STEPS];
    return expression_compile(e, text, (int)strlen(text), resolve, NULL, steps, EXPRESSION_MAX_STEPS);
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"42", 42},
        {"a", 7},
        {" a + b ", 4},
        {"2+3*4", 14},
        {"(2+3)*4", 20},
        {"10-4-3", 3},
        {"100//7//2", 7},
        {"-a+10", 3},
        {"2*-b", 6},
        {"a%4", 3},
        {"b//2", -2}, /* Python rounds down */
        {"b%2", 1},
        {"a//b", -3},
        {"a%b", -2},
        {"-a//2", -4}, /* (-a)//2 */
        {"min(a, b)", -3},
        {"max(a, b)", 7},
        {"min", 5}, /* a dimension may be called so */
        {"min + max(1, 2)", 7},
        {"ceil(hidden/100)", 2},
        {"ceil(hidden/(4*16))", 2},
        {"ceil(b/2)", -1},
        {"ceil(2*hidden/100)", 3},
        {"ceil(zero/3)*512", 0},
        {"a == 7", 1},
        {"a != 7", 0},
        {"a < 7", 0},
        {"a <= 7", 1},
        {"a > b", 1},
        {"b >= a", 0},
        {"a == 7 and b == -3", 1},
        {"a == 1 or b == 1", 0},
        {"a and b", 1},
        {"zero or a", 1},
        {"1 or zero and zero", 1},
        {"(1 or zero) and zero", 0},
        {"a + 1 == 2 * 4 and hidden % 16 == 0", 1},
        {"zero == 0 or a % zero == 0", 1}, /* the right side is not looked at */
        {"zero != 0 and a // zero == 0", 0},
        {"1 and zero or 1 and a", 1},
        {"huge", INT64_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct expression e;
        int64_t value = -1;
        const char *error = compile(&e, cases[i].text);
        if (error)
            fail_msg("\"%s\": %s", cases[i].text, error);
        if (!expression_evaluate(&e, values, &value) || value != cases[i].value)
            fail_msg("\"%s\" is %lld, expected %lld", cases[i].text, (long long)value, (long long)cases[i].value);
    }
}

static void test_no_value(void **state)
{
    (void)state;
    static const char *const cases[] = {"a // zero", "a % zero",    "ceil(a/zero)",   "huge + 1",         "huge * 2",
                                        "-huge - 2", "huge*huge<0", "1 and a % zero", "zero or a // zero"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct expression e;
        int64_t value;
        assert_null(compile(&e, cases[i]));
        if (expression_evaluate(&e, values, &value))
            fail_msg("\"%s\" has the value %lld", cases[i], (long long)value);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "a number, a name or a parenthesis is missing"},
        {"a +", "a number, a name or a parenthesis is missing"},
        {"a b", "an operator is missing"},
        {"(a", "a closing parenthesis is missing"},
        {"a)", "an operator is missing"},
        {"c", "a name is not known"},
        {"a / 2", "an operator is missing"},
        {"ceil(a)", "ceil takes a quotient, a/b"},
        {"ceil(a//2)", "ceil takes a quotient, a/b"},
        {"ceil(a+1/2)", "ceil takes a quotient, a/b"},
        {"min(a)", "a comma is missing"},
        {"max(a, b", "a closing parenthesis is missing"},
        {"a < b < 3", "a < b < c is written a < b and b < c"},
        {"a = b", "an operator is missing"},
        {"99999999999999999999", "an integer is too large"},
        {"anda", "a name is not known"},
        {"a andb", "an operator is missing"},
        {"((((((((((((((((((a))))))))))))))))))", "the expression is too deep"},
        {"min(min(min(min(min(min(min(min(min(min(min(min(min(min(min(min(min(a", "the expression is too deep"},
        {"1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1+(1))))))))))))))))))", "the expression is too deep"},
        {"1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", "the expression is too long"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct expression e;
        const char *error = compile(&e, cases[i].text);
        if (!error || strcmp(error, cases[i].error))
            fail_msg("\"%s\": %s, expected: %s", cases[i].text, error ? error : "no error", cases[i].error);
    }
}

static void test_backwards(void **state)
{
    (void)state;
    enum { A = 0, HIDDEN = 2 };
    static const struct {
        const char *text;
        int linear, quotient;
        int64_t scale, offset, divisor;
    } cases[] = {
        {"hidden", HIDDEN, -1, 1, 0, 0},     {"2*hidden", HIDDEN, -1, 2, 0, 0},
        {"hidden*2+1", HIDDEN, -1, 2, 1, 0}, {"a+1", A, -1, 1, 1, 0},
        {"3*(a-1)", A, -1, 3, -3, 0},        {"5-(2-a)", A, -1, 1, 3, 0},
        {"hidden//2", -1, HIDDEN, 0, 0, 2},  {"(hidden)//(4*4)", -1, HIDDEN, 0, 0, 16},
        {"hidden//2+1", -1, -1, 0, 0, 0},    {"2*hidden//2", -1, -1, 0, 0, 0},
        {"hidden*a", -1, -1, 0, 0, 0},       {"hidden+a", -1, -1, 0, 0, 0},
        {"10-a", -1, -1, -1, 10, 0},         {"min(a, a)", -1, -1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct expression e;
        assert_null(compile(&e, cases[i].text));
        if (e.linear != cases[i].linear || e.quotient != cases[i].quotient || e.divisor != cases[i].divisor || e.is_constant ||
            (e.linear >= 0 && (e.scale != cases[i].scale || e.offset != cases[i].offset)))
            fail_msg("\"%s\" is read as %lld * #%d + %lld, #%d // %lld", cases[i].text, (long long)e.scale, e.linear,
                     (long long)e.offset, e.quotient, (long long)e.divisor);
    }
    struct expression e;
    assert_null(compile(&e, "4*(3+1)"));
    assert_true(e.is_constant);
    assert_int_equal(e.offset, 16);
    assert_null(compile(&e, "a*hidden + ceil(b/2)"));
    assert_int_equal(e.symbols, 1 << 0 | 1 << 1 | 1 << 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_no_value),
                                       cmocka_unit_test(test_errors), cmocka_unit_test(test_backwards)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
