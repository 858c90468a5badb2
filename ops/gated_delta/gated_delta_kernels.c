/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels of the gated delta rule: arguments, the kernels that go token by token, and the look at indices that
 * lie on the device. */
#include "ops/gated_delta/gated_delta_kernels.h"

#include <math.h>

#include "core/status.h"
#include "harness/problem.h"
#include "op/validate.h"

/* Between tokens, and beyond them between sequences, where a tensor has an axis of sequences before that of tokens. `packed`: no
 * sequences, but tokens of all of them. Modulo 2^64, since the stride of an axis of one may be any number. */
struct walk {
    int64_t token, sequence;
};

static struct walk see_walk(const DLTensor *t, int axis, bool packed)
{
    struct walk w = {tensor_stride(t, axis), 0};
    if (t->ndim + axis == 0)
        return w;
    if (packed)
        return (struct walk){tensor_shape(t, 1) <= 1 ? tensor_stride(t, 0) : w.token, 0};
    w.sequence = wrapping_difference(tensor_stride(t, 0), wrapping_product(tensor_shape(t, 1), w.token));
    return w;
}

/* Whether one stride walks the tokens of all sequences, of a tensor that has an axis of sequences. */
static bool is_packed(const DLTensor *t)
{
    return tensor_shape(t, 0) <= 1 || tensor_shape(t, 1) <= 1 || see_walk(t, 1 - t->ndim, false).sequence == 0;
}

static struct head_rows see_heads(const DLTensor *t, bool packed)
{
    struct walk w = see_walk(t, -3, packed);
    return (struct head_rows){tensor_data(t), w.token, tensor_stride(t, -2), w.sequence};
}

static struct token_pool see_tokens(const DLTensor *t)
{
    if (!t)
        return (struct token_pool){0};
    return (struct token_pool){tensor_data(t), tensor_stride(t, 0), tensor_stride(t, 1), tensor_stride(t, 2), tensor_shape(t, 2)};
}

/* `states` is zero before, padding too, which stays so: a call has the same bytes each time. */
static void see_states(const DLTensor *t, struct state_pool *states)
{
    if (!t)
        return;
    enum dtype dtype = tensor_dtype(t);
    states->data = tensor_data(t);
    states->row = tensor_stride(t, -4);
    states->head = tensor_stride(t, -3);
    states->line = tensor_stride(t, -2);
    states->dtype = dtype == DTYPE_F16    ? STATE_F16
                    : dtype == DTYPE_BF16 ? STATE_BF16
                    : dtype == DTYPE_E4M3 ? STATE_E4M3
                    : dtype == DTYPE_E5M2 ? STATE_E5M2
                                          : STATE_F32;
}

/* Whether all that is kept is the state after the only token of each sequence. */
static bool keeps_last(const struct gated_delta_view *t)
{
    return t->kept && t->kept_every == 1 && !t->kept_first && !t->kept_starts && !t->final && !t->cu_seqlens &&
           tensor_shape(t->output, -3) == 1 && (!t->kept_rows || tensor_shape(t->kept_rows, 1) == 1);
}

static int64_t num_sequences(const struct gated_delta_view *t)
{
    return t->cu_seqlens ? tensor_shape(t->cu_seqlens, 0) - 1 : tensor_shape(t->output, 0);
}

