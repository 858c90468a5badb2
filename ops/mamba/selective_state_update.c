/* SPDX-License-Identifier: Apache-2.0 */
/* The op selective_state_update. Kernels: selective_state_update_sm80.cu, selective_state_update_cpu.c. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "core/status.h"
#include "flashinfer/mamba.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/op.h"
#include "op/validate.h"
#include "ops/mamba/mamba_reference.h"
#include "ops/mamba/mamba_tensors.h"
#include "ops/mamba/selective_state_update_args.h"

#define OP selective_state_update
DIMS(batch, tokens, num_heads, num_groups, head_dim, state_dim, num_states, num_buffers, cache_steps, num_sequences, columns,
     dst_columns);

/* Only lists of lengths say which tokens belong together where there are not `tokens` of each of the batch. */
#define PACKED                                                                                       \
    "num_sequences > 0 and num_sequences != batch or 0 < cache_steps and cache_steps < tokens or " \
    "1 < dst_columns and dst_columns < tokens"

static const struct op_arg args[] = {
    OUT(out, LIKE(x), "batch tokens num_heads head_dim"),
    INOUT(state, F32 | F16 | BF16, "num_states num_heads head_dim state_dim", .fill = NORMAL),
    INOUT(intermediate_states_buffer, LIKE(state), "num_buffers cache_steps num_heads head_dim state_dim", .flags = OPTIONAL),
    IN(x, F32 | F16 | BF16, "batch tokens num_heads head_dim", .fill = NORMAL),
    IN(dt, LIKE_OR(x, F32), "batch tokens num_heads head_dim", .flags = STRIDED, .repeats = 1, .fill = NORMAL),
    IN(A, LIKE_OR(x, F32), "num_heads head_dim state_dim", .flags = STRIDED, .repeats = 2, .fill = UNIFORM(-4, 0)),
    IN(B, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(C, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(D, LIKE_OR(x, F32), "num_heads head_dim", .flags = OPTIONAL | STRIDED, .repeats = 1, .fill = NORMAL),
    IN(z, LIKE(x), "batch tokens num_heads head_dim", .flags = OPTIONAL, .fill = NORMAL),
    IN(dt_bias, LIKE_OR(x, F32), "num_heads head_dim", .flags = OPTIONAL | STRIDED, .repeats = 1, .fill = NORMAL),
    FLAG(dt_softplus),
    IN(state_batch_indices, I32, "num_sequences columns", .flags = OPTIONAL | DENSE, .fill = BELOW("num_states")),
    INT(pad_slot_id, .value = -1, .min = -1, .max = INT32_MAX, .flags = HOST),
    FLAG(disable_state_update),
    IN(intermediate_state_indices, I32, "num_sequences", .flags = OPTIONAL, .fill = PERMUTED("num_buffers")),
    INT(rand_seed, .min = -INFINITY, .flags = OPTIONAL, .dtype.set = I64 | U64, .fill = UNIFORM(0, 1e9)),
    INT(philox_rounds, .value = 10, .min = 1, .max = 10),
    IN(dst_state_batch_indices, I32, "num_sequences dst_columns", .flags = OPTIONAL | DENSE, .fill = BELOW("num_states")),
    IN(cu_seqlens, I32 | I64, "num_sequences+1", .flags = OPTIONAL, .fill = INDPTR("tokens"), .required_if = PACKED),
    IN(num_accepted_tokens, I32, "num_sequences", .flags = OPTIONAL, .fill = LENGTHS(0, "tokens")),
    {0},
};

static const char *const rules[] = {"num_heads % num_groups == 0",
                                    "state_dim % 16 == 0 and state_dim > 0 and state_dim <= 256",
                                    "num_sequences > 0 or batch*tokens == 0",
                                    "columns > 0",
                                    "dst_columns > 0",
                                    "num_states >= batch",
                                    "num_states >= num_sequences",
                                    "num_buffers >= batch",
                                    "num_buffers >= num_sequences",
                                    NULL};

static bool fill_args(const struct call *call, struct selective_state_update_args *a)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *from = c->state_batch_indices, *to = c->dst_state_batch_indices, *kept = c->intermediate_states_buffer;
    *a = (struct selective_state_update_args){
        .state = mamba_states(c->state),
        .kept = mamba_states(kept),
        .rows = tensor_data_or_null(from),
        .final_rows = tensor_data_or_null(to),
        .kept_rows = tensor_data_or_null(c->intermediate_state_indices),
        .accepted = tensor_data_or_null(c->num_accepted_tokens),
        .cu_seqlens = {tensor_data_or_null(c->cu_seqlens), c->cu_seqlens && tensor_is(c->cu_seqlens, DTYPE_I64)},
        .seed = mamba_seed(&c->rand_seed),
        .num_sequences = c->cu_seqlens ? d->num_sequences : d->batch,
        .tokens = d->tokens,
        .num_heads = d->num_heads,
        .group_heads = (int32_t)mamba_group(d->num_heads, d->num_groups),
        .group_factor = (UINT64_C(1) << 32) / (uint64_t)mamba_group(d->num_heads, d->num_groups) + 1,
        .head_dim = d->head_dim,
        .columns = from ? tensor_shape(from, 1) : 1,
        .final_columns = to ? tensor_shape(to, 1) : 1,
        .kept_steps = kept ? tensor_shape(kept, 1) : 0,
        .pad = (int32_t)c->pad_slot_id.value.i,
        .softplus = c->dt_softplus,
        .update = !c->disable_state_update,
    };
    mamba_weights(c->A, &a->A);
    mamba_weights(c->D, &a->D);
    mamba_weights(c->dt_bias, &a->dt_bias);
    const struct mamba_tokens all[] = {{c->out, &a->out}, {c->x, &a->x}, {c->dt, &a->dt},
                                       {c->B, &a->B},     {c->C, &a->C}, {c->z, &a->z}};
    return mamba_walk(all, sizeof all / sizeof *all, c->cu_seqlens, d->batch, d->tokens);
}

static const struct jit_kernel sm80 = {
    "selective_state_update_sm80",
    JIT_CUDA,
    {"T:dtype", "STATE:dtype", "STATE_DIM", "UNIFORM", "RANDOM", "PIECE", "ACCESS", "ROWS", "MANY"}};
static const struct jit_kernel cpu = {
    "selective_state_update_cpu", JIT_CPU, {"T:dtype", "STATE:dtype", "STATE_DIM", "UNIFORM", "RANDOM"}};

enum { ROW_LANES = 8, STEP = MAMBA_THREADS / ROW_LANES, FEW_BLOCKS = 512 };
enum { AHEAD_BYTES = 40960 }; /* of states, for each multiprocessor, that are fetched to the L2 cache before */

/* Rows of a block: as many as are in flight with 128 bytes of a thread; fewer where that leaves the machine without blocks. */
static int32_t rows_of(const struct dims *d, int64_t sequences, enum dtype state, bool many)
{
    int64_t rows = least(STEP * 128 * ROW_LANES / (d->state_dim * dtype_bytes(state)), many ? 32 : 64);
    rows = rows >= 64 ? 64 : rows >= 32 ? 32 : 16;
    while (rows > 16 && (rows / 2 >= d->head_dim || sequences * d->num_heads * ((d->head_dim + rows - 1) / rows) < FEW_BLOCKS))
        rows /= 2;
    return (int32_t)rows;
}

static const char *fit(const struct call *call, struct way *way, int32_t *constant)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    constant[0] = tensor_dtype(c->x);
    constant[1] = tensor_dtype(c->state);
    constant[2] = (int32_t)tensor_shape(c->state, -1);
    constant[3] = tensor_stride(c->A, 2) == 0;
    constant[4] = mamba_random(&c->rand_seed, c->state, c->philox_rounds);
    struct selective_state_update_args *a = WAY_ARGS(way, struct selective_state_update_args);
    const char *why = fill_args(call, a) ? mamba_too_many(call, a->num_sequences, a->num_heads) : MAMBA_NO_STRIDE;
    if (why)
        return why;
    return constant[3] || tensor_stride(c->A, 2) == 1 ? NULL : "the last axis of A is neither contiguous nor of stride 0";
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *pieces[] = {c->state, c->intermediate_states_buffer, c->B, c->C};
    int32_t *constant = way_spec(way, &sm80), dim = (int32_t)d->state_dim;
    const char *why = fit(call, way, constant);
    if (why)
        return why;
    int piece = dim % 64 == 0 && dtype_bytes(tensor_dtype(c->state)) == 2 ? 8 : dim % 32 == 0 ? 4 : 2;
    constant[5] = constant[6] = piece;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i] && !tensor_is_aligned(pieces[i], least(16, piece * dtype_bytes(tensor_dtype(pieces[i])))))
            constant[6] = 1;
    int64_t sequences = c->cu_seqlens ? d->num_sequences : d->batch;
    constant[8] = c->cu_seqlens || d->tokens != 1 || c->intermediate_states_buffer ||
                  (c->dst_state_batch_indices && tensor_shape(c->dst_state_batch_indices, 1) > 1);
    constant[7] = rows_of(d, sequences, tensor_dtype(c->state), constant[8]);
    struct selective_state_update_args *a = WAY_ARGS(way, struct selective_state_update_args);
    int64_t element = dtype_bytes(tensor_dtype(c->state)), sms = call->device->sms;
    if (constant[6] * element == 16 && a->state.dim == dim)
        a->ahead = fetch_ahead(sms * AHEAD_BYTES, sequences * d->num_heads, d->head_dim * dim * element);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way) { return fit(call, way, way_spec(way, &cpu)); }

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct selective_state_update_args *a = WAY_ARGS(way, const struct selective_state_update_args);
    const struct dims *d = call_dims(call);
    struct jit_launch launch = {.args = a, .args_size = sizeof *a};
    if (!d->batch || !d->tokens)
        return FLASHINFER_OK;
    return mamba_launch(call, way, &launch, a->num_sequences, a->num_heads, a->head_dim, way->spec[0].constant[7]);
}

