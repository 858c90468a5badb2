/* SPDX-License-Identifier: Apache-2.0 */
/* The op checkpointing_ssu. Kernels: checkpointing_ssu_sm80.cu with its parts, checkpointing_ssu_cpu.c. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "flashinfer/mamba.h"
#include "harness/problem.h"
#include "op/op.h"
#include "op/validate.h"
#include "ops/mamba/checkpointing_ssu_args.h"
#include "ops/mamba/mamba_reference.h"
#include "ops/mamba/mamba_tensors.h"

#define OP checkpointing_ssu
DIMS(batch, tokens, num_heads, num_groups, head_dim, state_dim, num_states, ring_len, num_sequences);

/* Only lists of lengths say which tokens belong together where there are not `tokens` of each of the batch. */
#define PACKED "num_sequences > 0 and num_sequences != batch or 0 < max_seqlen and max_seqlen < tokens"

static const struct op_arg args[] = {
    OUT(out, LIKE(x), "batch tokens num_heads head_dim"),
    INOUT(state, F32 | F16 | BF16, "num_states num_heads head_dim state_dim", .fill = NORMAL),
    INOUT(x_cache, LIKE(x), "num_states num_heads ring_len head_dim", .fill = NORMAL),
    INOUT(B_cache, LIKE(x), "num_states num_groups ring_len state_dim", .fill = NORMAL),
    INOUT(dt_cache, F32, "num_states num_heads ring_len", .fill = UNIFORM(0, 2)),
    IN(ring_start, I32, "num_states", .fill = BELOW("ring_len")),
    IN(prev_num_accepted_tokens, I32, "num_states", .fill = LENGTHS(0, "ring_len")),
    IN(x, F16 | BF16, "batch tokens num_heads head_dim", .fill = NORMAL),
    IN(dt, LIKE_OR(x, F32), "batch tokens num_heads", .flags = STRIDED, .fill = NORMAL),
    IN(A, LIKE_OR(x, F32), "num_heads", .flags = STRIDED, .fill = UNIFORM(-4, 0)),
    IN(B, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(C, LIKE(x), "batch tokens num_groups state_dim", .fill = NORMAL),
    IN(D, LIKE_OR(x, F32), "num_heads", .flags = OPTIONAL | STRIDED, .fill = NORMAL),
    IN(z, LIKE(x), "batch tokens num_heads head_dim", .flags = OPTIONAL, .fill = NORMAL),
    IN(dt_bias, LIKE_OR(x, F32), "num_heads", .flags = OPTIONAL | STRIDED, .fill = NORMAL),
    FLAG(dt_softplus),
    IN(state_batch_indices, I32, "num_sequences", .flags = OPTIONAL, .fill = PERMUTED("num_states")),
    INT(pad_slot_id, .value = -1, .min = -1, .max = INT32_MAX, .flags = HOST),
    INT(rand_seed, .min = -INFINITY, .flags = OPTIONAL, .dtype.set = I64 | U64, .fill = UNIFORM(0, 1e9)),
    INT(philox_rounds, .value = 10, .min = 1, .max = 10),
    IN(cu_seqlens, I32 | I64, "num_sequences+1", .flags = OPTIONAL, .fill = INDPTR("tokens"), .required_if = PACKED),
    INT(max_seqlen, .max = 16),
    {0},
};

static const char *const rules[] = {"num_heads % num_groups == 0",
                                    "state_dim % 32 == 0 and state_dim > 0 and state_dim <= 256",
                                    "num_sequences > 0 or batch*tokens == 0",
                                    "num_states >= batch",
                                    "num_states >= num_sequences",
                                    "max_seqlen > 0 or 2*tokens <= ring_len",
                                    "max_seqlen > 0 or ring_len <= 16+tokens",
                                    "max_seqlen == 0 or 2*max_seqlen <= ring_len",
                                    "max_seqlen == 0 or ring_len <= 16+max_seqlen",
                                    NULL};

/* The most tokens of a sequence that are served. */
static int64_t most_tokens(const struct flashinfer_checkpointing_ssu *c, const struct dims *d)
{
    return c->max_seqlen ? c->max_seqlen : d->tokens;
}

static bool fill_args(const struct call *call, struct checkpointing_ssu_args *a)
{
    const struct flashinfer_checkpointing_ssu *c = call_args(call);
    const struct dims *d = call_dims(call);
    *a = (struct checkpointing_ssu_args){
        .state = mamba_states(c->state),
        .x_cache = mamba_states(c->x_cache),
        .B_cache = mamba_states(c->B_cache),
        .dt_cache = tensor_data(c->dt_cache),
        .dt_cache_row = tensor_stride(c->dt_cache, 0),
        .dt_cache_head = tensor_stride(c->dt_cache, 1),
        .ring_start = tensor_data(c->ring_start),
        .accepted = tensor_data(c->prev_num_accepted_tokens),
        .rows = tensor_data_or_null(c->state_batch_indices),
        .cu_seqlens = {tensor_data_or_null(c->cu_seqlens), c->cu_seqlens && tensor_is(c->cu_seqlens, DTYPE_I64)},
        .seed = mamba_seed(&c->rand_seed),
        .num_sequences = c->cu_seqlens ? d->num_sequences : d->batch,
        .tokens = d->tokens,
        .num_heads = d->num_heads,
        .head_dim = d->head_dim,
        .group_heads = (int32_t)mamba_group(d->num_heads, d->num_groups),
        .pad = (int32_t)c->pad_slot_id.value.i,
        .softplus = c->dt_softplus,
        .ring_len = (int32_t)d->ring_len,
        .window = (int32_t)(d->ring_len - most_tokens(c, d)),
    };
    mamba_weights(c->A, &a->A);
    mamba_weights(c->D, &a->D);
    mamba_weights(c->dt_bias, &a->dt_bias);
    const struct mamba_tokens all[] = {{c->out, &a->out}, {c->x, &a->x}, {c->dt, &a->dt},
                                       {c->B, &a->B},     {c->C, &a->C}, {c->z, &a->z}};
    return mamba_walk(all, sizeof all / sizeof *all, c->cu_seqlens, d->batch, d->tokens);
}

static const struct jit_kernel sm80 = {
    "checkpointing_ssu_sm80",
    JIT_CUDA,
    {"T:dtype", "STATE:dtype", "STATE_DIM", "RANDOM", "SAME", "TILES", "ACCESS", "HEADS", "STAGES"}};
static const struct jit_kernel cpu = {"checkpointing_ssu_cpu", JIT_CPU, {"T:dtype", "STATE:dtype", "STATE_DIM", "RANDOM"}};

enum { PIECE = 8 };

static const char *fit(const struct call *call, struct way *way, int32_t *constant)
{
    const struct flashinfer_checkpointing_ssu *c = call_args(call);
    constant[0] = tensor_dtype(c->x);
    constant[1] = tensor_dtype(c->state);
    constant[2] = (int32_t)tensor_shape(c->state, -1);
    constant[3] = mamba_random(&c->rand_seed, c->state, c->philox_rounds);
    struct checkpointing_ssu_args *a = WAY_ARGS(way, struct checkpointing_ssu_args);
    return fill_args(call, a) ? mamba_too_many(call, a->num_sequences, a->num_heads) : MAMBA_NO_STRIDE;
}

static int64_t shared_bytes(const int32_t *constant, int stages)
{
    return RING_SHARED_BYTES(constant[2], dtype_bytes((enum dtype)constant[1]), constant[5], constant[7], stages);
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_checkpointing_ssu *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *pieces[] = {c->state, c->B, c->C, c->B_cache, c->x, c->x_cache, c->z, c->out};
    int32_t *constant = way_spec(way, &sm80);
    const char *why = fit(call, way, constant);
    if (why)
        return why;
    struct checkpointing_ssu_args *a = WAY_ARGS(way, struct checkpointing_ssu_args);
    constant[4] = constant[0] == constant[1];
    constant[5] = a->ring_len - a->window <= 8 ? 1 : 2;
    constant[6] = d->head_dim % PIECE == 0 && a->state.dim == d->state_dim ? PIECE : 1;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i] && !tensor_is_aligned(pieces[i], 16))
            constant[6] = 1;
    /* Several heads of a block pay where each multiprocessor has one such block. Two of them are on their way if three blocks of
     * a multiprocessor have room for that, unless these are so few that halves of all work at once. Halved are those of the last
     * sequences, that no multiprocessor works for long when others are done; none where all work at once; with one head on its
     * way all, up to eight blocks of a multiprocessor. */
    int64_t sms = call->device->sms, all_heads = a->num_sequences * d->num_heads, blocks = ceil_div(all_heads, sms * RING_HEADS);
    int64_t heads = a->group_heads >= RING_HEADS && all_heads >= sms * RING_HEADS ? RING_HEADS : 1;
    constant[7] = (int32_t)heads;
    bool two = heads > 1 && blocks > 2 && 3 * (shared_bytes(constant, 2) + 1024) <= call->device->smem_sm;
    constant[8] = two ? 2 : 1;
    a->group_blocks = (int32_t)ceil_div(a->group_heads, heads);
    a->group_factor = (UINT64_C(1) << 32) / (uint64_t)a->group_blocks + 1;
    int64_t last = heads == 1 || two ? 0 : a->num_sequences;
    if (heads > 1 && blocks > (two ? 4 : 8))
        last = 2 * sms * RING_HEADS / most(1, d->num_heads);
    a->whole = (int32_t)(a->num_sequences - least(least(last, a->num_sequences), MAMBA_MAX_GRID_YZ - a->num_sequences));
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way) { return fit(call, way, way_spec(way, &cpu)); }

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct checkpointing_ssu_args *a = WAY_ARGS(way, const struct checkpointing_ssu_args);
    const struct dims *d = call_dims(call);
    const int32_t *constant = way->spec[0].constant;
    struct jit_launch launch = {.args = a, .args_size = sizeof *a};
    if (!d->batch || !d->tokens)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CPU)
        return mamba_launch(call, way, &launch, a->num_sequences, a->num_heads, a->head_dim, RING_ROWS);
    launch.block[0] = RING_THREADS(constant[5], constant[7]);
    launch.smem = (uint32_t)shared_bytes(constant, constant[8]);
    return mamba_launch(call, way, &launch, 2 * a->num_sequences - a->whole, d->num_groups * a->group_blocks, a->head_dim,
                        RING_ROWS);
}