struct gated_delta_args gated_delta_args(const struct call *call)
{
    const struct gated_delta_view *t = call_view(call);
    int64_t num_heads = tensor_shape(t->output, -2);
    struct walk alpha = {0}, beta = {0};
    bool last = keeps_last(t);
    if (t->alpha)
        alpha = see_walk(t->alpha, t->per_key ? -3 : -2, t->cu_seqlens);
    if (t->beta)
        beta = see_walk(t->beta, -2, t->cu_seqlens);
    struct gated_delta_args a = {
        .q = see_heads(t->q, t->cu_seqlens),
        .k = see_heads(t->k, t->cu_seqlens),
        .v = see_heads(t->v, t->cu_seqlens),
        .output = see_heads(t->output, t->cu_seqlens),
        .alpha = tensor_data_or_null(t->alpha),
        .beta = tensor_data_or_null(t->beta),
        .alpha_token = alpha.token,
        .alpha_head = t->per_key ? tensor_stride(t->alpha, -2) : 1,
        .alpha_sequence = alpha.sequence,
        .beta_token = beta.token,
        .beta_sequence = beta.sequence,
        .A_log = tensor_data_or_null(t->A_log),
        .dt_bias = tensor_data_or_null(t->dt_bias),
        .dt_bias_wide = t->dt_bias && tensor_dtype(t->dt_bias) == DTYPE_F32,
        .added = see_tokens(t->added),
        .given = see_tokens(t->given),
        .initial_rows = tensor_data_or_null(t->initial_rows),
        .final_rows = tensor_data_or_null(last ? t->kept_rows : t->final_rows),
        .kept_rows = tensor_data_or_null(t->kept_rows),
        .accepted = tensor_data_or_null(t->accepted),
        .initial_step = t->initial_rows && t->initial_rows->ndim == 2 ? tensor_shape(t->initial_rows, 1) : 1,
        .cu_seqlens = {tensor_data_or_null(t->cu_seqlens), t->cu_seqlens && tensor_is(t->cu_seqlens, DTYPE_I64)},
        .kept_starts = {tensor_data_or_null(t->kept_starts), t->kept_starts && tensor_is(t->kept_starts, DTYPE_I64)},
        .num_sequences = num_sequences(t),
        .num_tokens = tensor_shape(t->output, -3),
        .kept_every = t->kept_every,
        .kept_first = t->kept_first,
        .kept_step = t->kept_rows && !t->kept_starts ? tensor_shape(t->kept_rows, 1) : tensor_shape(t->output, -3),
        .num_heads = (int32_t)least(num_heads, INT32_MAX),
        .q_group = (int32_t)(num_heads / tensor_shape(t->q, -2)),
        .k_group = (int32_t)(num_heads / tensor_shape(t->k, -2)),
        .v_group = (int32_t)(num_heads / tensor_shape(t->v, -2)),
        .l2norm = t->l2norm,
        .pads = t->pads,
        .beta_is_logit = t->beta_is_logit,
        .lower_bound = (float)t->lower_bound,
        .scale = (float)(t->scale > 0 ? t->scale : 1 / sqrt((double)tensor_shape(t->q, -1))),
    };
    see_states(t->initial, &a.initial);
    see_states(last ? t->kept : t->final, &a.final);
    see_states(last ? NULL : t->kept, &a.kept);
    return a;
}

enum { BLOCK_VALUES = 32, DECODE_VALUES = 64, DECODE_BYTES = 128 /* of a key */ };
enum { PIECE = 4, MOST_TOKENS = 8, MAX_GRID_YZ = 65535 };
enum { WAY_VALUES, WAY_THREADS }; /* of a block on a GPU */

static const struct jit_kernel recurrent_cpu = {
    "gated_delta_recurrent_cpu", JIT_CPU, {"T:dtype", "HEAD_DIM", "VALUES_LAST", "GATES"}};
static const struct jit_kernel recurrent_sm80 = {
    "gated_delta_recurrent_sm80",
    JIT_CUDA,
    {"T:dtype", "HEAD_DIM", "VALUES_LAST", "GATES", "INITIAL:dtype", "FINAL:dtype", "ACCESS", "MANY"}};
