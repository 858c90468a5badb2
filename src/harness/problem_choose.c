/* SPDX-License-Identifier: Apache-2.0 */
/* What a problem is: values that were given as text, then dtypes, optional arguments and numbers, drawn or at
 * their defaults. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/problem.h"

enum { MAX_WORD = 128 };

#define SEPARATORS " ,\t\n" /* of values */

/* How far below its default or its largest value a number without a least one is drawn. */
#define WINDOW 1000.0

/* The symbol or argument of that name belongs to the plan, or to the op that runs the plan. */
static bool known_elsewhere(const struct problem *problem, const char *name, const struct program *other)
{
    if (problem->plan && (program_symbol(problem->plan->program, name) >= 0 ||
                          program_argument(problem->plan->program, name) >= 0))
        return true;
    return other && (program_symbol(other, name) >= 0 || program_argument(other, name) >= 0);
}

static flashinfer_status complain_dtype(const struct problem *problem, const char *name, const char *what, const char *value,
                                        uint32_t set)
{
    char names[DTYPE_SET_NAMES];
    return fail(FLASHINFER_INVALID, "%s: %s%s=%s must be %s%s", problem->op->name, name, what, value,
                set & (set - 1) ? "one of " : "", dtype_set_names(set, ", ", names));
}

static flashinfer_status parse_symbol(struct problem *problem, int symbol, const char *value)
{
    const char *name = problem->program->symbol[symbol].name;
    int arg = problem->program->symbol[symbol].arg, kind = arg >= 0 ? problem->op->args[arg].kind : OP_INT;
    char *end;
    errno = 0;
    int64_t number = strtoll(value, &end, 10);
    if (arg < 0 && number < 0)
        return fail(FLASHINFER_INVALID, "%s: %s=%s is below 0", problem->op->name, name, value);
    if (kind == OP_DTYPE) {
        number = dtype_by_name(value);
        if (number == DTYPE_NONE)
            return complain_dtype(problem, name, "", value, problem->op->args[arg].dtype.set);
    } else if (errno || *end || end == value) {
        int chosen = kind == OP_ENUM ? op_enum_value(&problem->op->args[arg], value, (int)strlen(value)) : -1;
        if (chosen < 0)
            return fail(FLASHINFER_INVALID, "%s: %s=%s must be %s%s", problem->op->name, name, value,
                        kind == OP_ENUM ? "one of: " : "an integer of at most 64 bits",
                        kind == OP_ENUM ? problem->op->args[arg].names : "");
        number = chosen;
    }
    if (arg >= 0 && problem->op->args[arg].bytes == sizeof(int32_t) && number != (int32_t)number)
        return fail(FLASHINFER_INVALID, "%s: %s=%s does not fit into 32 bits", problem->op->name, name, value);
    problem->dim[symbol] = number;
    problem->fixed |= UINT64_C(1) << symbol;
    if (arg >= 0)
        problem->given |= UINT64_C(1) << arg;
    return FLASHINFER_OK;
}

static flashinfer_status parse_number(struct problem *problem, int arg, const char *value)
{
    char *end;
    problem->number[arg] = strtod(value, &end);
    if (*end || end == value)
        return fail(FLASHINFER_INVALID, "%s: %s=%s is no number", problem->op->name,
                    problem->op->args[arg].name, value);
    problem->given |= UINT64_C(1) << arg;
    return FLASHINFER_OK;
}

/* The argument may have that dtype, and does not follow another. */
static bool takes_dtype(const struct program *program, int arg, enum dtype dtype)
{
    const struct program_arg *a = &program->arg[arg];
    return (program->op->args[arg].dtype.set >> dtype & 1) && a->like < 0 && a->like_symbol < 0;
}

/* What `dtype=` may be, for some argument. */
static uint32_t open_dtypes(const struct program *program)
{
    uint32_t set = 0;
    for (int i = 0; program && i < program->num_args; i++)
        for (int dtype = 1; dtype < DTYPE_COUNT; dtype++)
            set |= (uint32_t)takes_dtype(program, i, (enum dtype)dtype) << dtype;
    return set;
}

/* "dtype=bf16": whatever may be that, and does not follow another. */
static flashinfer_status parse_all_dtypes(struct problem *problem, const char *value, const struct program *other)
{
    enum dtype dtype = dtype_by_name(value);
    const struct program *plan = problem->plan ? problem->plan->program : NULL;
    const uint32_t set = open_dtypes(problem->program) | open_dtypes(plan) | open_dtypes(other);
    if (!(set >> dtype & 1))
        return complain_dtype(problem, "dtype", "", value, set);
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct program_arg *a = &problem->program->arg[i];
        if (!takes_dtype(problem->program, i, dtype))
            continue;
        if (op_is_tensor(&problem->op->args[i]))
            problem->tensor[i].dtype = dtype;
        if (problem->op->args[i].kind == OP_DTYPE) {
            problem->dim[a->symbol] = dtype;
            problem->given |= UINT64_C(1) << i;
        }
    }
    return FLASHINFER_OK;
}

