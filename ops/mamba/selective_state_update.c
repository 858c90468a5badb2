/* SPDX-License-Identifier: Apache-2.0 */
/* The op selective_state_update. Kernel: selective_state_update_cpu.c. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "core/status.h"
#include "flashinfer/mamba.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/op.h"
#include "op/validate.h"
#include "ops/mamba/selective_state_update_args.h"

#define OP selective_state_update
DIMS(batch, tokens, num_heads, num_groups, head_dim, state_dim, num_states, num_buffers, cache_steps, columns, dst_columns);

static const struct op_arg args[] = {
    OUT(out, LIKE(x), "batch tokens num_heads head_dim"),
    INOUT(state, F32 | F16 | BF16, "num_states num_heads head_dim state_dim", .fill = NORMAL),
    INOUT(intermediate_states_buffer, LIKE(state), "num_buffers cache_steps num_heads head_dim state_dim", .flags = OPTIONAL),
    IN(x, F16 | BF16, "batch tokens num_heads head_dim", .fill = NORMAL),
    IN(dt, LIKE_OR(x, F32), "batch tokens num_heads head_dim", .flags = STRIDED, .fill = NORMAL),
    IN(A, F32, "num_heads head_dim state_dim", .flags = STRIDED, .fill = UNIFORM(-4, 0)),
    IN(B, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(C, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(D, LIKE_OR(x, F32), "num_heads head_dim", .flags = OPTIONAL | STRIDED, .fill = NORMAL),
    IN(z, LIKE(x), "batch tokens num_heads head_dim", .flags = OPTIONAL, .fill = NORMAL),
    IN(dt_bias, LIKE_OR(x, F32), "num_heads head_dim", .flags = OPTIONAL | STRIDED, .fill = NORMAL),
    FLAG(dt_softplus),
    IN(state_batch_indices, I32, "batch columns", .flags = OPTIONAL | DENSE, .fill = PERMUTED("num_states")),
    INT(pad_slot_id, .value = -1, .min = -1),
    FLAG(disable_state_update),
    IN(intermediate_state_indices, I32, "batch", .flags = OPTIONAL, .fill = PERMUTED("num_buffers")),
    IN(dst_state_batch_indices, I32, "batch dst_columns", .flags = OPTIONAL | DENSE, .fill = PERMUTED("num_states")),
    IN(num_accepted_tokens, I32, "batch", .flags = OPTIONAL, .fill = LENGTHS(0, "tokens")),
    {0},
};

static const char *const rules[] = {"num_heads % num_groups == 0",
                                    "state_dim % 16 == 0 and state_dim > 0 and state_dim <= 256",
                                    "num_states >= batch * columns",
                                    "num_states >= batch * dst_columns",
                                    "num_states >= batch",
                                    "num_buffers >= batch",
                                    "cache_steps >= tokens",
                                    "columns == 1 or columns == tokens",
                                    "dst_columns == 1 or dst_columns == tokens",
                                    NULL};

static struct token_rows see_tokens(const DLTensor *t)
{
    if (!t)
        return (struct token_rows){0};
    return (struct token_rows){tensor_data(t),      tensor_stride(t, 0), tensor_stride(t, 1),
                               tensor_stride(t, 2), tensor_stride(t, 3), tensor_dtype(t) == DTYPE_F32};
}

static struct head_weights see_weights(const DLTensor *t)
{
    if (!t)
        return (struct head_weights){0};
    return (struct head_weights){tensor_data(t), tensor_stride(t, 0), tensor_stride(t, 1),
                                 t->ndim == 3 ? tensor_stride(t, 2) : 0, tensor_dtype(t) == DTYPE_F32};
}

static struct state_rows see_states(const DLTensor *t)
{
    if (!t)
        return (struct state_rows){0};
    return (struct state_rows){tensor_data(t), tensor_stride(t, 0), t->ndim == 5 ? tensor_stride(t, 1) : 0, tensor_stride(t, -3),
                               tensor_stride(t, -2)};
}

static struct selective_state_update_args fill_args(const struct call *call)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *to = c->dst_state_batch_indices;
    struct selective_state_update_args a = {
        .out = see_tokens(c->out),
        .x = see_tokens(c->x),
        .dt = see_tokens(c->dt),
        .B = see_tokens(c->B),
        .C = see_tokens(c->C),
        .z = see_tokens(c->z),
        .A = see_weights(c->A),
        .D = see_weights(c->D),
        .dt_bias = see_weights(c->dt_bias),
        .state = see_states(c->state),
        .kept = see_states(c->intermediate_states_buffer),
        .rows = tensor_data_or_null(c->state_batch_indices),
        .final_rows = tensor_data_or_null(to),
        .kept_rows = tensor_data_or_null(c->intermediate_state_indices),
        .accepted = tensor_data_or_null(c->num_accepted_tokens),
        .batch = d->batch,
        .tokens = d->tokens,
        .num_heads = d->num_heads,
        .group_heads = d->num_heads / d->num_groups,
        .head_dim = d->head_dim,
        .columns = c->state_batch_indices ? tensor_shape(c->state_batch_indices, 1) : 1,
        .final_columns = to ? tensor_shape(to, 1) : 1,
        .pad = c->pad_slot_id ? c->pad_slot_id : -1,
        .softplus = c->dt_softplus,
        .update = !c->disable_state_update,
    };
    return a;
}

static const struct jit_kernel cpu = {"selective_state_update_cpu", JIT_CPU, {"T:dtype", "STATE:dtype", "STATE_DIM", "UNIFORM"}};

/* A part has a head of a sequence. */
static const char *fit(const struct call *call, struct way *way)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    int32_t *constant = way_spec(way, &cpu);
    int64_t stride = tensor_stride(c->A, 2);
    constant[0] = tensor_dtype(c->x);
    constant[1] = tensor_dtype(c->state);
    constant[2] = (int32_t)tensor_shape(c->state, -1);
    constant[3] = stride == 0;
    if (d->batch > INT32_MAX / (d->num_heads ? d->num_heads : 1))
        return "there are more states than parts can be counted";
    return stride == 0 || stride == 1 ? NULL : "the last axis of A is neither contiguous nor of stride 0";
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct selective_state_update_args a = fill_args(call);
    uint32_t parts = (uint32_t)(a.batch * a.num_heads);
    return parts ? call_launch(call, way, 0, &(struct jit_launch){.grid = {parts}, .args = &a, .args_size = sizeof a})
                 : FLASHINFER_OK;
}