static const struct jit_kernel tokens_sm80 = {
    "gated_delta_tokens_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "GATES", "STATE:dtype", "KEPT", "TOKENS", "VALUES"}};
static const struct jit_kernel decode_sm80 = {
    "gated_delta_decode_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "GATES", "STATE:dtype"}};
static const struct jit_kernel decode_values_sm80 = {
    "gated_delta_decode_values_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "GATES", "STATE:dtype"}};

static bool walks(const struct gated_delta_view *t)
{
    const DLTensor *all[] = {t->output, t->q, t->k, t->v, t->alpha, t->beta};
    bool packed = true;
    for (size_t i = 0; t->cu_seqlens && t->q->ndim == 4 && i < sizeof all / sizeof *all; i++)
        packed &= is_packed(all[i]);
    return packed;
}
#define UNWALKED "batch and tokens cannot be walked with one stride"

static enum dtype state_dtype(const DLTensor *t, const DLTensor *other)
{
    return t ? tensor_dtype(t) : other ? tensor_dtype(other) : DTYPE_F32;
}

static int32_t gates_of(const struct gated_delta_view *t)
{
    return (t->A_log ? GATES_FROM_LOGITS : GATES_GIVEN) + (t->per_key ? GATES_PER_KEY : 0);
}

static int32_t *fill_spec(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct gated_delta_view *t = call_view(call);
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(t->q);
    constant[1] = (int32_t)tensor_shape(t->q, -1);
    constant[2] = t->values_last;
    constant[3] = gates_of(t);
    return constant;
}

const char *gated_delta_fit_recurrent_cpu(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    fill_spec(call, way, &recurrent_cpu);
    if (!walks(t))
        return UNWALKED;
    return num_sequences(t) > INT32_MAX / most(tensor_shape(t->output, -2), 1) ? "there are more states than parts can be counted"
                                                                               : NULL;
}

/* Whether there is more than one token, or more than its sequences' states before and after. */
static bool is_many(const struct gated_delta_view *t)
{
    return t->cu_seqlens || (t->kept && !keeps_last(t)) || t->added || t->given || tensor_shape(t->output, -3) != 1 ||
           !t->initial || (t->initial_rows && !t->pads);
}

static void set_block(struct way *way, int64_t values, int64_t threads)
{
    way->value[WAY_VALUES] = values;
    way->value[WAY_THREADS] = threads;
}

static bool too_many_blocks(const struct gated_delta_view *t)
{
    return num_sequences(t) > MAX_GRID_YZ || tensor_shape(t->output, -2) > MAX_GRID_YZ;
}
#define TOO_MANY_BLOCKS "there are more sequences or heads than a grid has blocks for"

const char *gated_delta_fit_recurrent_sm80(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    const DLTensor *pieces[] = {t->q, t->k, t->initial, t->final, t->kept, t->per_key ? t->alpha : NULL};
    if (too_many_blocks(t))
        return TOO_MANY_BLOCKS;
    if (!walks(t))
        return UNWALKED;
    int32_t *constant = fill_spec(call, way, &recurrent_sm80);
    set_block(way, BLOCK_VALUES, 128);
    constant[4] = state_dtype(t->initial, NULL);
    constant[5] = state_dtype(t->final, t->kept);
    bool narrow = !t->values_last && dtype_bytes((enum dtype)constant[4]) == 2 && dtype_bytes((enum dtype)constant[5]) == 2;
    constant[6] = narrow ? 2 * PIECE : PIECE;
    constant[7] = is_many(t);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i] && !tensor_is_aligned(pieces[i], constant[6] * dtype_bytes(tensor_dtype(pieces[i]))))
            constant[6] = 1;
    return NULL;
}

/* Of the kernels that take states as they are in memory. */
static const char *fit_states(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct gated_delta_view *t = call_view(call);
    const DLTensor *pieces[] = {t->output, t->q, t->k, t->v, t->initial, t->final, t->kept};
    if (too_many_blocks(t))
        return TOO_MANY_BLOCKS;
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(t->q);
    constant[1] = (int32_t)tensor_shape(t->q, -1);
    constant[2] = gates_of(t);
    constant[3] = tensor_dtype(t->initial);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i] && !tensor_is_aligned(pieces[i], 16))
            return "a tensor is not aligned to 16 bytes";
    return NULL;
}

static const char *fit_decode(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    int64_t dim = tensor_shape(t->q, -1);
    if (is_many(t))
        return "there is more than one token, or more than the states before and after it";
    int bytes = dtype_bytes(tensor_dtype(t->initial));
    if (bytes != 2 && !(t->values_last && bytes == 4))
        return "states are not of 16 bits, nor of 32 with values last";
    if (!t->values_last && dim != 128 && tensor_dtype(t->initial) != tensor_dtype(t->q))
        return "states with keys last are not of the dtype of q, and head_dim is not 128";
    set_block(way, t->values_last ? DECODE_BYTES / bytes : DECODE_VALUES, t->values_last ? dim : 128);
    return fit_states(call, way, t->values_last ? &decode_values_sm80 : &decode_sm80);
}

/* As measured, of few states of 32 bits. */
static bool is_faster_by_steps(const struct call *call, const struct gated_delta_view *t)
{
    if (call->exec.flags & FLASHINFER_BATCH_INVARIANT)
        return false;
    bool wide = dtype_bytes(tensor_dtype(t->initial)) == 4, few = num_sequences(t) * tensor_shape(t->output, -2) < 256;
    int64_t tokens = tensor_shape(t->output, -3);
    return wide && few && ((t->kept && t->per_key) || (tokens < 3 && (t->kept || t->per_key)));
}

static const char *fit_tokens(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    if (!is_many(t))
        return "there is one token, and no more than the states before and after it";
    int64_t tokens = tensor_shape(t->output, -3);
    if (t->cu_seqlens || tokens < 1 || tokens > MOST_TOKENS)
        return "sequences have lengths of their own, or no tokens, or more than 8";
    if (!t->initial || (t->initial_rows && !t->pads) || t->values_last)
        return "a sequence has no state, or values are last";
    if (t->added || t->given || (t->kept && (t->kept_every != 1 || t->kept_starts)))
        return "more or less is kept than the state after each token";
    if (is_faster_by_steps(call, t))
        return "token by token is faster: few states of 32 bits";
    if (t->per_key && !tensor_is_aligned(t->alpha, 8))
        return "gates are not aligned to 8 bytes";
    const char *unfit = fit_states(call, way, &tokens_sm80);
    bool half = tokens <= MOST_TOKENS / 2, wide = dtype_bytes(tensor_dtype(t->initial)) == 4;
    int64_t values = t->per_key && !t->kept && (wide || !half) ? tensor_shape(t->q, -1) : DECODE_VALUES; /* as measured */
    int32_t *constant = way->spec[0].constant;
    constant[4] = t->kept != NULL;
    constant[5] = half ? MOST_TOKENS / 2 : MOST_TOKENS;
    constant[6] = (int32_t)values;
    set_block(way, values, 2 * values);
    return unfit;
}

