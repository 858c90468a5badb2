/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions over an op's dimensions and integers, in the grammar of op.h, which is a subset of Python's: compiled once to
 * postfix code, evaluated on int64. Division and remainder round towards minus infinity, as in Python; `and` and `or` look at
 * their right side only if need be, and give 0 or 1. */
#ifndef OP_EXPRESSION_H
#define OP_EXPRESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EXPRESSION_MAX_STEPS = 32, /* of one expression */
    EXPRESSION_MAX_DEPTH = 16  /* values on the stack; also of parentheses */
};

struct expression_step {
    int64_t value; /* constant, symbol or how many steps to jump */
    int32_t code, operand;
};

struct expression {
    int32_t symbol;   /* the value is that symbol; -1: it is not that simple */
    int32_t linear;   /* the value is scale * symbol `linear` + offset, scale > 0; -1: it is not of that form */
    int32_t quotient; /* the value is symbol `quotient` // divisor, divisor > 0; -1: it is not of that form */
    int64_t scale, offset, divisor;
    bool is_constant; /* the value is offset */
    uint64_t symbols; /* bit i: names symbol i */
    const struct expression_step *steps;
    int32_t num_steps;
    int32_t length;
    const char *text; /* as written, `length` characters */
};

/* Gives the number of the symbol of that name, or -1 if there is none. */
typedef int (*expression_resolve)(void *context, const char *name, int length);

/* Compiles text[0..length). Writes at most `room` steps to `steps`, which `out` then points to. NULL, or what is wrong. */
const char *expression_compile(struct expression *out, const char *text, int length, expression_resolve resolve, void *context,
                               struct expression_step *steps, int room);

/* False on overflow and on division by zero. */
bool expression_evaluate(const struct expression *expression, const int64_t *symbols, int64_t *value);

#endif
