/* SPDX-License-Identifier: Apache-2.0 */
/* A problem as a whole: made in steps, described in one line, destroyed. */
#include "harness/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void problem_destroy(struct problem *problem)
{
    if (!problem)
        return;
    problem_destroy(problem->plan);
    for (int i = 0; i < problem->program->num_args; i++)
        free(problem->tensor[i].values);
    for (int i = 0; i < problem->num_memories; i++)
        free(problem->memory[i].image);
    free(problem);
}

double problem_bytes(const struct problem *problem)
{
    double bytes = 0;
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct problem_tensor *t = &problem->tensor[i];
        if (t->present)
            bytes += (double)t->elements * dtype_bytes(t->dtype);
    }
    return bytes;
}

static void append(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Adds a word, after a space if it is not the first. */
static void append(char *buffer, size_t size, const char *format, ...)
{
    size_t length = strlen(buffer);
    va_list arguments;
    va_start(arguments, format);
    if (length && length + 1 < size)
        buffer[length++] = ' ';
    vsnprintf(buffer + length, size - length, format, arguments);
    va_end(arguments);
}

static bool open_dtype(const struct problem *problem, int arg)
{
    return op_is_tensor(&problem->op->args[arg]) && op_dtype_is_open(&problem->op->args[arg]);
}

static enum dtype dtype_of_argument(const struct problem *problem, int arg)
{
    bool named = problem->op->args[arg].kind == OP_DTYPE;
    return named ? (enum dtype)problem->dim[problem->program->arg[arg].symbol] : problem->tensor[arg].dtype;
}

enum dtype problem_open_dtype(const struct problem *problem, int arg)
{
    const bool there = problem->op->args[arg].kind == OP_DTYPE || problem->tensor[arg].present;
    return there && op_dtype_is_open(&problem->op->args[arg]) ? dtype_of_argument(problem, arg) : DTYPE_NONE;
}

static void append_once(char *buffer, size_t size, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = buffer; (at = strstr(at, word)); at += length)
        if ((at == buffer || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return;
    append(buffer, size, "%s", word);
}

/* The plan's first; then what this op leaves open; without any, what it fixes. */
static void gather_dtypes(const struct problem *problem, char *buffer, size_t size)
{
    if (problem->plan)
        gather_dtypes(problem->plan, buffer, size);
    for (int i = 0; i < problem->program->num_args; i++)
        if (open_dtype(problem, i) || problem->op->args[i].kind == OP_DTYPE)
            append_once(buffer, size, dtype_name(dtype_of_argument(problem, i)));
    for (int i = 0; !buffer[0] && i < problem->program->num_args; i++)
        if (op_is_tensor(&problem->op->args[i]))
            append_once(buffer, size, dtype_name(dtype_of_argument(problem, i)));
}

void problem_dtypes(const struct problem *problem, char *buffer, size_t size)
{
    buffer[0] = 0;
    gather_dtypes(problem, buffer, size);
    if (!buffer[0])
        append(buffer, size, "-");
}

static void describe_symbols(const struct problem *problem, char *text, size_t size)
{
    for (int i = 0; i < problem->program->num_symbols; i++) {
        int arg = problem->program->symbol[i].arg, length;
        const char *name = problem->program->symbol[i].name, *value = NULL;
        bool in_plan = problem->plan && program_symbol(problem->plan->program, name) >= 0;
        if (in_plan || (arg >= 0 && !(problem->given >> arg & 1)))
            continue;
        if (arg >= 0 && problem->op->args[arg].kind == OP_ENUM)
            value = op_enum_name(&problem->op->args[arg], problem->dim[i], &length);
        if (arg >= 0 && problem->op->args[arg].kind == OP_DTYPE)
            append(text, size, "%s=%s", name, dtype_name((enum dtype)problem->dim[i]));
        else if (value)
            append(text, size, "%s=%.*s", name, length, value);
        else
            append(text, size, "%s=%lld", name, (long long)problem->dim[i]);
    }
}

static void describe(const struct problem *problem, char *text, size_t size)
{
    describe_symbols(problem, text, size);
    for (int i = 0; i < problem->program->num_args; i++) {
        const struct op_arg *arg = &problem->op->args[i];
        if (arg->kind == OP_NUMBER && problem->given >> i & 1 && !problem->tensor[i].present)
            append(text, size, "%s=%.9g", arg->name, problem->number[i]);
        if (op_is_tensor(arg) && !problem->tensor[i].present)
            append(text, size, "-%s", arg->name);
        else if (open_dtype(problem, i))
            append(text, size, "%s:dtype=%s", arg->name, dtype_name(problem->tensor[i].dtype));
    }
}

static flashinfer_status build(struct problem *problem, const struct problem_request *request)
{
    if (problem->op->plan) {
        struct problem_request plan = *request;
        plan.op = problem->op->plan;
        plan.broken_rule = 0;
        plan.runner = problem->op;
        plan.without_values = false; /* it lies on the host, where plan ops read it */
        TRY(problem_create(&plan, &problem->plan));
        append(problem->text, sizeof problem->text, "%s", problem->plan->text);
    }
    TRY(problem_choose(problem, request));
    describe(problem, problem->text, sizeof problem->text);
    if (!request->without_values) {
        TRY(problem_fill(problem));
        if (problem->op->make)
            problem->op->make(problem);
    }
    return problem_lay_out(problem);
}

flashinfer_status problem_create(const struct problem_request *request, struct problem **out)
{
    static const double oddities[] = {0, 0.08, 0.35};
    const struct program *program = op_program(request->op);
    if (!program)
        return FLASHINFER_INTERNAL;
    struct problem *problem = calloc(1, sizeof *problem);
    if (!problem)
        return fail(FLASHINFER_MEMORY, "%s: no memory for a problem", request->op->name);
    problem->op = request->op;
    problem->program = program;
    problem->seed = request->seed;
    problem->plain = request->plain || !request->seed;
    problem->without_values = request->without_values;
    problem->row_major = request->row_major;
    problem->random.state = request->seed * UINT64_C(0x2545f4914f6cdd1d);
    for (const char *c = request->op->name; *c; c++)
        problem->random.state = problem->random.state * 31 + (unsigned char)*c;
    problem->oddity = problem->plain ? 0 : oddities[random_below(&problem->random, 3)];
    flashinfer_status status = build(problem, request);
    if (status) {
        problem_destroy(problem);
        return status;
    }
    *out = problem;
    return FLASHINFER_OK;
}
