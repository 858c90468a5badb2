/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels of attention: which of them serve a call, and their launch. */
#include "ops/attention/attention_kernels.h"

#include "flashinfer/attention.h"

enum { MAX_GRID_Y = 65535, MAX_PARTS = INT32_MAX, MIN_PARTS = 8 /* of a CPU's decode, if there are heads enough */ };
enum { WAY_GRID, WAY_GRID_Y, WAY_THREADS, WAY_SMEM };

static const struct jit_kernel prefill_sm80 = {"batch_prefill_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "ALIGNED", "TILE_Q"}};
static const struct jit_kernel decode_sm80 = {"batch_decode_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "ALIGNED"}};
static const struct jit_kernel prefill_cpu = {"batch_prefill_cpu", JIT_CPU, {"T:dtype", "HEAD_DIM"}};
static const struct jit_kernel decode_cpu = {"batch_decode_cpu", JIT_CPU, {"T:dtype", "HEAD_DIM"}};

int32_t attention_window(int64_t window_left) { return window_left < INT32_MAX ? (int32_t)window_left : -1; }

int32_t attention_window_of(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    bool own = t->window_left && t->window_left->kind != FLASHINFER_NUMBER_ABSENT;
    return own ? attention_window(t->window_left->value.i) : attention_plan_of(call)->window_left;
}

size_t attention_decode_workspace(const struct attention_plan *plan, int32_t workers)
{
    return plan->whole ? 0 : 2 * (size_t)workers * ATTENTION_DECODE_PART_BYTES((size_t)plan->head_dim);
}

struct attention_cache attention_see_cache(const struct attention_plan *plan, const DLTensor *cache)
{
    bool paged = cache->ndim == 4;
    int slot_axis = paged + (plan->kv_layout != FLASHINFER_NHD), head_axis = paged + (plan->kv_layout == FLASHINFER_NHD);
    return (struct attention_cache){.pages = paged ? tensor_shape(cache, 0) : 1,
                                    .slots = tensor_shape(cache, slot_axis),
                                    .page = paged ? tensor_stride(cache, 0) : 0,
                                    .slot = tensor_stride(cache, slot_axis),
                                    .head = tensor_stride(cache, head_axis)};
}

static float factor_of(const flashinfer_number *number)
{
    return number->kind == FLASHINFER_NUMBER_TENSOR ? 1.0f : (float)number_value(number);
}

static const float *pointer_of(const flashinfer_number *number)
{
    return number->kind == FLASHINFER_NUMBER_TENSOR ? tensor_data(number->value.tensor) : NULL;
}

/* Tiles of `rows` packed rows that hold every request's rows, whatever their lengths. */
static int64_t count_tiles(const struct call *call, const struct attention_view *t, int64_t rows)
{
    return ceil_div(attention_total_q(t) * attention_plan_of(call)->group, rows) + attention_batch(t);
}

static int32_t *add_spec(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct attention_plan *plan = attention_plan_of(call);
    int32_t *constant = way_spec(way, kernel);
    constant[0] = plan->dtype;
    constant[1] = plan->head_dim;
    return constant;
}

static int32_t is_aligned(const struct attention_view *t)
{
    return tensor_is_aligned(t->q, 8) && tensor_is_aligned(t->out, 8) && tensor_is_aligned(t->k_cache, 16) &&
           tensor_is_aligned(t->v_cache, 16);
}

static const char *fit_prefill_sm80(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    int32_t tile_q = attention_tile_q(call);
    if (t->unserved)
        return t->unserved;
    if (plan->head_dim > 128)
        return "head_dim is more than its registers hold";
    way->value[WAY_GRID] = count_tiles(call, t, tile_q);
    way->value[WAY_GRID_Y] = plan->num_kv_heads;
    way->value[WAY_THREADS] = tile_q * 2;
    way->value[WAY_SMEM] = ATTENTION_PREFILL_SMEM(plan->head_dim);
    if (way->value[WAY_GRID] > INT32_MAX || plan->num_kv_heads > MAX_GRID_Y)
        return "there are more rows or heads than a grid has blocks for";
    int32_t *constant = add_spec(call, way, &prefill_sm80);
    constant[2] = is_aligned(t);
    constant[3] = tile_q;
    return NULL;
}

static const char *fit_decode_sm80(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    int32_t workers = plan->workers ? plan->workers : attention_count_workers(call->device);
    if (t->unserved)
        return t->unserved;
    way->value[WAY_GRID] = workers;
    way->value[WAY_GRID_Y] = 1;
    way->value[WAY_THREADS] = 128;
    way->value[WAY_SMEM] = ATTENTION_DECODE_SMEM;
    way->workspace = call->exec.flags & FLASHINFER_BATCH_INVARIANT ? 0 : attention_decode_workspace(plan, workers);
    add_spec(call, way, &decode_sm80)[2] = is_aligned(t);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way, const struct jit_kernel *kernel, int64_t parts)
{
    const struct attention_view *t = call_view(call);
    if (t->unserved)
        return t->unserved;
    if (parts > MAX_PARTS)
        return "there are more rows than parts can be numbered";
    way->value[WAY_GRID] = parts;
    add_spec(call, way, kernel);
    return NULL;
}

static const char *fit_prefill_cpu(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    return fit_cpu(call, way, &prefill_cpu, count_tiles(call, t, ATTENTION_CPU_ROWS) * plan->num_kv_heads);
}

/* Few parts per request keep together what lies together in a page; a part has at most ATTENTION_CPU_ROWS rows. */
static const char *fit_decode_cpu(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    int64_t group = plan->group, batch = attention_batch(t);
    int64_t parts_of_request = group > ATTENTION_CPU_ROWS
                                   ? plan->num_kv_heads * ceil_div(group, ATTENTION_CPU_ROWS)
                                   : ceil_div(plan->num_kv_heads, ATTENTION_CPU_ROWS / group);
    if (parts_of_request * batch < MIN_PARTS && parts_of_request < plan->num_kv_heads)
        parts_of_request = ceil_div(MIN_PARTS, batch) < plan->num_kv_heads ? ceil_div(MIN_PARTS, batch) : plan->num_kv_heads;
    return fit_cpu(call, way, &decode_cpu, batch * parts_of_request);
}

struct attention_args attention_args(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    struct attention_cache k = attention_see_cache(plan, t->k_cache), v = attention_see_cache(plan, t->v_cache);
    bool has_tokens = t->q->ndim == 3, is_ragged = !t->kv_last_page_len;
    /* With every field: what is left out would make the compiler clear the whole, which takes longer than all the rest. */
    return (struct attention_args){
        .out = tensor_data(t->out),
        .q = tensor_data(t->q),
        .k = tensor_data(t->k_cache),
        .v = tensor_data(t->v_cache),
        .qo_indptr = tensor_data_or_null(t->qo_indptr),
        .kv_indptr = tensor_data_or_null(t->kv_indptr),
        .kv_indices = is_ragged ? NULL : tensor_data(t->kv_indices),
        .kv_last_page_len = is_ragged ? NULL : tensor_data(t->kv_last_page_len),
        .sinks = tensor_data_or_null(t->sinks),
        .q_scale = pointer_of(t->q_scale),
        .k_scale = pointer_of(t->k_scale),
        .v_scale = pointer_of(t->v_scale),
        .workspace = call->exec.workspace,
        .lse = tensor_data_or_null(t->lse),
        .lse_token = t->lse && has_tokens ? tensor_stride(t->lse, 0) : 0,
        .lse_head = t->lse ? tensor_stride(t->lse, -1) : 0,
        .out_token = has_tokens ? tensor_stride(t->out, 0) : 0,
        .out_head = tensor_stride(t->out, -2),
        .q_token = has_tokens ? tensor_stride(t->q, 0) : 0,
        .q_head = tensor_stride(t->q, -2),
        .k_page = k.page,
        .k_slot = k.slot,
        .k_head = k.head,
        .v_page = v.page,
        .v_slot = v.slot,
        .v_head = v.head,
        .logit_factor = (float)(plan->sm_scale * factor_of(t->q_scale) * factor_of(t->k_scale)),
        .out_factor = (float)(factor_of(t->v_scale) / (t->o_scale != 0 ? t->o_scale : 1)),
        .soft_cap = (float)plan->logits_soft_cap,
        .by_page_size = plan->by_page_size,
        .by_group = plan->by_group,
        .batch = (int32_t)attention_batch(t),
        .num_kv_heads = plan->num_kv_heads,
        .group = plan->group,
        .page_size = is_ragged ? INT32_MAX : plan->page_size,
        .qo_len = (int32_t)attention_total_q(t),
        .kv_len = (int32_t)k.slots,
        .window_left = attention_window_of(call),
        .causal = plan->causal,
        .whole = plan->whole || call->exec.flags & FLASHINFER_BATCH_INVARIANT,
    };
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct attention_args a = attention_args(call);
    return call_launch(call, way, 0, &(struct jit_launch){
        .grid = {(uint32_t)way->value[WAY_GRID], (uint32_t)way->value[WAY_GRID_Y]},
        .block = {(uint32_t)way->value[WAY_THREADS]},
        .smem = (uint32_t)way->value[WAY_SMEM],
        .args = &a,
        .args_size = sizeof a,
    });
}

const struct op_kernel batch_prefill_kernels[] = {
    {"batch_prefill_sm90", OP_CUDA, 90, 90, attention_fit_sm90, attention_run_sm90},
    {"batch_prefill_sm80", OP_CUDA, 80, 0, fit_prefill_sm80, run},
    {"batch_prefill_cpu", OP_CPU, 0, 0, fit_prefill_cpu, run},
    {0},
};

const struct op_kernel batch_decode_kernels[] = {
    {"batch_decode_sm80", OP_CUDA, 80, 0, fit_decode_sm80, run},
    {"batch_decode_cpu", OP_CPU, 0, 0, fit_decode_cpu, run},
    {0},
};