const struct op_kernel gated_delta_token_kernels[] = {
    {"gated_delta_tokens_sm80", OP_CUDA, 80, 0, fit_tokens, gated_delta_run_recurrent},
    {"gated_delta_decode_sm80", OP_CUDA, 80, 0, fit_decode, gated_delta_run_recurrent},
    {"gated_delta_recurrent_sm80", OP_CUDA, 80, 0, gated_delta_fit_recurrent_sm80, gated_delta_run_recurrent},
    {"gated_delta_recurrent_cpu", OP_CPU, 0, 0, gated_delta_fit_recurrent_cpu, gated_delta_run_recurrent},
    {0},
};

flashinfer_status gated_delta_run_recurrent(const struct call *call, const struct way *way)
{
    struct gated_delta_args a = gated_delta_args(call);
    const struct gated_delta_view *t = call_view(call);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (!a.num_sequences || !a.num_heads)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)(tensor_shape(t->q, -1) / way->value[WAY_VALUES]);
        launch.grid[1] = (uint32_t)a.num_heads;
        launch.grid[2] = (uint32_t)a.num_sequences;
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
    } else {
        launch.grid[0] = (uint32_t)(a.num_sequences * a.num_heads);
    }
    return call_launch(call, way, 0, &launch);
}

/* ---- what lies on the device */

flashinfer_status gated_delta_validate(const struct call *call)
{
    const struct gated_delta_view *t = call_view(call);
    const char *limit = "the number of states", *read = "initial_state_indices";
    const char *written = t->per_key ? "ssm_state_indices" : "output_state_indices";
    int64_t row = tensor_shape(t->output, -2) * tensor_shape(t->output, -1);
    bool whole = t->cu_seqlens && t->output->ndim == 3, drafts = t->initial_rows && t->initial_rows == t->kept_rows;
    TRY(validate_starts(call, "cu_seqlens", t->cu_seqlens, tensor_elements(t->output) / most(row, 1), "the number of tokens"));
    if (t->kept)
        TRY(validate_starts(call, "checkpoint_cu_starts", t->kept_starts, tensor_shape(t->kept_rows ? t->kept_rows : t->kept, 0),
                            t->kept_rows ? "the length of checkpoint_state_indices" : "the rows of state_checkpoints"));
    if (whole)
        read = "state_indices";
    else if (t->initial_rows && t->initial_rows->ndim == 2)
        read = "ssm_state_indices";
    TRY(validate_rows(call, read, t->initial_rows, t->added, "the slots of correction_cache"));
    TRY(validate_rows(call, read, t->initial_rows, t->given, "the slots of kg_cache"));
    if (!drafts)
        TRY(validate_rows(call, read, t->initial_rows, whole && !t->initial ? t->final : t->initial, limit));
    if (!whole && t->final_rows != t->initial_rows)
        TRY(validate_rows(call, written, t->final_rows, t->final, limit));
    if (t->kept_starts)
        return validate_rows(call, "checkpoint_state_indices", t->kept_rows, t->kept, "the rows of state_checkpoints");
    return validate_rows(call, "ssm_state_indices", t->kept_rows, t->kept, limit);
}

void gated_delta_cost(const struct call *call, double *bytes, double *operations)
{
    const struct gated_delta_view *t = call_view(call);
    double dim = (double)tensor_shape(t->q, -1), tokens = (double)tensor_elements(t->output) / dim;
    const DLTensor *all[] = {t->output, t->q, t->k, t->v, t->alpha, t->beta};
    *bytes = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *bytes += all[i] ? (double)tensor_elements(all[i]) * dtype_bytes(tensor_dtype(all[i])) : 0;
    struct gated_delta_args a = gated_delta_args(call);
    double state = (double)a.num_sequences * a.num_heads * dim * dim;
    *bytes += t->initial ? state * dtype_bytes(tensor_dtype(t->initial)) : 0;
    *bytes += t->final ? state * dtype_bytes(tensor_dtype(t->final)) : 0;
    *bytes += t->kept && t->kept_every == 1 ? tokens * dim * dim * dtype_bytes(tensor_dtype(t->kept)) : 0;
    *operations = 6 * tokens * dim * dim;
}
