/* SPDX-License-Identifier: Apache-2.0 */
/* What the tensors of a problem hold: one function per fill of op.h. Problems without a seed get even lengths
 * and full ranges, as benchmarks want them. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/problem.h"

/* Values of larger tensors repeat after so many; a prime, so that no row equals the one before. */
enum { NORMAL_PERIOD = 1048573 };

static int resolve(void *context, const char *name, int length)
{
    const struct program *program = context;
    for (int i = 0; i < program->num_symbols; i++)
        if (!strncmp(program->symbol[i].name, name, (size_t)length) && !program->symbol[i].name[length])
            return i;
    return -1;
}

/* The value of the dimension, integer or expression that bounds a fill, in the op or its plan. */
static flashinfer_status bound_of(const struct problem *problem, int arg, int64_t *value)
{
    const char *of = problem->op->args[arg].fill.of;
    for (const struct problem *p = problem; of && p; p = p->plan) {
        struct expression_step steps[EXPRESSION_MAX_STEPS];
        struct expression e;
        if (!expression_compile(&e, of, (int)strlen(of), resolve, (void *)(uintptr_t)p->program, steps,
                                EXPRESSION_MAX_STEPS) &&
            expression_evaluate(&e, p->dim, value))
            return FLASHINFER_OK;
    }
    return fail(FLASHINFER_INTERNAL, "%s: the fill of %s is bounded by %s, which is no dimension or integer",
                problem->op->name, problem->op->args[arg].name, of ? of : "nothing");
}

static double special_value(struct random *random, enum dtype dtype, unsigned special)
{
    static const struct {
        double smallest, largest;
    } limits[DTYPE_COUNT] = {
        [DTYPE_F16] = {0x1p-24, 65504},    [DTYPE_BF16] = {0x1p-133, 0x1.fep127},
        [DTYPE_F32] = {0x1p-149, FLT_MAX}, [DTYPE_F64] = {0x1p-1074, DBL_MAX},
        [DTYPE_E4M3] = {0x1p-9, 448},      [DTYPE_E5M2] = {0x1p-16, 57344},
    };
    double sign = random_bits(random) & 1 ? -1 : 1;
    for (;;) {
        unsigned bit = 1u << random_below(random, 5);
        switch (bit & special) {
        case SPECIAL_ZERO:
            return sign * 0.0;
        case SPECIAL_SUBNORMAL:
            return sign * limits[dtype].smallest * (double)random_between(random, 1, 3);
        case SPECIAL_HUGE:
            return sign * limits[dtype].largest;
        case SPECIAL_INFINITY:
            return sign * INFINITY;
        case SPECIAL_NAN:
            return NAN;
        default:
            break;
        }
    }
}

static void fill_real(struct problem *problem, struct problem_tensor *t, const struct op_fill *fill)
{
    int bytes = dtype_bytes(t->dtype);
    int64_t distinct = t->elements < NORMAL_PERIOD ? t->elements : NORMAL_PERIOD;
    double rate = problem->seed && fill->special && problem->seed % 3 == 0 ? 0.01 : 0;
    for (int64_t i = 0; i < distinct; i++) {
        double value = fill->kind == FILL_UNIFORM
                           ? fill->lo + (fill->hi - fill->lo) * random_unit(&problem->random)
                           : random_normal(&problem->random);
        if (rate > 0 && random_chance(&problem->random, rate))
            value = special_value(&problem->random, t->dtype, fill->special);
        if (fill->kind == FILL_UNIFORM && !dtype_is_float(t->dtype))
            value = floor(value);
        problem_set(t, i, value);
    }
    for (int64_t i = distinct; i < t->elements; i += distinct)
        memcpy(t->values + i * bytes, t->values,
               (size_t)((t->elements - i < distinct ? t->elements - i : distinct) * bytes));
}

static void fill_bits(struct problem *problem, struct problem_tensor *t)
{
    for (int64_t i = 0; i < t->elements * dtype_bytes(t->dtype); i++)
        t->values[i] = (unsigned char)(t->dtype == DTYPE_BOOL ? random_bits(&problem->random) & 1
                                                              : random_bits(&problem->random));
}