static const struct op_kernel kernels[] = {
    {"checkpointing_ssu_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"checkpointing_ssu_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_checkpointing_ssu *c = call_args(call);
    const struct dims *d = call_dims(call);
    TRY(validate_starts(call, "cu_seqlens", c->cu_seqlens, d->batch * d->tokens, "the number of tokens"));
    return validate_rows(call, "state_batch_indices", c->state_batch_indices, c->state, "the number of states");
}

/* ---- the recurrence in float64, and how far off exponents that are summed first, and float32, may be */

struct head {
    const struct reference *r;
    const struct flashinfer_checkpointing_ssu *a;
    const struct dims *d;
    struct ring_sequence s;
    int64_t sequence, head, window;
    const double *x_cache, *B_cache, *dt_cache; /* as they were */
    double weight_sum;                          /* of |A delta| */
};

static struct ring_sequence reference_sequence(const struct head *h)
{
    const struct flashinfer_checkpointing_ssu *a = h->a;
    const struct dims *d = h->d;
    struct ring_sequence s = {.begin = h->sequence * d->tokens, .all = d->tokens, .row = h->sequence};
    if (a->cu_seqlens) {
        s.begin = (int64_t)mamba_value(a->cu_seqlens, h->sequence);
        s.all = (int64_t)mamba_value(a->cu_seqlens, h->sequence + 1) - s.begin;
    }
    s.count = (int32_t)least(s.all, d->ring_len - h->window);
    if (a->state_batch_indices) {
        s.row = (int64_t)mamba_value(a->state_batch_indices, h->sequence);
        s.row = s.row == a->pad_slot_id.value.i ? -1 : s.row;
    }
    if (s.row >= 0) {
        s.start = (int32_t)mamba_value(a->ring_start, s.row);
        s.live = (int32_t)least(h->window, (int64_t)mamba_value(a->prev_num_accepted_tokens, s.row));
    }
    return s;
}

/* A token of the head: the i-th live one, or then a new one; false if there is none. dt_cache gets the new one's delta. */
static bool find_token(const struct head *h, int i, int64_t dim, struct mamba_token *t)
{
    const struct flashinfer_checkpointing_ssu *a = h->a;
    const struct dims *d = h->d;
    int64_t new = i - h->s.live, token = h->s.begin + new, group = h->head / (d->num_heads / d->num_groups);
    int64_t ring = (h->s.row * d->num_heads + h->head) * d->ring_len + (h->s.start + i) % d->ring_len;
    int64_t B_row = (h->s.row * d->num_groups + group) * d->ring_len + (h->s.start + i) % d->ring_len;
    if (new >= h->s.count)
        return false;
    *t = (struct mamba_token){.A = (const double *)a->A->data + h->head};
    if (new < 0) {
        t->x = h->x_cache[ring * d->head_dim + dim];
        t->delta = h->dt_cache[ring];
        t->C = t->B = h->B_cache + B_row * d->state_dim;
        return true;
    }
    double raw = mamba_value(a->dt, token * d->num_heads + h->head) + (a->dt_bias ? mamba_value(a->dt_bias, h->head) : 0);
    t->delta = mamba_delta(raw, a->dt_softplus, &t->delta_error);
    t->x = mamba_value(a->x, (token * d->num_heads + h->head) * d->head_dim + dim);
    t->B = (const double *)a->B->data + (token * d->num_groups + group) * d->state_dim;
    t->C = (const double *)a->C->data + (token * d->num_groups + group) * d->state_dim;
    ((double *)a->dt_cache->data)[ring] = t->delta;
    reference_bound(h->r, a->dt_cache)[ring] = t->delta_error;
    ((double *)a->x_cache->data)[ring * d->head_dim + dim] = t->x;
    for (int64_t j = 0; j < d->state_dim; j++)
        ((double *)a->B_cache->data)[B_row * d->state_dim + j] = t->B[j];
    return true;
}

/* The token's magnitudes: the same recurrence with them gives the sums of the terms' magnitudes. */
static void step_magnitudes(const struct mamba_token *t, const struct head *h, double *terms)
{
    double B[256], C[256], error[256] = {0}, bound, magnitude;
    struct mamba_token m = *t;
    for (int64_t j = 0; j < h->d->state_dim; j++) {
        B[j] = fabs(t->B[j]);
        C[j] = fabs(t->C[j]);
    }
    m.B = B;
    m.C = C;
    m.x = fabs(t->x * t->delta);
    m.delta = 1;
    m.delta_error = 0;
    double A = *t->A * t->delta;
    m.A = &A;
    mamba_step(&m, h->d->state_dim, terms, error, &bound, &magnitude);
}

static void reference_row(struct head *h, int64_t dim)
{
    const struct flashinfer_checkpointing_ssu *a = h->a;
    const struct dims *d = h->d;
    const double u = REFERENCE_UNIT;
    double s[256], error[256] = {0}, terms[256];
    int64_t at = ((h->s.row * d->num_heads + h->head) * d->head_dim + dim) * d->state_dim;
    bool keep = h->s.live + h->s.count > h->window && h->s.count > 0;
    struct mamba_token t;
    for (int64_t j = 0; h->s.row >= 0 && j < d->state_dim; j++) {
        s[j] = mamba_value(a->state, at + j);
        terms[j] = fabs(s[j]);
    }
    h->weight_sum = 0;
    for (int i = 0; i < h->s.live + h->s.all; i++) {
        bool new = i >= h->s.live;
        int64_t token = h->s.begin + i - h->s.live, out = (token * d->num_heads + h->head) * d->head_dim + dim;
        double bound = 0, magnitude, y = 0;
        if (i == h->s.live && keep && h->s.row >= 0) {
            double off[256];
            for (int64_t j = 0; j < d->state_dim; j++)
                off[j] = error[j] + u * (64 + 16 * h->weight_sum) * terms[j];
            mamba_put(h->r, a->state, at, at, d->state_dim, s, off, &a->rand_seed, a->philox_rounds);
        }
        if (h->s.row >= 0 && find_token(h, i, dim, &t)) {
            y = mamba_step(&t, d->state_dim, s, error, &bound, &magnitude);
            step_magnitudes(&t, h, terms);
            h->weight_sum += fabs(*t.A * t.delta);
            double skip = a->D ? mamba_value(a->D, h->head) * t.x : 0;
            y += skip;
            magnitude = fabs(skip);
            for (int64_t j = 0; j < d->state_dim; j++)
                magnitude += fabs(t.C[j]) * terms[j];
            bound += u * ((double)d->state_dim / 2 + 64 + 16 * h->weight_sum) * magnitude + FLT_TRUE_MIN;
            y = new ? mamba_gate(a->z, out, y, &bound) : 0;
        }
        if (new) {
            ((double *)a->out->data)[out] = y;
            reference_bound(h->r, a->out)[out] = bound;
        }
    }
}

static double *copied(const DLTensor *t)
{
    size_t bytes = (size_t)tensor_elements(t) * sizeof(double);
    double *copy = malloc(bytes + 1);
    for (int64_t i = 0; copy && i < tensor_elements(t); i++)
        copy[i] = mamba_value(t, i);
    return copy;
}

static void reference(const struct reference *r)
{
    const struct flashinfer_checkpointing_ssu *a = r->args;
    const struct dims *d = call_dims(r->call);
    double *x = copied(a->x_cache), *B = copied(a->B_cache), *dt = copied(a->dt_cache);
    struct head h = {.r = r, .a = a, .d = d, .x_cache = x, .B_cache = B, .dt_cache = dt};
    h.window = d->ring_len - most_tokens(a, d);
    int64_t sequences = a->cu_seqlens ? d->num_sequences : d->batch;
    for (h.sequence = 0; x && B && dt && h.sequence < sequences; h.sequence++) {
        h.s = reference_sequence(&h);
        for (h.head = 0; h.head < d->num_heads; h.head++)
            for (int64_t dim = 0; dim < d->head_dim; dim++)
                reference_row(&h, dim);
    }
    free(x);
    free(B);
    free(dt);
}

/* Rings of an engine whose tokens are all accepted; of random problems any, with NaN where no token lives, and now and then no
 * row. */
static void make(struct problem *problem)
{
    struct problem_tensor *starts = problem_tensor(problem, "cu_seqlens"), *rows = problem_tensor(problem, "state_batch_indices"),
                          *live = problem_tensor(problem, "prev_num_accepted_tokens"),
                          *start = problem_tensor(problem, "ring_start");
    struct problem_tensor *rings[] = {problem_tensor(problem, "x_cache"), problem_tensor(problem, "B_cache"),
                                      problem_tensor(problem, "dt_cache")};
    int64_t tokens = problem_dim(problem, "tokens"), ring_len = problem_dim(problem, "ring_len");
    int64_t states = problem_dim(problem, "num_states");
    if (starts->present && starts->elements)
        problem_fill_indptr(problem, starts, problem_dim(problem, "batch") * tokens);
    for (int64_t i = 0; problem->seed && rows->present && i < rows->elements; i++)
        if (problem_random(problem, 6) == 0)
            problem_set(rows, i, -1);
    for (int64_t i = 0; !problem->seed && tokens && i < live->elements; i++)
        problem_set(live, i, (double)(tokens * (1 + i % most(1, ring_len / tokens - 1))));
    for (int n = 0; problem->seed && n < 3; n++) {
        int64_t width = states && ring_len ? rings[n]->elements / (states * ring_len) : 0;
        int64_t element = n == 2 ? 1 : rings[n]->shape[3], heads = element ? width / element : 0;
        for (int64_t i = 0; i < states * heads * ring_len; i++) {
            int64_t row = i / (heads * ring_len), place = i % ring_len;
            if ((place - (int64_t)problem_get(start, row) + ring_len) % ring_len >= (int64_t)problem_get(live, row))
                for (int64_t j = 0; j < element; j++)
                    problem_set(rings[n], i * element + j, NAN);
        }
    }
}

/* As make() has it: of so many calls as its tokens fill the window, one writes states. */
static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_checkpointing_ssu *c = call_args(call);
    const struct dims *d = call_dims(call);
    double rows = (double)(c->cu_seqlens ? d->num_sequences : d->batch), new = (double)d->batch * d->tokens;
    double calls = (double)most(1, d->tokens ? d->ring_len / d->tokens - 1 : 1), live = new * (calls + 1) / 2;
    double x = (double)d->num_heads * d->head_dim * dtype_bytes(tensor_dtype(c->x));
    double B = (double)d->num_groups * d->state_dim * dtype_bytes(tensor_dtype(c->x)), dt = 4.0 * d->num_heads;
    double states = rows * d->num_heads * d->head_dim * d->state_dim * dtype_bytes(tensor_dtype(c->state));
    *bytes = states * (1 + 1 / calls) + (live + 2 * new) * (x + B + dt) + new * (c->z ? 2 : 1) * x + new * B;
    *operations = 4 * (new + live) * d->num_heads * d->head_dim * d->state_dim;
}

