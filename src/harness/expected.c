/* SPDX-License-Identifier: Apache-2.0 */
/* Runs references and compares. */
#include "harness/expected.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/reference_state.h"

/* References of ops that do more operations than this are asked for some rows only. */
#define MAX_OPERATIONS 4e8

struct expected {
    struct call call; /* as it was checked, over the reference's own arguments: the caller's may be gone when verify looks */
    struct reference reference;
    struct reference_state state;
};

void expected_destroy(struct expected *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->state.num_args; i++) {
        free(e->state.tensor[i].tensor.data);
        free(e->state.tensor[i].bound);
        free(e->state.tensor[i].got);
    }
    free(e);
}

static flashinfer_status add_tensor(struct expected *e, const struct problem *problem, int i)
{
    const struct problem_tensor *from = &problem->tensor[i];
    struct reference_tensor *to = &e->state.tensor[i];
    size_t room = (size_t)from->elements + 1;
    double *data = calloc(room, sizeof *data);
    to->dtype = from->dtype;
    to->tensor = (DLTensor){.data = data,
                            .device = {kDLCPU, 0},
                            .ndim = from->ndim,
                            .dtype = dtype_dlpack(DTYPE_F64),
                            .shape = (int64_t *)(uintptr_t)from->shape};
    op_set_tensor(e->state.args, &problem->op->args[i], &to->tensor);
    if (from->written) {
        to->bound = calloc(room, sizeof *to->bound);
        to->got = calloc(room, sizeof *to->got);
    }
    if (!data || (from->written && (!to->bound || !to->got)))
        return fail(FLASHINFER_MEMORY, "%s: no memory for the reference of %s", problem->op->name,
                    problem->op->args[i].name);
    for (int64_t k = 0; from->values && k < from->elements; k++)
        data[k] = problem_get(from, k);
    return FLASHINFER_OK;
}

/* Which rows of the first output a reference that can choose should compute. */
static void choose_rows(struct expected *e, const struct problem *problem, const struct call *call)
{
    double bytes = 0, operations = 0;
    const struct problem_tensor *first = &problem->tensor[0];
    e->state.rows =
        first->ndim && first->shape[first->ndim - 1] ? first->elements / first->shape[first->ndim - 1] : 0;
    e->state.wanted_every = 1;
    if (problem->op->cost)
        problem->op->cost(call, &bytes, &operations);
    if (operations > MAX_OPERATIONS) {
        /* Odd, so that rows of every residue of a power of two come along. */
        e->state.wanted_every = (int64_t)(operations / MAX_OPERATIONS) | 1;
        struct random random = {problem->seed + 1};
        e->state.wanted_first =
            random_between(&random, 0, e->state.wanted_every - 1) % (e->state.rows ? e->state.rows : 1);
    }
}

static flashinfer_status compute(struct expected *e, const struct problem *problem, const struct call *call)
{
    e->state.num_args = problem->program->num_args;
    memcpy(e->state.args, call->args, problem->op->args_bytes);
    for (int i = 0; i < problem->program->num_args; i++)
        if (problem->tensor[i].present)
            TRY(add_tensor(e, problem, i));
    e->call = *call;
    e->call.args = e->state.args;
    e->reference = (struct reference){.call = &e->call, .args = e->state.args, .view = e->state.view, .state = &e->state};
    if (problem->op->view)
        problem->op->view(e->state.args, e->state.view);
    choose_rows(e, problem, call);
    if (problem->op->reference && !call->empty)
        problem->op->reference(&e->reference);
    return FLASHINFER_OK;
}

flashinfer_status expected_create(const struct problem *problem, const struct call *call,
                                  struct expected **out)
{
    *out = NULL;
    if (!problem->op->reference && !problem->op->verify)
        return FLASHINFER_OK;
    struct expected *e = calloc(1, sizeof *e);
    if (!e)
        return fail(FLASHINFER_MEMORY, "%s: no memory for the reference", problem->op->name);
    flashinfer_status status = compute(e, problem, call);
    if (status) {
        expected_destroy(e);
        return status;
    }
    *out = e;
    return FLASHINFER_OK;
}