static const struct op_kernel kernels[] = {
    {"selective_state_update_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"selective_state_update_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    const char *limit = "the number of states";
    TRY(validate_starts(call, "cu_seqlens", c->cu_seqlens, d->batch * d->tokens, "the number of tokens"));
    TRY(validate_rows(call, "state_batch_indices", c->state_batch_indices, c->state, limit));
    TRY(validate_rows(call, "dst_state_batch_indices", c->dst_state_batch_indices, c->state, limit));
    return validate_rows(call, "intermediate_state_indices", c->intermediate_state_indices, c->intermediate_states_buffer,
                         "the rows of intermediate_states_buffer");
}

/* ---- the recurrence in float64, and how far off it float32 may be */

struct row {
    const struct flashinfer_selective_state_update *a;
    const struct dims *d;
    int64_t num_sequences, sequence, begin, end, head, dim;
    double *s, *error;
};

static int64_t listed_at(const DLTensor *t, int64_t sequence, int64_t column, int64_t none)
{
    return t ? (int64_t)mamba_value(t, sequence * (t->ndim == 2 ? tensor_shape(t, 1) : 1) + column) : none;
}

/* One token: returns out, and in *bound by how much it may be off. */
static double reference_step(const struct row *p, int64_t token, double *bound)
{
    const struct flashinfer_selective_state_update *a = p->a;
    const struct dims *d = p->d;
    int64_t weight = p->head * d->head_dim + p->dim, at = token * d->num_heads * d->head_dim + weight;
    int64_t group = (token * d->num_groups + p->head / (d->num_heads / d->num_groups)) * d->state_dim;
    double bias = a->dt_bias ? mamba_value(a->dt_bias, weight) : 0, delta_error, magnitude;
    double delta = mamba_delta(mamba_value(a->dt, at) + bias, a->dt_softplus, &delta_error);
    struct mamba_token t = {.x = mamba_value(a->x, at), .delta = delta, .delta_error = delta_error,
                            .A = (const double *)a->A->data + weight * d->state_dim, .A_step = 1,
                            .B = (const double *)a->B->data + group, .C = (const double *)a->C->data + group};
    double y = mamba_step(&t, d->state_dim, p->s, p->error, bound, &magnitude);
    double skip = a->D ? mamba_value(a->D, weight) * t.x : 0;
    *bound += REFERENCE_UNIT * ((double)d->state_dim / 8 + 8) * (magnitude + fabs(skip)) + FLT_TRUE_MIN;
    return mamba_gate(a->z, at, y + skip, bound);
}

static void put_state(const struct reference *r, const struct row *p, const DLTensor *states, int64_t row, int64_t from)
{
    int64_t rest = p->head * p->d->head_dim + p->dim, per_row = p->d->num_heads * p->d->head_dim, width = p->d->state_dim;
    mamba_put(r, states, (row * per_row + rest) * width, (from * per_row + rest) * width, width, p->s, p->error,
              &p->a->rand_seed, p->a->philox_rounds);
}

static void reference_row(const struct reference *r, const struct row *p, const double *before)
{
    const struct flashinfer_selective_state_update *a = p->a;
    const struct dims *d = p->d;
    int64_t pad = a->pad_slot_id.value.i, columns = d->columns - 1;
    int64_t accepted = a->num_accepted_tokens ? (int64_t)mamba_value(a->num_accepted_tokens, p->sequence) - 1 : 0;
    int64_t from = listed_at(a->state_batch_indices, p->sequence, accepted < 0 ? 0 : least(accepted, columns), p->sequence);
    int64_t kept = listed_at(a->intermediate_state_indices, p->sequence, 0, p->sequence);
    bool padding = from < 0 || (a->state_batch_indices && from == pad);
    int64_t last = a->dst_state_batch_indices && d->dst_columns > 1 ? d->dst_columns : 0;
    for (int64_t i = 0; i < d->state_dim; i++) {
        p->s[i] = padding ? 0 : before[((from * d->num_heads + p->head) * d->head_dim + p->dim) * d->state_dim + i];
        p->error[i] = 0;
    }
    for (int64_t n = 0; n < p->end - p->begin; n++) {
        int64_t at = ((p->begin + n) * d->num_heads + p->head) * d->head_dim + p->dim;
        double *out = (double *)a->out->data + at;
        *out = 0;
        if (padding)
            continue;
        *out = reference_step(p, p->begin + n, reference_bound(r, a->out) + at);
        bool here = last ? n < last : p->begin + n + 1 == p->end;
        int64_t to = here ? listed_at(a->dst_state_batch_indices, p->sequence, last ? n : 0, from) : -1;
        if (!a->disable_state_update && to >= 0 && !(a->dst_state_batch_indices && to == pad))
            put_state(r, p, a->state, to, from);
        if (a->intermediate_states_buffer && kept >= 0 && n < d->cache_steps)
            put_state(r, p, a->intermediate_states_buffer, kept * d->cache_steps + n, from);
    }
}

static void reference(const struct reference *r)
{
    const struct flashinfer_selective_state_update *a = r->args;
    const struct dims *d = call_dims(r->call);
    int64_t elements = tensor_elements(a->state);
    double *before = malloc((size_t)elements * sizeof *before + 1), s[256], error[256];
    struct row p = {.a = a, .d = d, .s = s, .error = error, .num_sequences = a->cu_seqlens ? d->num_sequences : d->batch};
    for (int64_t i = 0; before && i < elements; i++)
        before[i] = mamba_value(a->state, i);
    for (p.sequence = 0; before && p.sequence < p.num_sequences; p.sequence++) {
        p.begin = a->cu_seqlens ? (int64_t)mamba_value(a->cu_seqlens, p.sequence) : p.sequence * d->tokens;
        p.end = a->cu_seqlens ? (int64_t)mamba_value(a->cu_seqlens, p.sequence + 1) : p.begin + d->tokens;
        for (p.head = 0; p.head < d->num_heads; p.head++)
            for (p.dim = 0; p.dim < d->head_dim; p.dim++)
                reference_row(r, &p, before);
    }
    free(before);
}

/* Rows that are written must be nobody else's: each sequence has rows of its own, and now and then none. */
static void make(struct problem *problem)
{
    struct problem_tensor *from = problem_tensor(problem, "state_batch_indices"),
                          *to = problem_tensor(problem, "dst_state_batch_indices"),
                          *kept = problem_tensor(problem, "intermediate_state_indices"),
                          *starts = problem_tensor(problem, "cu_seqlens");
    int64_t states = problem_dim(problem, "num_states");
    int64_t sequences = problem_dim(problem, starts->present ? "num_sequences" : "batch");
    int64_t own = sequences ? states / sequences : 0;
    struct problem_tensor *both[] = {from, to};
    if (starts->present && starts->elements)
        problem_fill_indptr(problem, starts, problem_dim(problem, "batch") * problem_dim(problem, "tokens"));
    for (int n = 0; n < 2; n++) {
        int64_t columns = both[n]->present && sequences ? both[n]->elements / sequences : 0;
        for (int64_t i = 0; i < sequences * columns; i++) {
            bool none = i % columns >= own || (problem->seed && problem_random(problem, 6) == 0);
            problem_set(both[n], i, none ? -1 : (double)(i / columns * own + i % columns));
        }
    }
    /* Without rows to read, sequence i reads row i. */
    for (int64_t i = 0; !from->present && to->present && i < to->elements; i++)
        problem_set(to, i, i + sequences < states ? (double)(i + sequences) : -1);
    for (int64_t i = 0; problem->seed && kept->present && i < kept->elements; i++)
        if (problem_random(problem, 6) == 0)
            problem_set(kept, i, -1);
}

static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_selective_state_update *c = call_args(call);
    const struct dims *d = call_dims(call);
    double states = (double)(c->cu_seqlens ? d->num_sequences : d->batch) * d->num_heads * d->head_dim * d->state_dim;
    double width = dtype_bytes(tensor_dtype(c->state));
    *bytes = states * width * (c->disable_state_update ? 1 : 2) +
             (double)tensor_elements(c->x) * dtype_bytes(tensor_dtype(c->x)) * (c->z ? 3 : 2) +
             2 * (double)tensor_elements(c->B) * dtype_bytes(tensor_dtype(c->B));
    *bytes += c->intermediate_states_buffer ? states * width * (c->cu_seqlens ? 1 : d->tokens) : 0;
    *operations = 5 * (double)tensor_elements(c->x) * d->state_dim;
}