/* A plan's values are read before those of the op that takes it (`other`), which is the one that was asked for. */
static flashinfer_status fail_unknown(const struct problem *problem, const struct program *other, const char *what,
                                      const char *name)
{
    const char *op = problem->op->name;
    return other ? fail(FLASHINFER_INVALID, "neither %s nor %s has the %s %s; `flashinfer explain` names those of each",
                        other->op->name, op, what, name)
                 : fail(FLASHINFER_INVALID, "%s has no %s %s; `flashinfer explain %s` names all", op, what, name, op);
}

/* "input:dtype=bf16" */
static flashinfer_status parse_dtype(struct problem *problem, const char *name, const char *value,
                                     const struct program *other)
{
    int arg = program_argument(problem->program, name);
    enum dtype dtype = dtype_by_name(value);
    if (dtype == DTYPE_NONE)
        return fail(FLASHINFER_INVALID, "%s: %s:dtype=%s names no dtype", problem->op->name, name, value);
    if (arg < 0)
        return known_elsewhere(problem, name, other) ? FLASHINFER_OK : fail_unknown(problem, other, "argument", name);
    problem->tensor[arg].dtype = dtype;
    return FLASHINFER_OK;
}

static flashinfer_status parse_word(struct problem *problem, char *word, const struct program *other)
{
    char *equals = strchr(word, '='), *colon = strstr(word, ":dtype=");
    int arg;
    if (word[0] == '-' && word[1] && !equals) {
        arg = program_argument(problem->program, word + 1);
        if (arg >= 0 && (problem->op->args[arg].flags & OPTIONAL)) {
            problem->tensor[arg].present = false;
            problem->given |= UINT64_C(1) << arg;
            return FLASHINFER_OK;
        }
        return known_elsewhere(problem, word + 1, other) ? FLASHINFER_OK
                                                         : fail_unknown(problem, other, "optional argument", word + 1);
    }
    if (!equals || equals == word)
        return fail(FLASHINFER_INVALID, "%s: \"%s\" is neither NAME=VALUE nor -ARGUMENT", problem->op->name,
                    word);
    *equals = 0;
    if (colon) {
        *colon = 0;
        return parse_dtype(problem, word, equals + 1, other);
    }
    int symbol = program_symbol(problem->program, word);
    if (symbol >= 0)
        return problem->program->symbol[symbol].plan_symbol >= 0 ? FLASHINFER_OK
                                                                 : parse_symbol(problem, symbol, equals + 1);
    arg = program_argument(problem->program, word);
    if (arg >= 0 && problem->op->args[arg].kind == OP_NUMBER)
        return parse_number(problem, arg, equals + 1);
    if (!strcmp(word, "dtype"))
        return parse_all_dtypes(problem, equals + 1, other);
    return known_elsewhere(problem, word, other) ? FLASHINFER_OK : fail_unknown(problem, other, "dimension or number", word);
}

/* Whether a word of `values` before this one of them names the same. */
static bool is_named_before(const char *values, const char *word)
{
    const size_t length = strcspn(word, "=" SEPARATORS);
    bool is_same = false;
    for (; values < word && !is_same; values += strcspn(values, SEPARATORS), values += strspn(values, SEPARATORS))
        is_same = strcspn(values, "=" SEPARATORS) == length && !memcmp(values, word, length);
    return is_same;
}

static flashinfer_status parse_values(struct problem *problem, const char *values, const struct op *runner)
{
    const struct program *other = runner ? op_program(runner) : NULL;
    const char *first = values ? values += strspn(values, SEPARATORS) : NULL;
    for (; values && *values; values += strspn(values, SEPARATORS)) {
        size_t length = strcspn(values, SEPARATORS);
        char word[MAX_WORD];
        if (length >= sizeof word)
            return fail(FLASHINFER_INVALID, "%s: \"%.40s...\" is too long", problem->op->name, values);
        memcpy(word, values, length);
        word[length] = 0;
        if (is_named_before(first, values))
            return fail(FLASHINFER_INVALID, "%s: %.*s is given twice", problem->op->name, (int)strcspn(word, "="), word);
        TRY(parse_word(problem, word, other));
        values += length;
    }
    return FLASHINFER_OK;
}

