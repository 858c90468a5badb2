/* SPDX-License-Identifier: Apache-2.0 */
/* Draws dimensions and integers until every rule of the op holds (or all but one). A draw that breaks a rule
 * is mended one symbol of that rule at a time; if that leads nowhere, all is drawn again, smaller and
 * smaller. */
#include <math.h>
#include <string.h>

#include "harness/problem.h"

enum { ATTEMPTS = 300, REPAIRS = 60, CANDIDATES = 48, MAX_RANDOM_ELEMENTS = 1 << 21, DEFAULT_DIM = 64 };

static const struct op_range *range_of(const struct problem *problem, const char *name)
{
    for (const struct op_range *range = problem->op->ranges; range && range->name; range++)
        if (!strcmp(range->name, name))
            return range;
    return NULL;
}

/* Without limits, any value of the field whose sums and small multiples fit into an integer. */
static struct op_range limits_of_argument(const struct op_arg *a)
{
    double farthest = a->bytes == sizeof(int32_t) ? 0x1p30 : 0x1p60;
    double lo = fmax(a->min, -farthest), hi = isfinite(a->min) ? lo + DEFAULT_DIM : farthest;
    if (isfinite(op_max(a)))
        hi = a->max;
    return (struct op_range){.lo = (int64_t)fmin(lo, farthest), .hi = (int64_t)fmin(hi, farthest)};
}

/* What a symbol may be: its range, else the limits of its argument, else a small dimension. */
static struct op_range limits(const struct problem *problem, int symbol)
{
    int arg = problem->program->symbol[symbol].arg;
    const struct op_range *range = range_of(problem, problem->program->symbol[symbol].name);
    const struct op_arg *a = arg >= 0 ? &problem->op->args[arg] : NULL;
    struct op_range r = {.lo = 1, .hi = DEFAULT_DIM, .multiple = 1};
    if (range)
        r = *range;
    else if (a && a->kind == OP_ENUM)
        r = (struct op_range){.lo = 0, .hi = problem->program->arg[arg].num_names - 1};
    else if (a)
        r = limits_of_argument(a);
    if (r.multiple < 1)
        r.multiple = 1;
    return r;
}

static int64_t clamp(const struct op_range *r, int64_t value)
{
    value = value < r->lo ? r->lo : value > r->hi ? r->hi : value;
    value += r->multiple / 2; /* to the nearest: of two values, each is as likely */
    int64_t down = value - (value % r->multiple + r->multiple) % r->multiple;
    return down > r->hi ? down - r->multiple : down >= r->lo ? down : down + r->multiple;
}

static int64_t draw_any(struct random *random, const struct op_range *r)
{
    static const int16_t primes[] = {2,   3,   5,   7,   11,  13,  17,   31,   61,   97,
                                     127, 131, 251, 257, 509, 521, 1021, 1031, 2053, 4099};
    int64_t span = r->hi - r->lo, power;
    int bits = 1;
    while (bits < 14 && INT64_C(1) << bits <= r->hi)
        bits++;
    switch (random_below(random, 8)) {
    case 0:
        return r->lo;
    case 1:
        return r->hi;
    case 2:
        return random_between(random, r->lo, r->lo + (span < 5 * r->multiple ? span : 5 * r->multiple));
    case 3:
        return primes[random_below(random, sizeof primes / sizeof *primes)];
    case 4:
        return INT64_C(1) << random_below(random, (uint64_t)bits);
    case 5:
        return (INT64_C(1) << random_below(random, 14)) + random_between(random, -1, 1);
    case 6:
        return random_between(random, r->lo, r->hi);
    default:
        for (power = 1; power < span && random_below(random, 16); power *= 2)
            ;
        return random_between(random, r->lo, r->lo + (power < span ? power : span));
    }
}

/* Zero mostly makes a call that does nothing: less often than other edges. */
static int64_t draw(struct random *random, const struct op_range *r)
{
    int64_t value = draw_any(random, r);
    return value > 0 || r->lo != 0 || random_below(random, 4) == 0 ? value : r->lo + r->multiple;
}

