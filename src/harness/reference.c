/* SPDX-License-Identifier: Apache-2.0 */
/* What declarations may call: the functions of reference.h, and those of problem.h for make(). The only file
 * of the harness that is part of the library, because declarations are. */
#include "harness/reference.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/status.h"
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

double reference_scale(const flashinfer_number *scale)
{
    if (scale->kind == FLASHINFER_NUMBER_TENSOR)
        return *(const double *)scale->value.tensor->data;
    return scale->kind == FLASHINFER_NUMBER_ABSENT ? 1 : (float)number_value(scale);
}

double reference_e2m1_value(unsigned code)
{
    static const double magnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return copysign(magnitudes[code & 7], code & 8 ? -1 : 1);
}

unsigned reference_e2m1_code(double x)
{
    unsigned code = 0;
    for (; code < 7 && !isnan(x); code++) {
        double middle = (reference_e2m1_value(code) + reference_e2m1_value(code + 1)) / 2;
        if (fabs(x) < middle || (fabs(x) == middle && code % 2 == 0))
            break;
    }
    return isnan(x) ? 7 : code | (signbit(x) ? 8 : 0);
}

int64_t reference_slot(const struct paged_tensors *t, int64_t page_size, int64_t token)
{
    const double *indices = t->kv_indices->data, *indptr = t->kv_indptr->data;
    double batch = ((const double *)t->batch_indices->data)[token];
    int64_t position = (int64_t)((const double *)t->positions->data)[token];
    if (batch < 0)
        return -1;
    int64_t nth = (int64_t)indptr[(int64_t)batch] + position / page_size;
    return (int64_t)indices[nth] * page_size + position % page_size;
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

void problem_give_slots(struct problem *problem)
{
    struct problem_tensor *batch_indices = problem_tensor(problem, "batch_indices");
    struct problem_tensor *positions = problem_tensor(problem, "positions");
    const struct problem_tensor *indices = problem_tensor(problem, "kv_indices");
    const struct problem_tensor *indptr = problem_tensor(problem, "kv_indptr");
    int64_t nnz = problem_dim(problem, "nnz"), num_requests = problem_dim(problem, "batch");
    int64_t page_size = problem_dim(problem, "page_size"), pages = problem_dim(problem, "pages");
    bool *taken = calloc((size_t)(pages * page_size) + 1, sizeof *taken);
    for (int64_t token = 0; token < nnz; token++) {
        problem_set(batch_indices, token, -1);
        problem_set(positions, token, 0);
    }
    for (int64_t batch = 0; taken && batch < num_requests; batch++) {
        int64_t first_page = (int64_t)problem_get(indptr, batch), last_page = (int64_t)problem_get(indptr, batch + 1);
        int64_t begin = batch * nnz / num_requests, end = (batch + 1) * nnz / num_requests;
        for (int64_t token = begin; token < end; token++) {
            int64_t position = (last_page - first_page) * page_size - (end - token);
            if (position < 0 || (problem->seed && problem_random(problem, 8) == 0))
                continue;
            int64_t page = (int64_t)problem_get(indices, first_page + position / page_size);
            bool *slot = &taken[page * page_size + position % page_size];
            if (*slot)
                continue;
            *slot = true;
            problem_set(batch_indices, token, (double)batch);
            problem_set(positions, token, (double)position);
        }
    }
    free(taken);
}

flashinfer_status problem_fill_indptr(struct problem *problem, struct problem_tensor *t, int64_t total)
{
    int64_t n = t->elements - 1;
    double sum = 0, running = 0;
    double *weight = calloc((size_t)n + 1, sizeof *weight);
    if (!weight)
        return fail(FLASHINFER_MEMORY, "%s: no memory for a problem", problem->op->name);
    bool even = !problem->seed || random_chance(&problem->random, 0.2);
    for (int64_t i = 0; i < n; i++)
        sum += weight[i] = even                                    ? 1
                           : random_chance(&problem->random, 0.15) ? 0
                                                                   : random_unit(&problem->random);
    problem_set(t, 0, 0);
    for (int64_t i = 0; i < n; i++) {
        running += weight[i];
        problem_set(t, i + 1,
                    i + 1 == n ? (double)total : floor(sum > 0 ? (double)total * running / sum : 0));
    }
    free(weight);
    return FLASHINFER_OK;
}