static const struct op_range ranges[] = {
    {"batch", 0, 4, 0},         {"tokens", 1, 3, 0},        {"num_heads", 1, 4, 0},   {"num_groups", 1, 2, 0},
    {"head_dim", 1, 70, 0},     {"state_dim", 16, 256, 16}, {"num_states", 0, 14, 0}, {"num_buffers", 0, 5, 0},
    {"cache_steps", 1, 4, 0},   {"columns", 1, 3, 0},       {"dst_columns", 1, 3, 0}, {"num_sequences", 0, 4, 0},
    {"rand_seed", 0, 1 << 30, 0}, {"pad_slot_id", -1, 3, 0}, {0}};

#define NEMOTRON_H                                                                                                          \
    " tokens=1 num_heads=128 num_groups=8 head_dim=64 state_dim=128 columns=1 dst_columns=1 dt_softplus=1 cache_steps=4"         \
    " -intermediate_states_buffer -intermediate_state_indices -num_accepted_tokens -dst_state_batch_indices -cu_seqlens"
static const struct op_shape shapes[] = {
    {"nemotron_h_1", "dtype=bf16 batch=1 num_sequences=1 num_states=4 num_buffers=1 state:dtype=f32" NEMOTRON_H},
    {"nemotron_h_64", "dtype=bf16 batch=64 num_sequences=64 num_states=80 num_buffers=64 state:dtype=bf16" NEMOTRON_H},
    {"nemotron_h_256", "dtype=bf16 batch=256 num_sequences=256 num_states=256 num_buffers=256 state:dtype=f32" NEMOTRON_H},
    {"nemotron_h_random",
     "dtype=bf16 batch=64 num_sequences=64 num_states=64 num_buffers=64 state:dtype=f16 rand_seed=7" NEMOTRON_H},
    {"many", "dtype=f16 batch=300 num_sequences=300 num_states=310 num_buffers=300 state:dtype=f16 tokens=1 num_heads=2 "
             "num_groups=1 head_dim=40 state_dim=64 columns=1 dst_columns=1 cache_steps=4 -rand_seed -intermediate_states_buffer "
             "-intermediate_state_indices -num_accepted_tokens -cu_seqlens"},
    {"drafts", "batch=3 num_sequences=3 tokens=3 num_states=9 num_buffers=4 num_heads=6 num_groups=2 head_dim=40 state_dim=48 "
               "columns=3 dst_columns=3 cache_steps=4 dtype=f16 state:dtype=f16 -cu_seqlens"},
    {"packed", "batch=1 num_sequences=5 tokens=13 num_states=20 num_buffers=5 num_heads=4 num_groups=2 head_dim=64 state_dim=64 "
               "columns=4 dst_columns=4 cache_steps=4 dtype=f32 state:dtype=f32"},
    {0},
};

DEFINE_OP("mamba", "a few tokens of each sequence through Mamba-2's state", .rules = rules,
          .kernels = kernels, .validate = validate,
          .ranges = ranges, .shapes = shapes, .reference = reference, .make = make, .cost = cost);