static void draw_symbol(struct problem *problem, int symbol, int attempt)
{
    int arg = problem->program->symbol[symbol].arg;
    const struct op_arg *a = arg >= 0 ? &problem->op->args[arg] : NULL;
    struct op_range r = limits(problem, symbol);
    bool ranged = range_of(problem, problem->program->symbol[symbol].name) && !(a && a->flags & RARELY);
    bool has_default =
        a && (a->kind == OP_ENUM || (a->value >= a->min && a->value <= op_max(a)));
    problem->given &= arg >= 0 ? ~(UINT64_C(1) << arg) : ~UINT64_C(0);
    if (has_default && (problem->plain || (!ranged && !random_chance(&problem->random, problem->oddity)))) {
        problem->dim[symbol] = (int64_t)a->value;
        return;
    }
    if (arg >= 0)
        problem->given |= UINT64_C(1) << arg;
    if (problem->plain && attempt == 0) {
        problem->dim[symbol] = clamp(&r, DEFAULT_DIM);
        return;
    }
    int64_t hi = r.lo + ((r.hi - r.lo) >> (attempt / 12 < 62 ? attempt / 12 : 62));
    r.hi = hi > r.lo + 8 * r.multiple || hi > r.hi ? hi
           : r.hi < r.lo + 8 * r.multiple          ? r.hi
                                                   : r.lo + 8 * r.multiple;
    problem->dim[symbol] = clamp(&r, draw(&problem->random, &r));
    /* Plain integers mean their default by zero. */
    if (a && a->bytes != sizeof(flashinfer_number) && problem->dim[symbol] == 0 && a->kind == OP_INT) {
        problem->dim[symbol] = (int64_t)a->value;
        if (a->value_of)
            problem->given &= ~(UINT64_C(1) << arg);
    }
}

/* Integers that default to another one follow it. Returns the symbols that a call tells: numbers in tensors,
 * and optional ones that are not given, tell nothing. */
static uint64_t settle(struct problem *problem)
{
    uint64_t bound = ~UINT64_C(0);
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct program_arg *a = &problem->program->arg[i];
        const struct op_arg *arg = &problem->op->args[i];
        bool given = problem->given >> i & 1;
        if (arg->kind == OP_INT && a->value_of >= 0 && !given && !(problem->fixed >> a->symbol & 1))
            problem->dim[a->symbol] = problem->dim[a->value_of];
        bool number = arg->kind == OP_INT && arg->bytes == sizeof(flashinfer_number);
        if (number && (problem->tensor[i].present || (!given && arg->flags & OPTIONAL)))
            bound &= ~(UINT64_C(1) << a->symbol);
    }
    return bound;
}

/* How many rules are not as they should be; *first is one of them. */
static int count_wrong(struct problem *problem, int broken_rule, int *first)
{
    int wrong = 0;
    uint64_t bound = settle(problem);
    for (int i = problem->program->num_rules - 1; i >= 0; i--)
        if (program_rule_holds(problem->program, i, problem->dim, bound) == (i + 1 == broken_rule)) {
            wrong++;
            *first = i;
        }
    return wrong;
}

static int pick_bit(struct random *random, uint64_t bits)
{
    for (uint64_t skip = random_below(random, (uint64_t)__builtin_popcountll(bits)); skip; skip--)
        bits &= bits - 1;
    return __builtin_ctzll(bits);
}

/* A value that may make a rule hold: one of its other symbols, or two of them combined, or something near. */
static int64_t related(struct problem *problem, uint64_t symbols, int64_t old)
{
    if (!symbols)
        return old + random_between(&problem->random, -2, 2);
    int64_t a = problem->dim[pick_bit(&problem->random, symbols)],
            b = problem->dim[pick_bit(&problem->random, symbols)], product;
    switch (random_below(&problem->random, 8)) {
    case 0:
        return a + b;
    case 1:
        return __builtin_mul_overflow(a, b, &product) ? a : product;
    case 2:
        return b ? a / b : a;
    case 3:
        return b ? (a + b - 1) / b : a;
    case 4:
        return a - b;
    case 5:
        return a + random_between(&problem->random, -1, 1);
    case 6:
        return __builtin_mul_overflow(a, random_between(&problem->random, 1, 8), &product) ? a : product;
    default:
        return a;
    }
}