static const struct op_kernel kernels[] = {
    {"selective_state_update_cpu", OP_CPU, 0, 0, fit, run},
    {0},
};

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const char *limit = "the number of states";
    TRY(validate_rows(call, "state_batch_indices", c->state_batch_indices, c->state, limit));
    TRY(validate_rows(call, "dst_state_batch_indices", c->dst_state_batch_indices, c->state, limit));
    return validate_rows(call, "intermediate_state_indices", c->intermediate_state_indices, c->intermediate_states_buffer,
                         "the rows of intermediate_states_buffer");
}

/* ---- the recurrence in float64, and how far off it float32 may be */

struct row {
    const struct flashinfer_selective_state_update *a;
    const struct dims *d;
    int64_t sequence, head, dim;
    double *s, *error;
};

static double value_at(const DLTensor *t, int64_t i)
{
    return ((const double *)t->data)[i];
}

static int64_t index_at(const DLTensor *t, int64_t sequence, int64_t column, int64_t none)
{
    if (!t)
        return none;
    int64_t columns = t->ndim == 2 ? tensor_shape(t, 1) : 1;
    return (int64_t)value_at(t, sequence * columns + (column < 0 ? 0 : column < columns ? column : columns - 1));
}

/* One token: returns out, and in *bound by how much it may be off. */
static double reference_step(const struct row *p, int64_t token, double *bound)
{
    const struct flashinfer_selective_state_update *a = p->a;
    const struct dims *d = p->d;
    const double u = REFERENCE_UNIT;
    int64_t weight = p->head * d->head_dim + p->dim, at = (p->sequence * d->tokens + token) * d->num_heads * d->head_dim + weight;
    int64_t group = ((p->sequence * d->tokens + token) * d->num_groups + p->head / (d->num_heads / d->num_groups)) * d->state_dim;
    double x = value_at(a->x, at), bias = a->dt_bias ? value_at(a->dt_bias, weight) : 0, raw = value_at(a->dt, at) + bias;
    double delta = a->dt_softplus && raw <= 20 ? log1p(exp(raw)) : raw;
    double delta_error = u * (2 * fabs(raw) + 8 * fabs(delta)) + FLT_MIN, y = 0, y_error = 0, magnitude = 0;
    for (int64_t i = 0; i < d->state_dim; i++) {
        double A = value_at(a->A, weight * d->state_dim + i), b = value_at(a->B, group + i), c = value_at(a->C, group + i);
        double decay = exp(A * delta), decay_error = decay * (fabs(A) * delta_error + u * (2 * fabs(A * delta) + 4)) + FLT_MIN;
        double before = p->s[i], input = b * x * delta;
        p->s[i] = before * decay + input;
        p->error[i] = p->error[i] * (decay + decay_error) + fabs(before) * decay_error + fabs(b * x) * delta_error +
                      3 * u * (fabs(input) + fabs(before * decay)) + FLT_TRUE_MIN;
        y += c * p->s[i];
        y_error += fabs(c) * p->error[i];
        magnitude += fabs(c * p->s[i]);
    }
    double skip = a->D ? value_at(a->D, weight) * x : 0;
    y += skip;
    *bound = y_error + u * ((double)d->state_dim / 8 + 8) * (magnitude + fabs(skip)) + FLT_TRUE_MIN;
    if (a->z) {
        double z = value_at(a->z, at), gate = z / (1 + exp(-z));
        *bound = *bound * fabs(gate) + fabs(y * gate) * u * (10 + 2 * fabs(z)) + FLT_TRUE_MIN;
        y *= gate;
    }
    return y;
}

