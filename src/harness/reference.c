/* SPDX-License-Identifier: Apache-2.0 */
/* What declarations may call: the functions of reference.h, and those of problem.h for make(). The only file
 * of the harness that is part of the library, because declarations are. */
#include "harness/reference.h"

#include <stdarg.h>
#include <stdio.h>

#include "harness/problem.h"
#include "harness/reference_state.h"

static struct reference_tensor *find(const struct reference *r, const DLTensor *tensor)
{
    for (int i = 0; i < r->state->num_args; i++)
        if (tensor == &r->state->tensor[i].tensor)
            return &r->state->tensor[i];
    return NULL;
}

double *reference_bound(const struct reference *r, const DLTensor *output)
{
    struct reference_tensor *t = find(r, output);
    return t ? t->bound : NULL;
}

const double *reference_got(const struct reference *r, const DLTensor *output)
{
    struct reference_tensor *t = find(r, output);
    return t ? t->got : NULL;
}

bool reference_wants(const struct reference *r, int64_t row)
{
    r->state->asked = true;
    return row % r->state->wanted_every == r->state->wanted_first;
}

enum dtype reference_dtype(const struct reference *r, const DLTensor *tensor)
{
    struct reference_tensor *t = find(r, tensor);
    return t ? t->dtype : DTYPE_NONE;
}

double reference_round(enum dtype dtype, double value)
{
    unsigned char element[8] = {0};
    dtype_store(dtype, element, value);
    return dtype_load(dtype, element);
}

const char *reference_complain(const char *format, ...)
{
    static _Thread_local char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return sentence;
}

int64_t problem_dim(const struct problem *problem, const char *name)
{
    for (; problem; problem = problem->plan) {
        int symbol = program_symbol(problem->program, name);
        if (symbol >= 0)
            return problem->dim[symbol];
    }
    return -1;
}

struct problem_tensor *problem_tensor(struct problem *problem, const char *name)
{
    for (; problem; problem = problem->plan) {
        int arg = program_argument(problem->program, name);
        if (arg >= 0)
            return &problem->tensor[arg];
    }
    return NULL;
}

double problem_get(const struct problem_tensor *tensor, int64_t index)
{
    return dtype_load(tensor->dtype, tensor->values + index * dtype_bytes(tensor->dtype));
}

void problem_set(struct problem_tensor *tensor, int64_t index, double value)
{
    dtype_store(tensor->dtype, tensor->values + index * dtype_bytes(tensor->dtype), value);
}

uint64_t problem_random(struct problem *problem, uint64_t below)
{
    return random_below(&problem->random, below);
}