/* All bounds are 0: the bits are given, and those of zeros too. */
static bool is_exact(const struct problem_tensor *t, const struct reference_tensor *r)
{
    for (int64_t i = 0; i < t->elements; i++)
        if (r->bound[i] != 0)
            return false;
    return true;
}

void expected_exact(const struct expected *e, const struct problem *problem, uint64_t *outputs, uint64_t *exact)
{
    bool possible = problem->op->reference && !problem->op->verify;
    *outputs = *exact = 0;
    for (int i = 0; i < problem->program->num_args; i++) {
        if (!e->state.tensor[i].bound)
            continue;
        *outputs |= UINT64_C(1) << i;
        if (possible && is_exact(&problem->tensor[i], &e->state.tensor[i]))
            *exact |= UINT64_C(1) << i;
    }
}

static void describe_index(const struct problem_tensor *t, int64_t element, char *text, size_t size)
{
    size_t length = 0;
    text[0] = 0;
    for (int axis = 0; axis < t->ndim; axis++) {
        int64_t below = 1;
        for (int inner = axis + 1; inner < t->ndim; inner++)
            below *= t->shape[inner];
        length += (size_t)snprintf(text + length, size - length, "%s%lld", axis ? ", " : "",
                                   (long long)(element / below));
        element %= below;
    }
}

static bool right(enum dtype dtype, double got, double expected, double bound, bool exact)
{
    if (isnan(expected) || isnan(got))
        return isnan(expected) && isnan(got);
    if (exact) {
        double rounded = reference_round(dtype, expected);
        return got == rounded && !signbit(got) == !signbit(rounded);
    }
    if (got == expected)
        return true;
    return got >= reference_round(dtype, expected - bound) && got <= reference_round(dtype, expected + bound);
}

static bool compared(const struct reference_state *state, const struct problem_tensor *t, int64_t element)
{
    if (!state->asked || state->rows < 1 || t->elements % state->rows)
        return true;
    int64_t row = element / (t->elements / state->rows);
    return row % state->wanted_every == state->wanted_first;
}

static bool compare(struct expected *e, const struct problem *problem, int arg, char *sentence, size_t size)
{
    const struct problem_tensor *t = &problem->tensor[arg];
    const struct reference_tensor *r = &e->state.tensor[arg];
    const double *want = r->tensor.data;
    int64_t wrong = 0, first = -1, looked = 0;
    bool exact = is_exact(t, r);
    for (int64_t i = 0; i < t->elements; i++) {
        if (!compared(&e->state, t, i))
            continue;
        looked++;
        if (!right(t->dtype, r->got[i], want[i], r->bound[i], exact)) {
            first = wrong ? first : i;
            wrong++;
        }
    }
    if (!wrong)
        return true;
    char index[160];
    describe_index(t, first, index, sizeof index);
    snprintf(sentence, size,
             "%s[%s]: got %.9g, expected %.9g, bound %.3g (%s); %lld of %lld elements are wrong",
             problem->op->args[arg].name, index, r->got[first], want[first], r->bound[first],
             dtype_name(t->dtype), (long long)wrong, (long long)looked);
    return false;
}

bool expected_judge(struct expected *e, const struct problem *problem,
                    unsigned char *const outputs[OP_MAX_ARGS], char *sentence, size_t size)
{
    for (int i = 0; i < problem->program->num_args; i++) {
        struct reference_tensor *r = &e->state.tensor[i];
        int bytes = dtype_bytes(problem->tensor[i].dtype);
        for (int64_t k = 0; r->got && k < problem->tensor[i].elements; k++)
            r->got[k] = dtype_load(r->dtype, outputs[i] + k * bytes);
    }
    if (problem->op->verify) {
        const char *wrong = problem->op->verify(&e->reference);
        if (wrong)
            snprintf(sentence, size, "%s", wrong);
        return !wrong;
    }
    for (int i = 0; i < problem->program->num_args; i++)
        if (e->state.tensor[i].got && !compare(e, problem, i, sentence, size))
            return false;
    return true;
}