static void put_state(const struct reference *r, const struct row *p, const DLTensor *states, int64_t row)
{
    double *to = (double *)states->data + ((row * p->d->num_heads + p->head) * p->d->head_dim + p->dim) * p->d->state_dim;
    double *bound = reference_bound(r, states) + (to - (double *)states->data);
    for (int64_t i = 0; i < p->d->state_dim; i++) {
        to[i] = p->s[i];
        bound[i] = p->error[i];
    }
}

static void reference_row(const struct reference *r, const struct row *p, const double *before)
{
    const struct flashinfer_selective_state_update *a = p->a;
    const struct dims *d = p->d;
    int64_t pad = a->pad_slot_id ? a->pad_slot_id : -1;
    int64_t accepted = a->num_accepted_tokens ? (int64_t)value_at(a->num_accepted_tokens, p->sequence) - 1 : 0;
    int64_t from = index_at(a->state_batch_indices, p->sequence, accepted, p->sequence);
    int64_t kept = index_at(a->intermediate_state_indices, p->sequence, 0, p->sequence);
    bool padding = from < 0 || (a->state_batch_indices && from == pad);
    bool all = a->dst_state_batch_indices && tensor_shape(a->dst_state_batch_indices, 1) > 1;
    for (int64_t i = 0; i < d->state_dim; i++) {
        p->s[i] = padding ? 0 : before[((from * d->num_heads + p->head) * d->head_dim + p->dim) * d->state_dim + i];
        p->error[i] = 0;
    }
    for (int64_t token = 0; token < d->tokens; token++) {
        int64_t at = ((p->sequence * d->tokens + token) * d->num_heads + p->head) * d->head_dim + p->dim;
        double *out = (double *)a->out->data + at;
        *out = 0;
        if (padding)
            continue;
        *out = reference_step(p, token, reference_bound(r, a->out) + at);
        int64_t to = index_at(a->dst_state_batch_indices, p->sequence, token, from);
        bool none = to < 0 || (a->dst_state_batch_indices && to == pad);
        if (!a->disable_state_update && !none && (all || token + 1 == d->tokens))
            put_state(r, p, a->state, to);
        if (a->intermediate_states_buffer && kept >= 0)
            put_state(r, p, a->intermediate_states_buffer, kept * d->cache_steps + token);
    }
}

