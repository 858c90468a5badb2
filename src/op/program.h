/* SPDX-License-Identifier: Apache-2.0 */
/* A declaration, compiled: names are numbers, shapes and rules are code. Made once per op at first use, kept for the rest of the
 * process, and all that walkers need beside the op itself:
 *
 *     const struct program *program = op_program(op);
 *     dim[program_symbol(program, "hidden")] = 4096;
 *     program_shape(program, arg, dim, leading, num_leading, &shape);
 *
 * Symbols are the dimensions of op->dims in that order, then all other names as they appear: dimensions in shapes, arguments of
 * kind INT, ENUM and DTYPE (its value is an enum dtype), `rows` where a shape has `...`, and whatever of the plan's symbols the
 * declaration names. call->dim has one value per symbol. */
#ifndef OP_PROGRAM_H
#define OP_PROGRAM_H

#include "op/expression.h"
#include "op/op.h"

/* What most axes are: a dimension plus an offset. */
struct program_axis {
    int32_t symbol, offset;
};
/* In place of a dimension, which are fewer. */
enum {
    SYMBOL_ZERO = OP_MAX_DIMS - 1,      /* known in every call: the axis is `offset` */
    SYMBOL_EXPRESSION = OP_MAX_DIMS - 2 /* never known: the axis is an expression */
};

/* One alternative of a shape: axes [first, first + count) of program->axes, after the leading ones if `leading`. */
struct program_alternative {
    int16_t first, count;
    bool leading;
    const struct program_axis *axes; /* the same, if at most one is an expression, else NULL */
    uint64_t symbols;                /* that they name */
};

/* An argument, in a cache line. Numbers of arguments are places in op->args. */
struct program_arg {
    uint8_t kind, flags; /* as declared, as is offset */
    uint16_t offset;
    int16_t symbol;      /* INT, ENUM, DTYPE: its symbol; else -1 */
    int16_t like;        /* the argument whose dtype this one may have (DTYPE: defaults to), -1 */
    int16_t like_symbol; /* the symbol of the DTYPE argument, or the plan's, whose value this dtype may be, -1 */
    int16_t by;          /* the symbol that chooses the alternative, -1: there is only one */
    int16_t first_shape; /* into program->shapes; -1: it has no shape */
    int16_t num_shapes;  /* alternatives, in the order of the values of the ENUM `by` */
    int16_t num_names;   /* ENUM: how many values */
    int16_t required_if; /* into program->conditions, -1 */
    int16_t value_of;    /* the symbol that an INT defaults to, -1 */
    uint32_t dtypes;     /* set allowed beside those */
    int32_t num_types;   /* the same as DLDataTypes */
    DLDataType only_type; /* if there is but one, and no other to be like */
    const DLDataType *types;
    const struct program_alternative *plain; /* the first, for tensors that check_plain.c looks at, else NULL */
    uint64_t may_alias; /* bit i: argument i may be the very same tensor */
};

struct program {
    const struct op *op;
    int num_args, num_symbols, num_shapes, num_axes, num_rules, num_conditions;
    int num_dims;   /* symbols that op->dims names: the first */
    int rows;       /* the symbol `rows`, -1 */
    int plan_arg;   /* the argument that is the op's plan, read or written, -1 */
    uint64_t build; /* hash of the library's version and this declaration */
    struct program_arg arg[OP_MAX_ARGS];
    uint64_t written;           /* bit i: argument i is OUT or INOUT */
    uint64_t conditional;       /* bit i: argument i has a required_if */
    /* Arguments as they are checked: plan, values, inputs (those last whose axes tell no dimension), outputs. */
    uint8_t order[OP_MAX_ARGS];
    int num_values;             /* of them, which are no tensors */
    struct {
        const char *name;
        int arg;         /* the INT, ENUM or DTYPE argument of this name, -1 */
        int plan_symbol; /* the plan's symbol that gives the value, -1 */
    } symbol[OP_MAX_DIMS];
    struct {
        uint8_t symbol, plan_symbol;
    } from_plan[OP_MAX_DIMS]; /* the symbols that the plan may know */
    int num_from_plan;
    uint64_t plan_symbols, told_by_plan; /* all of them, as bits of the plan's symbols and of ours */
    /* For recall.c: no other program has or had this number; the op's struct as tensors, those first that are written, and as
     * words that point to no tensor and no plan. */
    uint64_t serial;
    uint16_t tensor_offset[OP_MAX_ARGS], word_offset[OP_MAX_ARGS_BYTES / sizeof(uint64_t)];
    int num_tensors, num_written, num_words;
    const struct program_alternative *shapes;
    const struct expression *axes;
    const struct expression *rules; /* in the order of op->rules */
    const struct expression *conditions;
};

/* NULL if the declaration is wrong; flashinfer_last_error() then says how. */
const struct program *op_program(const struct op *op);

/* -1 if there is none. */
int program_symbol(const struct program *program, const char *name);
int program_argument(const struct program *program, const char *name);

/* The shape of an argument (its tensor, if it is a number), from the values of the symbols and the leading axes. False if it has
 * none, or an expression overflows, divides by zero or is negative. */
bool program_shape(const struct program *program, int arg, const int64_t *dim, const int64_t *leading, int num_leading,
                   int64_t shape[TENSOR_MAX_DIMS], int *ndim);

/* The symbols that the axes of an argument name which are no arguments themselves: bit i is symbol i. */
uint64_t program_dimensions(const struct program *program, int arg);

/* The symbols that a plan tells which knows those in `known`. */
uint64_t program_told_by_plan(const struct program *program, uint64_t known);

/* Whether the argument must not be NULL in a call with these values. */
bool program_required(const struct program *program, int arg, const int64_t *dim);

/* Whether rule i holds. Rules that name a symbol whose bit is not in `bound` say nothing, and hold. */
bool program_rule_holds(const struct program *program, int rule, const int64_t *dim, uint64_t bound);

/* The names of an ENUM argument: the i-th, or -1 and NULL for none. The name is not ended by 0. */
const char *op_enum_name(const struct op_arg *arg, int64_t value, int *length);
int op_enum_value(const struct op_arg *arg, const char *name, int length);

/* Fields of an op's struct, read and written whatever their C type: double or flashinfer_number, int32_t, int64_t or
 * flashinfer_number. */
static inline void *op_field(void *args, const struct op_arg *arg)
{
    return (char *)args + arg->offset;
}
static inline const void *op_field_const(const void *args, const struct op_arg *arg)
{
    return (const char *)args + arg->offset;
}
static inline bool op_is_tensor(const struct op_arg *arg)
{
    return arg->kind >= OP_IN && arg->kind <= OP_INOUT;
}

/* Whether its dtype is a choice of its own. */
static inline bool op_dtype_is_open(const struct op_arg *arg)
{
    return arg->dtype.set & (arg->dtype.set - 1) || (arg->dtype.set && arg->dtype.like);
}

/* The tensor of an IN, OUT or INOUT, or of a number of kind TENSOR; NULL if there is none. */
DLTensor *op_tensor(const void *args, const struct op_arg *arg);
void op_set_tensor(void *args, const struct op_arg *arg, DLTensor *tensor);
void op_set_number(void *args, const struct op_arg *arg, double value); /* NUMBER */
void op_set_int(void *args, const struct op_arg *arg, int64_t value);   /* INT, ENUM */

#endif