static const struct op_range ranges[] = {{"batch", 0, 4, 0},     {"tokens", 1, 6, 0},        {"num_heads", 1, 4, 0},
                                         {"num_groups", 1, 2, 0}, {"head_dim", 1, 70, 0},     {"state_dim", 32, 256, 32},
                                         {"num_states", 0, 9, 0}, {"num_sequences", 0, 4, 0}, {"ring_len", 2, 20, 0},
                                         {"max_seqlen", 0, 4, 0}, {"rand_seed", 0, 1 << 30, 0}, {"pad_slot_id", -1, 3, 0},
                                         {0}};

#define NEMOTRON_H                                                                                                        \
    " tokens=4 ring_len=16 num_heads=128 num_groups=8 head_dim=64 state_dim=128 dt_softplus=1 -cu_seqlens -rand_seed"
static const struct op_shape shapes[] = {
    {"nemotron_h_1", "dtype=bf16 batch=1 num_sequences=1 num_states=4 state:dtype=f32" NEMOTRON_H},
    {"nemotron_h_64", "dtype=bf16 batch=64 num_sequences=64 num_states=64 state:dtype=bf16" NEMOTRON_H},
    {"nemotron_h_256", "dtype=bf16 batch=256 num_sequences=256 num_states=256 state:dtype=bf16" NEMOTRON_H},
    {"nemotron_h_256_f32", "dtype=bf16 batch=256 num_sequences=256 num_states=256 state:dtype=f32" NEMOTRON_H},
    {"longest", "dtype=f16 batch=3 num_sequences=3 num_states=5 tokens=16 ring_len=32 num_heads=4 num_groups=2 head_dim=80 "
                "state_dim=64 state:dtype=f16 rand_seed=7 -cu_seqlens"},
    {"packed", "dtype=bf16 batch=1 num_sequences=5 num_states=9 tokens=13 max_seqlen=4 ring_len=12 num_heads=4 num_groups=2 "
               "head_dim=64 state_dim=128 state:dtype=f16"},
    {"many_heads", "dtype=f16 batch=1 num_sequences=37 num_states=70 tokens=105 max_seqlen=4 ring_len=12 num_heads=28 "
                   "num_groups=4 head_dim=72 state_dim=64 state:dtype=f16 dt_softplus=1 rand_seed=7"},
    {"many_heads_mixed", "dtype=bf16 batch=64 num_sequences=64 num_states=64 tokens=16 ring_len=32 num_heads=28 num_groups=4 "
                         "head_dim=64 state_dim=128 state:dtype=f16 dt_softplus=1 -cu_seqlens -rand_seed"},
    {0},
};

DEFINE_OP("mamba", "a few tokens of each sequence through Mamba-2's state, which is written now and then", .rules = rules,
          .kernels = kernels, .validate = validate, .ranges = ranges, .shapes = shapes, .reference = reference, .make = make,
          .cost = cost);