static void fill_probs(struct problem *problem, struct problem_tensor *t)
{
    int64_t width = t->ndim ? t->shape[t->ndim - 1] : 1;
    for (int64_t row = 0; width && row < t->elements / width; row++) {
        double sum = 0, sharpness = problem->seed ? random_between(&problem->random, 0, 6) : 1;
        for (int64_t i = 0; i < width; i++) {
            double value = exp(sharpness * random_normal(&problem->random));
            problem_set(t, row * width + i, value);
            sum += value;
        }
        for (int64_t i = 0; i < width; i++)
            problem_set(t, row * width + i, problem_get(t, row * width + i) / sum);
    }
}

static void fill_below(struct problem *problem, struct problem_tensor *t, int64_t lo, int64_t hi)
{
    for (int64_t i = 0; i < t->elements; i++)
        problem_set(t, i, (double)random_between(&problem->random, lo, hi > lo ? hi : lo));
}

static void fill_lengths(struct problem *problem, struct problem_tensor *t, int64_t lo, int64_t hi)
{
    for (int64_t i = 0; i < t->elements; i++) {
        uint64_t edge = problem->seed ? random_below(&problem->random, 8) : 0;
        problem_set(t, i,
                    (double)(edge == 0   ? hi
                             : edge == 1 ? lo
                                         : random_between(&problem->random, lo, hi)));
    }
}

/* Distinct numbers as long as there are any, then again. */
static flashinfer_status fill_permuted(struct problem *problem, struct problem_tensor *t, int64_t n)
{
    int64_t *order = calloc((size_t)(n > 0 ? n : 1), sizeof *order);
    if (!order)
        return fail(FLASHINFER_MEMORY, "%s: no memory for a problem", problem->op->name);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = random_between(&problem->random, 0, i);
        order[i] = order[at];
        order[at] = i;
    }
    for (int64_t i = 0; i < t->elements; i++)
        problem_set(t, i, n > 0 ? (double)order[i % n] : 0);
    free(order);
    return FLASHINFER_OK;
}

/* A number in a tensor holds legal numbers. */
static void fill_number(struct problem *problem, struct problem_tensor *t, const struct op_arg *arg,
                        int64_t integer)
{
    double hi = isfinite(op_max(arg)) ? arg->max : arg->value > arg->min ? 2 * arg->value : arg->min + 1;
    for (int64_t i = 0; i < t->elements; i++)
        problem_set(t, i,
                    arg->kind == OP_INT && i == 0
                        ? (double)integer
                        : arg->min + (hi - arg->min) * random_unit(&problem->random));
}

static flashinfer_status fill(struct problem *problem, int i)
{
    const struct op_arg *arg = &problem->op->args[i];
    struct problem_tensor *t = &problem->tensor[i];
    int64_t bound = 0;
    uint8_t kind = arg->fill.kind;
    if (kind == FILL_BELOW || kind == FILL_INDPTR || kind == FILL_PERMUTED || kind == FILL_LENGTHS)
        TRY(bound_of(problem, i, &bound));
    if (t->elements == 0)
        return FLASHINFER_OK;
    switch (kind) {
    case FILL_UNIFORM:
        fill_real(problem, t, &arg->fill);
        break;
    case FILL_PROBS:
        fill_probs(problem, t);
        break;
    case FILL_BELOW:
        fill_below(problem, t, 0, bound - 1);
        break;
    case FILL_INDPTR:
        return problem_fill_indptr(problem, t, bound);
    case FILL_PERMUTED:
        return fill_permuted(problem, t, bound);
    case FILL_LENGTHS:
        fill_lengths(problem, t, (int64_t)arg->fill.lo, bound);
        break;
    case FILL_MASK:
        fill_bits(problem, t);
        break;
    default:
        if (!op_is_tensor(arg))
            fill_number(problem, t, arg,
                        problem->program->arg[i].symbol >= 0 ? problem->dim[problem->program->arg[i].symbol]
                                                             : 0);
        else if (t->dtype == DTYPE_E2M1X2)
            fill_bits(problem, t);
        else if (dtype_is_float(t->dtype))
            fill_real(problem, t, &arg->fill);
    }
    return FLASHINFER_OK;
}

flashinfer_status problem_fill(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        struct problem_tensor *t = &problem->tensor[i];
        const struct op_arg *arg = &problem->op->args[i];
        if (arg->kind == OP_OUT || !t->present)
            continue;
        t->values = calloc((size_t)t->elements + 1, (size_t)dtype_bytes(t->dtype));
        if (!t->values)
            return fail(FLASHINFER_MEMORY, "%s: no memory for %s and its %lld elements", problem->op->name, arg->name,
                        (long long)t->elements);
        TRY(fill(problem, i));
    }
    return FLASHINFER_OK;
}