/* A number that may also stand in a tensor. */
static bool may_be_tensor(const struct problem *problem, int arg)
{
    int kind = problem->op->args[arg].kind;
    return (kind == OP_NUMBER || kind == OP_INT) &&
           problem->op->args[arg].bytes == sizeof(flashinfer_number) &&
           !(problem->op->args[arg].flags & HOST);
}

static void choose_presence(struct problem *problem, bool all)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct op_arg *arg = &problem->op->args[i];
        struct problem_tensor *t = &problem->tensor[i];
        t->written = arg->kind == OP_OUT || arg->kind == OP_INOUT;
        t->host = arg->flags & HOST;
        t->alias = -1;
        if (problem->given >> i & 1)
            continue;
        if (op_is_tensor(arg) && (arg->flags & OPTIONAL))
            t->present = all || problem->plain || random_chance(&problem->random, problem->oddity);
        else if (op_is_tensor(arg))
            t->present = true;
        else
            t->present = may_be_tensor(problem, i) && random_chance(&problem->random, problem->oddity);
        t->single = !op_is_tensor(arg) &&
                    (problem->program->arg[i].first_shape < 0 || random_chance(&problem->random, 0.3));
    }
}

static enum dtype draw_dtype(struct problem *problem, uint32_t set)
{
    int count = __builtin_popcount(set),
        skip = !problem->plain ? (int)random_below(&problem->random, (uint64_t)count) : 0;
    for (; skip > 0; skip--)
        set &= set - 1;
    return (enum dtype)__builtin_ctz(set);
}

static enum dtype resolve_dtype(struct problem *problem, int arg);

static bool follows(const struct problem *problem, int arg)
{
    return problem->program->arg[arg].like >= 0 || problem->program->arg[arg].like_symbol >= 0;
}

/* That of the argument it is like. */
static enum dtype followed_dtype(struct problem *problem, int arg)
{
    const struct program_arg *a = &problem->program->arg[arg];
    if (a->like >= 0)
        return resolve_dtype(problem, a->like);
    int other = problem->program->symbol[a->like_symbol].arg;
    return other >= 0 ? resolve_dtype(problem, other) : (enum dtype)problem->dim[a->like_symbol];
}

/* The dtype of an argument, through those it is like. */
static enum dtype resolve_dtype(struct problem *problem, int arg)
{
    const struct program_arg *a = &problem->program->arg[arg];
    struct problem_tensor *t = &problem->tensor[arg];
    const bool followed = follows(problem, arg);
    if (problem->op->args[arg].kind == OP_DTYPE) {
        int64_t *value = &problem->dim[a->symbol];
        if (!*value)
            *value = followed ? (int64_t)followed_dtype(problem, arg) : (int64_t)problem->op->args[arg].value;
        return (enum dtype)*value;
    }
    if (t->dtype)
        return t->dtype;
    if (a->dtypes && (!followed || (!problem->plain && random_chance(&problem->random, 0.5))))
        return t->dtype = draw_dtype(problem, a->dtypes);
    return t->dtype = followed ? followed_dtype(problem, arg) : DTYPE_NONE;
}

uint32_t problem_legal_dtypes(const struct problem *problem, int arg)
{
    const struct program_arg *a = &problem->program->arg[arg];
    return a->dtypes | (a->like >= 0 ? UINT32_C(1) << problem->tensor[a->like].dtype : 0) |
           (a->like_symbol >= 0 ? UINT32_C(1) << problem->dim[a->like_symbol] : 0);
}

/* What a DTYPE argument is drawn from; 0: it is left at its default. One that others follow is mostly f16 or
 * bf16, which most kernels serve; one that follows another is mostly left alone. */
static uint32_t dtype_choices(struct problem *problem, int arg)
{
    const uint32_t set = problem->program->arg[arg].dtypes;
    const bool followed = follows(problem, arg);
    if (random_chance(&problem->random, problem->oddity) || (!followed && problem->op->args[arg].value == 0))
        return set;
    return followed || problem->plain ? 0 : set & (F16 | BF16);
}

static flashinfer_status choose_dtypes(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        if (problem->op->args[i].kind != OP_DTYPE || problem->given >> i & 1)
            continue;
        uint32_t set = dtype_choices(problem, i);
        if (set) {
            problem->dim[problem->program->arg[i].symbol] = draw_dtype(problem, set);
            problem->given |= UINT64_C(1) << i;
        }
    }
    for (int i = 0; i < problem->program->num_args; i++) {
        resolve_dtype(problem, i);
        if (problem->op->args[i].kind == OP_DTYPE)
            problem->fixed |= UINT64_C(1) << problem->program->arg[i].symbol;
    }
    for (int i = 0; i < problem->program->num_args; i++)
        if (problem->tensor[i].dtype && !(problem_legal_dtypes(problem, i) >> problem->tensor[i].dtype & 1))
            return complain_dtype(problem, problem->op->args[i].name, ":dtype", dtype_name(problem->tensor[i].dtype),
                                  problem_legal_dtypes(problem, i));
    return FLASHINFER_OK;
}