/* Whether nothing but a rule refuses a value, though random problems do not use it. */
static bool defined(const struct problem *problem, int arg, int64_t value)
{
    const struct op_arg *a = arg >= 0 ? &problem->op->args[arg] : NULL;
    return !a ? value >= 0
              : a->kind == OP_INT && (double)value >= a->min && (double)value <= op_max(a);
}

/* Changes one symbol of the rule to what leaves the fewest rules wrong. */
static void repair(struct problem *problem, int rule, int broken_rule, int attempt)
{
    uint64_t symbols = problem->program->rules[rule].symbols, free_symbols = symbols & ~problem->fixed;
    if (!free_symbols)
        return;
    int symbol = pick_bit(&problem->random, free_symbols), ignored;
    int arg = problem->program->symbol[symbol].arg;
    struct op_range r = limits(problem, symbol);
    int64_t best = problem->dim[symbol];
    uint64_t given = problem->given;
    int fewest = count_wrong(problem, broken_rule, &ignored);
    for (int i = 0; i < CANDIDATES && fewest > 0; i++) {
        int64_t old = problem->dim[symbol];
        if (i % 4 == 0) {
            draw_symbol(problem, symbol, attempt);
        } else {
            problem->dim[symbol] = related(problem, symbols & ~(UINT64_C(1) << symbol), old);
            problem->given |= arg >= 0 ? UINT64_C(1) << arg : 0;
        }
        int64_t value = problem->dim[symbol];
        bool legal = value == clamp(&r, value) ||
                     (broken_rule && defined(problem, arg, value) && value <= 4 * r.hi + 16);
        int wrong = count_wrong(problem, broken_rule, &ignored);
        if (legal && wrong < fewest) {
            fewest = wrong;
            best = value;
            given = problem->given;
        }
    }
    problem->dim[symbol] = best;
    problem->given = given;
}

bool problem_shapes(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        struct problem_tensor *t = &problem->tensor[i];
        if (!t->present && !op_is_tensor(&problem->op->args[i]))
            continue;
        bool possible = t->single || program_shape(problem->program, i, problem->dim, problem->leading,
                                                   problem->num_leading, t->shape, &t->ndim);
        if (t->single)
            t->shape[0] = t->ndim = 1;
        if (!possible && t->present)
            return false;
        t->elements = possible;
        for (int axis = 0; possible && axis < t->ndim; axis++)
            if (__builtin_mul_overflow(t->elements, t->shape[axis], &t->elements))
                return false;
    }
    return true;
}

/* The leading axes are not chosen yet: their product counts. */
static double count_elements(struct problem *problem)
{
    double total = 0;
    if (problem->program->rows >= 0) {
        problem->num_leading = 1;
        problem->leading[0] = problem->dim[problem->program->rows];
    }
    if (!problem_shapes(problem))
        return -1;
    for (int i = 0; i < problem->program->num_args; i++)
        total += problem->tensor[i].present ? (double)problem->tensor[i].elements : 0;
    return total;
}

flashinfer_status problem_solve(struct problem *problem, int broken_rule)
{
    int rule = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        for (int i = 0; i < problem->program->num_symbols; i++)
            if (!(problem->fixed >> i & 1))
                draw_symbol(problem, i, attempt);
        for (int i = 0; i < REPAIRS && count_wrong(problem, broken_rule, &rule); i++)
            repair(problem, rule, broken_rule, attempt);
        if (count_wrong(problem, broken_rule, &rule))
            continue;
        double elements = count_elements(problem);
        if (elements >= 0 && (elements <= MAX_RANDOM_ELEMENTS || problem->plain || attempt > ATTEMPTS / 2))
            return FLASHINFER_OK;
    }
    if (!count_wrong(problem, broken_rule, &rule))
        return fail(FLASHINFER_INVALID, "%s: no dimensions were found that give possible shapes",
                    problem->op->name);
    const char *text = problem->op->rules[rule];
    return rule + 1 == broken_rule
               ? fail(FLASHINFER_UNSUPPORTED, "%s: nothing was found that breaks only \"%s\"",
                      problem->op->name, text)
               : fail(FLASHINFER_INVALID, "%s: no problem with these values was found for which this holds: %s",
                      problem->op->name, text);
}