static void reference(const struct reference *r)
{
    const struct flashinfer_selective_state_update *a = r->args;
    const struct dims *d = call_dims(r->call);
    int64_t elements = tensor_elements(a->state);
    double *before = malloc((size_t)elements * sizeof *before + 1), s[256], error[256];
    struct row p = {.a = a, .d = d, .s = s, .error = error};
    for (int64_t i = 0; before && i < elements; i++)
        before[i] = value_at(a->state, i);
    for (p.sequence = 0; before && p.sequence < d->batch; p.sequence++)
        for (p.head = 0; p.head < d->num_heads; p.head++)
            for (p.dim = 0; p.dim < d->head_dim; p.dim++)
                reference_row(r, &p, before);
    free(before);
}

/* Rows that are written must be nobody else's: each sequence has rows of its own, and now and then none. */
static void make(struct problem *problem)
{
    struct problem_tensor *from = problem_tensor(problem, "state_batch_indices"),
                          *to = problem_tensor(problem, "dst_state_batch_indices");
    int64_t batch = problem_dim(problem, "batch"), states = problem_dim(problem, "num_states"), own = batch ? states / batch : 0;
    struct problem_tensor *both[] = {from, to};
    for (int n = 0; n < 2; n++) {
        int64_t columns = both[n]->present && batch ? both[n]->elements / batch : 0;
        for (int64_t i = 0; i < batch * columns; i++) {
            bool none = problem->seed && problem_random(problem, 6) == 0;
            problem_set(both[n], i, none ? -1 : (double)(i / columns * own + i % columns));
        }
    }
    /* Without rows to read, sequence i reads row i. */
    for (int64_t i = 0; !from->present && to->present && i < to->elements; i++)
        problem_set(to, i, i < batch && to->elements == batch ? (double)i : -1);
}

static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    double states = (double)d->batch * d->num_heads * d->head_dim * d->state_dim, width = dtype_bytes(tensor_dtype(c->state));
    *bytes = states * width * (c->disable_state_update ? 1 : 2) +
             (double)tensor_elements(c->x) * dtype_bytes(tensor_dtype(c->x)) * (c->z ? 3 : 2) +
             2 * (double)tensor_elements(c->B) * dtype_bytes(tensor_dtype(c->B));
    *bytes += c->intermediate_states_buffer ? states * width * d->tokens : 0;
    *operations = 5 * states * d->tokens;
}

static const struct op_range ranges[] = {
    {"batch", 0, 4, 0},       {"tokens", 1, 3, 0},       {"num_heads", 1, 4, 0},  {"num_groups", 1, 2, 0},
    {"head_dim", 1, 70, 0},   {"state_dim", 16, 256, 16}, {"num_states", 0, 14, 0}, {"num_buffers", 0, 5, 0},
    {"cache_steps", 1, 4, 0}, {"columns", 1, 3, 0},      {"dst_columns", 1, 3, 0}, {0}};

#define NEMOTRON_H                                                                                              \
    " num_heads=128 num_groups=8 head_dim=64 state_dim=128 columns=1 dst_columns=1 dt_softplus=1 cache_steps=4" \
    " -intermediate_states_buffer -intermediate_state_indices -num_accepted_tokens -dst_state_batch_indices"
static const struct op_shape shapes[] = {
    {"nemotron_h_1", "batch=1 tokens=1 num_states=4 num_buffers=1 dtype=bf16 state:dtype=f32" NEMOTRON_H},
    {"nemotron_h_64", "batch=64 tokens=1 num_states=80 num_buffers=64 dtype=bf16 state:dtype=bf16" NEMOTRON_H},
    {"nemotron_h_256", "batch=256 tokens=1 num_states=256 num_buffers=256 dtype=bf16 state:dtype=f32" NEMOTRON_H},
    {"drafts", "batch=3 tokens=3 num_states=9 num_buffers=4 num_heads=6 num_groups=2 head_dim=40 state_dim=48 columns=3 "
               "dst_columns=3 cache_steps=4 dtype=f16 state:dtype=f16"},
    {0},
};

DEFINE_OP("mamba", "a few tokens of each sequence through Mamba-2's state", .rules = rules, .kernels = kernels, .validate = validate,
          .ranges = ranges,
          .shapes = shapes, .reference = reference, .make = make, .cost = cost);