/* Values that the plan has already, under the same name. */
static void import_symbols(struct problem *problem)
{
    for (int i = 0; problem->plan && i < problem->program->num_symbols; i++) {
        int there = problem->program->symbol[i].plan_symbol;
        if (there < 0 && !(problem->fixed >> i & 1))
            there = program_symbol(problem->plan->program, problem->program->symbol[i].name);
        if (there < 0)
            continue;
        problem->dim[i] = problem->plan->dim[there];
        problem->fixed |= UINT64_C(1) << i;
        if (problem->program->symbol[i].arg >= 0)
            problem->given |= UINT64_C(1) << problem->program->symbol[i].arg;
    }
}

static void choose_numbers(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct op_arg *arg = &problem->op->args[i];
        if (arg->kind != OP_NUMBER || problem->given >> i & 1)
            continue;
        problem->number[i] = arg->value;
        if (!random_chance(&problem->random, problem->oddity))
            continue;
        bool bounded = isfinite(op_max(arg));
        double lo = isfinite(arg->min) ? arg->min : fmin(bounded ? arg->max : arg->value, 0) - WINDOW;
        double hi = bounded ? arg->max : arg->value > fmax(lo, 0) ? 2 * arg->value : fmax(lo, arg->value) + 1;
        uint64_t edge = random_below(&problem->random, 4);
        double share = edge == 0 ? 0 : edge == 1 && bounded ? 1 : random_unit(&problem->random);
        problem->number[i] = fmin(fmax(lo * (1 - share) + hi * share, lo), hi);
        problem->given |= UINT64_C(1) << i;
    }
}

/* Leading axes whose product is `rows`. */
static void choose_leading(struct problem *problem)
{
    if (problem->program->rows < 0)
        return;
    int64_t rows = problem->dim[problem->program->rows], divisor = 1;
    int axes = problem->seed ? (int)random_between(&problem->random, rows == 1 ? 0 : 1, 3) : 1;
    problem->num_leading = axes;
    for (int i = 0; i + 1 < axes; i++) {
        for (int tries = 0; tries < 8; tries++) {
            divisor = random_between(&problem->random, 1, 8);
            if (rows % divisor == 0)
                break;
            divisor = 1;
        }
        problem->leading[i] = divisor;
        rows /= divisor;
    }
    if (axes)
        problem->leading[axes - 1] = rows;
}

/* An output may be its input itself where the declaration says so. */
static void choose_aliases(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        struct problem_tensor *t = &problem->tensor[i];
        uint64_t may = problem->program->arg[i].may_alias;
        if (!may || !t->present || !t->written ||
            !random_chance(&problem->random, 0.3))
            continue;
        int other = __builtin_ctzll(may);
        const struct problem_tensor *o = &problem->tensor[other];
        if (o->present && o->dtype == t->dtype && o->ndim == t->ndim &&
            !memcmp(o->shape, t->shape, sizeof t->shape[0] * (size_t)t->ndim))
            t->alias = other;
    }
}

/* Tensors that the dimensions ask for, unless they were asked to be absent. */
static flashinfer_status choose_required(struct problem *problem)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct op_arg *arg = &problem->op->args[i];
        struct problem_tensor *t = &problem->tensor[i];
        if (!arg->required_if || t->present || !program_required(problem->program, i, problem->dim))
            continue;
        if (problem->given >> i & 1)
            return fail(FLASHINFER_INVALID, "%s: -%s needs values for which this does not hold: %s", problem->op->name, arg->name,
                        arg->required_if);
        t->present = true;
    }
    return FLASHINFER_OK;
}

flashinfer_status problem_choose(struct problem *problem, const struct problem_request *request)
{
    for (int i = 0; i < problem->program->num_args; i++)
        problem->tensor[i].alias = -1;
    TRY(parse_values(problem, request->values, request->runner));
    TRY(parse_values(problem, request->instead, request->runner));
    import_symbols(problem);
    choose_presence(problem, request->complete || request->broken_rule);
    TRY(choose_dtypes(problem));
    TRY(problem_solve(problem, request->broken_rule));
    TRY(choose_required(problem));
    choose_leading(problem);
    choose_numbers(problem);
    if (!problem_shapes(problem))
        return fail(FLASHINFER_INVALID, "%s: %s %s gives a shape that cannot be", problem->op->name,
                    request->values ? request->values : "", request->instead ? request->instead : "");
    if (problem->seed)
        choose_aliases(problem);
    return FLASHINFER_OK;
}
