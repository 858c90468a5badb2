/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels of attention: which of them serve a call, and the launch of batch_prefill_sm80 and of those for
 * CPUs. The others' are in attention_sm90.c and attention_stream.c. */
#include "ops/attention/attention_kernels.h"

#include <math.h>
#include <string.h>

#include "flashinfer/attention.h"
#include "op/variant.h"
#include "ops/attention/attention_decode_cpu_args.h"

enum { MAX_PARTS = INT32_MAX, MIN_PARTS = 8 /* of a CPU's decode, if there are heads enough */ };
enum { WAY_GRID, WAY_GRID_Y, WAY_PARTS, WAY_THREADS, WAY_SMEM };
enum { WAY_KEY_PARTS = WAY_GRID_Y, WAY_SCRATCH }; /* of a CPU's decode */

/* Of the generic kernels, after T. */
#define GENERIC "HEAD_DIM", "HEAD_DIM_VO", "Q:dtype", "KV:dtype", "O:dtype", "CONVERTS", "MASK", "POS"

static const struct jit_kernel prefill_sm80 = {"batch_prefill_sm80", JIT_CUDA,
                                               {"T:dtype", GENERIC, "ALIGNED", "TILE_Q", "KEYS", "SOFT_CAP", "PARTS"}};
static const struct jit_kernel prefill_cpu = {"batch_prefill_cpu", JIT_CPU, {"T:dtype", GENERIC}};
static const struct jit_kernel decode_cpu = {"batch_decode_cpu", JIT_CPU, {"T:dtype", GENERIC}};

int32_t attention_window(int64_t window_left) { return window_left < INT32_MAX ? (int32_t)window_left : -1; }

int32_t attention_window_of(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    bool own = t->window_left && t->window_left->kind != FLASHINFER_NUMBER_ABSENT;
    return own ? attention_window(t->window_left->value.i) : attention_plan_of(call)->window_left;
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
    bool is_value = number->kind == FLASHINFER_NUMBER_FLOAT || number->kind == FLASHINFER_NUMBER_INT;
    return is_value ? (float)number_value(number) : 1.0f;
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

/* A scale of each head. */
static bool is_of_heads(const flashinfer_number *number)
{
    return number->kind == FLASHINFER_NUMBER_TENSOR && tensor_elements(number->value.tensor) > 1;
}

static bool scales_heads(const struct attention_view *t) { return is_of_heads(t->q_scale) || is_of_heads(t->k_scale); }

static uint32_t hooks_of(const struct call *call) { return call->op->variant ? call->op->variant->hooks : 0; }

/* Also what only the loader of keys and values that converts knows. */
static bool converts(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    return hooks_of(call) & (HOOK_QUERY | HOOK_KEY) || plan->q_dtype != plan->dtype || plan->kv_dtype != plan->dtype ||
           plan->pos == ATTENTION_POS_ROPE || scales_heads(t) || t->v_indptr;
}

/* What holds for every kernel. */
static const char *why_unserved(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    bool scaled = t->k_scale->kind != FLASHINFER_NUMBER_ABSENT && t->v_scale->kind != FLASHINFER_NUMBER_ABSENT;
    if (t->unserved)
        return t->unserved;
    if (dtype_bytes((enum dtype)plan->kv_dtype) == 1 && !scaled)
        return "keys and values of 8 bits must come with k_scale and v_scale";
    if (hooks_of(call) & HOOK_NO_SOFTMAX && (t->lse || t->sinks))
        return "without softmax there are neither lse nor sinks";
    return NULL;
}

const char *attention_needs_generic(const struct call *call, bool widens)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    const char *why = why_unserved(call);
    if (why)
        return why;
    if (plan->head_dim != plan->head_dim_vo && !(plan->head_dim == 192 && plan->head_dim_vo == 128))
        return "head_dim_vo is neither head_dim_qk nor 128 with 192";
    if (plan->q_dtype != plan->o_dtype || plan->q_dtype != plan->dtype)
        return "q and out must be both f16 or both bf16";
    if (plan->kv_dtype != plan->dtype && !(widens && dtype_bytes((enum dtype)plan->kv_dtype) == 1))
        return "keys and values are not of q's dtype";
    if (plan->mask != ATTENTION_MASK_NONE)
        return "it knows no masks but causal and window";
    if (plan->pos != ATTENTION_POS_NONE)
        return "pos_encoding_mode must be NONE";
    if (t->v_indptr || t->o_indptr)
        return "v_indptr and o_indptr are not read";
    if (scales_heads(t))
        return "q_scale and k_scale must be one number";
    return NULL;
}

static int32_t *add_spec(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct attention_plan *plan = attention_plan_of(call);
    /* A CPU stores any dtype that is not T alike; a GPU's registers would not have it. */
    int32_t o = plan->o_dtype == plan->dtype || kernel->target == JIT_CUDA ? plan->o_dtype : DTYPE_F32;
    const int32_t constants[] = {plan->dtype, plan->head_dim, plan->head_dim_vo, plan->q_dtype, plan->kv_dtype,
                                 o,           converts(call), plan->mask,        plan->pos};
    int32_t *constant = way_spec(way, kernel);
    memcpy(constant, constants, sizeof constants);
    return constant + sizeof constants / sizeof *constants;
}

/* 16-byte copies of keys and values, and accesses to 8 bytes of queries, or to all of a chunk that is converted. */
static int32_t is_aligned(const struct call *call, int32_t tile_q)
{
    const struct attention_view *t = call_view(call);
    bool shared = ATTENTION_QUERIES_SHARED(attention_plan_of(call)->head_dim, tile_q, converts(call));
    return tensor_is_aligned(t->q, shared ? 16 : 8) && tensor_is_aligned(t->out, 8) && tensor_is_aligned(t->k_cache, 16) &&
           tensor_is_aligned(t->v_cache, 16);
}

static int32_t next_tile(int32_t tile_q) { return tile_q == 128 ? 64 : 16; }

static int32_t prefill_smem(const struct call *call, int32_t tile_q, int32_t keys)
{
    const struct attention_plan *plan = attention_plan_of(call);
    return ATTENTION_PREFILL_SMEM(plan->head_dim, plan->head_dim_vo, tile_q, keys, converts(call),
                                  plan->pos == ATTENTION_POS_ROPE);
}

static bool is_invariant(const struct call *call)
{
    return attention_plan_of(call)->whole || call->exec.flags & FLASHINFER_BATCH_INVARIANT;
}

/* Keys of a tile. Of blocks of 128 rows, warps load queries half as often with 64, if as many blocks have room as registers are
 * for (sm_80's would spill); what a row sums up then depends on TILE_Q. */
static int32_t choose_keys(const struct call *call, int32_t tile_q)
{
    const struct attention_plan *plan = attention_plan_of(call);
    int32_t blocks = plan->head_dim <= 64 && plan->head_dim_vo <= 64 ? 3 : 2;
    if (tile_q != 128 || call->device->arch < 90 || is_invariant(call))
        return plan->head_dim > 256 ? 16 : 32;
    return blocks * (prefill_smem(call, tile_q, 64) + 1024) <= call->device->smem_sm ? 64 : 32;
}

/* Blocks that divide the keys of a tile of 128 rows, where the plan would have such: of the usual, which has room in registers,
 * and in the shared memory of each what they join. */
static int32_t choose_parts(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    bool fits = plan->o_dtype == plan->dtype && plan->head_dim == plan->head_dim_vo && plan->head_dim % 64 == 0 &&
                plan->logits_soft_cap <= 0 && is_aligned(call, 128) && choose_keys(call, 128) == 64;
    return fits ? attention_parts(call) : 1;
}

static const char *fit_prefill_sm80(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    const char *why = why_unserved(call);
    bool special = call->op->variant || plan->head_dim > 128 || plan->head_dim_vo > 128 || plan->mask || plan->pos ||
                   converts(call);
    /* In its tiles of 128 rows, beside a window, rows that do not exist may move the bound of the logits elsewhere. */
    special = special || (is_invariant(call) && attention_window_of(call) >= 0);
    int32_t tile_q = attention_tile_q(call), parts = 1, keys, smem;
    if (why)
        return why;
    if (special && tile_q == 128)
        tile_q = 64;
    if (!special && tile_q < 128 && (parts = choose_parts(call)) > 1)
        tile_q = 128;
    while ((smem = prefill_smem(call, tile_q, keys = choose_keys(call, tile_q))) > call->device->smem_block && tile_q > 16)
        tile_q = next_tile(tile_q);
    way->value[WAY_GRID] = count_tiles(call, t, tile_q) * plan->num_kv_heads;
    way->value[WAY_GRID_Y] = ceil_div(plan->head_dim_vo, ATTENTION_PREFILL_COLUMNS(plan->head_dim_vo));
    way->value[WAY_PARTS] = parts;
    way->value[WAY_THREADS] = tile_q * 2 / ATTENTION_PREFILL_BANDS(tile_q);
    way->value[WAY_SMEM] = smem;
    if (parts > 1) /* clusters would have three blocks on one multiprocessor, one on another */
        way->value[WAY_SMEM] = most(smem, call->device->smem_sm / 3);
    if (way->value[WAY_GRID] > INT32_MAX)
        return "there are more rows and heads than a grid has blocks for";
    int32_t *constant = add_spec(call, way, &prefill_sm80);
    constant[0] = is_aligned(call, tile_q);
    constant[1] = tile_q;
    constant[2] = keys;
    constant[3] = plan->logits_soft_cap > 0;
    constant[4] = parts;
    way->hooks = ATTENTION_HOOKS;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way, const struct jit_kernel *kernel, int64_t parts)
{
    const char *why = why_unserved(call);
    if (why)
        return why;
    if (parts > MAX_PARTS)
        return "there are more rows than parts can be numbered";
    way->value[WAY_GRID] = parts;
    way->hooks = ATTENTION_HOOKS;
    add_spec(call, way, kernel);
    return NULL;
}

static const char *fit_prefill_cpu(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    return fit_cpu(call, way, &prefill_cpu, count_tiles(call, t, ATTENTION_CPU_ROWS) * plan->num_kv_heads);
}

/* Where KV heads are few, parts divide the keys of a request, as far as there is room for the partial results of its rows. */
static int64_t count_key_parts(const struct attention_plan *plan, struct way *way, int64_t tasks, int64_t batch)
{
    const int64_t bytes = batch * plan->num_qo_heads * ATTENTION_DECODE_CPU_PARTIAL(plan->head_dim_vo);
    const int64_t room = (JIT_MAX_SCRATCH - ATTENTION_DECODE_CPU_COUNTERS) / bytes;
    const int64_t parts = least(ceil_div(MIN_PARTS, tasks), room);
    if (parts <= 1)
        return 1;
    way->value[WAY_SCRATCH] = ATTENTION_DECODE_CPU_COUNTERS + parts * bytes;
    return parts;
}

/* Few parts per request keep together what lies together in a page; a part has at most ATTENTION_CPU_ROWS rows. */
static const char *fit_decode_cpu(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    int64_t group = plan->group, batch = attention_batch(t);
    if (plan->q_len_per_req > 1)
        return "requests have more than one query token";
    int64_t parts_of_request = group > ATTENTION_CPU_ROWS
                                   ? plan->num_kv_heads * ceil_div(group, ATTENTION_CPU_ROWS)
                                   : ceil_div(plan->num_kv_heads, ATTENTION_CPU_ROWS / group);
    way->value[WAY_KEY_PARTS] = 1;
    way->value[WAY_SCRATCH] = 0;
    if (batch * plan->num_kv_heads < MIN_PARTS && group <= ATTENTION_CPU_ROWS && !is_invariant(call) && !call->op->variant)
        way->value[WAY_KEY_PARTS] = count_key_parts(plan, way, batch * parts_of_request, batch);
    if (way->value[WAY_KEY_PARTS] == 1 && parts_of_request * batch < MIN_PARTS && parts_of_request < plan->num_kv_heads)
        parts_of_request = ceil_div(MIN_PARTS, batch) < plan->num_kv_heads ? ceil_div(MIN_PARTS, batch) : plan->num_kv_heads;
    return fit_cpu(call, way, &decode_cpu, batch * parts_of_request * way->value[WAY_KEY_PARTS]);
}

_Static_assert(sizeof(struct attention_decode_cpu_args) <= JIT_MAX_SCRATCH_ARGS, "args of a launch with scratch");

static flashinfer_status run_decode_cpu(const struct call *call, const struct way *way)
{
    struct attention_decode_cpu_args a = {.a = attention_args(call), .key_parts = (int32_t)way->value[WAY_KEY_PARTS]};
    return call_launch(call, way, 0, &(struct jit_launch){
        .grid = {(uint32_t)way->value[WAY_GRID]},
        .args = &a,
        .args_size = call->op->variant ? sizeof a.a : sizeof a, /* behind which a variant's values come */
        .scratch = (uint32_t)way->value[WAY_SCRATCH],
        .scratch_at = offsetof(struct attention_decode_cpu_args, scratch),
    });
}

static int32_t out_of(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F16: return ATTENTION_OUT_F16;
    case DTYPE_BF16: return ATTENTION_OUT_BF16;
    case DTYPE_E4M3: return ATTENTION_OUT_E4M3;
    case DTYPE_E5M2: return ATTENTION_OUT_E5M2;
    default: return ATTENTION_OUT_F32;
    }
}

static struct attention_modes modes_of(const struct attention_view *t, const struct attention_plan *plan)
{
    const DLTensor *bytes = t->custom_mask, *mask = bytes ? bytes : t->packed_custom_mask;
    bool masks = plan->mask == ATTENTION_MASK_CUSTOM, items = plan->mask == ATTENTION_MASK_ITEMS;
    return (struct attention_modes){
        .v_indptr = tensor_data_or_null(t->v_indptr),
        .o_indptr = tensor_data_or_null(t->o_indptr),
        .mask = masks ? tensor_data(mask) : NULL,
        .mask_indptr = masks ? tensor_data_or_null(t->mask_indptr) : NULL,
        .prefix_len = items ? tensor_data(t->prefix_len) : NULL,
        .token_pos = items ? tensor_data(t->token_pos_in_items) : NULL,
        .mask_row = masks && bytes ? tensor_stride(bytes, 0) : 0,
        .token_pos_row = items ? tensor_stride(t->token_pos_in_items, 0) : 0,
        .token_pos_len = items ? (int32_t)least(tensor_shape(t->token_pos_in_items, 1), INT32_MAX) : 0,
        .lse_factor = t->lse_in_base_e ? (float)M_LN2 : 1.0f,
        .rope_ratio = plan->rope_ratio,
        .rope_unit = plan->rope_unit,
        .q_scale_step = is_of_heads(t->q_scale),
        .k_scale_step = is_of_heads(t->k_scale),
        .v_scale_step = is_of_heads(t->v_scale),
        .out = out_of((enum dtype)plan->o_dtype),
    };
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
        .qo_len = t->kv_indptr && !t->qo_indptr ? plan->q_len_per_req : (int32_t)attention_total_q(t),
        .kv_len = (int32_t)k.slots,
        .window_left = attention_window_of(call),
        .causal = plan->causal,
        .modes = modes_of(t, plan),
    };
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct attention_args a = attention_args(call);
    return call_launch(call, way, 0, &(struct jit_launch){
        .grid = {(uint32_t)way->value[WAY_GRID], (uint32_t)way->value[WAY_GRID_Y], (uint32_t)way->value[WAY_PARTS]},
        .cluster = {1, 1, (uint32_t)way->value[WAY_PARTS]},
        .block = {(uint32_t)way->value[WAY_THREADS]},
        .smem = (uint32_t)way->value[WAY_SMEM],
        .args = &a,
        .args_size = sizeof a,
    });
}

const struct op_kernel batch_prefill_kernels[] = {
    {"batch_prefill_sm90", OP_CUDA, 90, 90, attention_fit_sm90, attention_run_sm90},
    {"batch_decode_stream_sm90", OP_CUDA, 90, 0, attention_fit_stream_prefill_sm90, attention_run_stream_sm90},
    {"batch_decode_stream_sm80", OP_CUDA, 80, 0, attention_fit_stream_prefill, attention_run_stream},
    {"batch_prefill_sm80", OP_CUDA, 80, 0, fit_prefill_sm80, run},
    {"batch_prefill_cpu", OP_CPU, 0, 0, fit_prefill_cpu, run},
    {0},
};

const struct op_kernel batch_decode_kernels[] = {
    {"batch_decode_stream_sm90", OP_CUDA, 90, 0, attention_fit_stream_sm90, attention_run_stream_sm90},
    {"batch_decode_stream_sm80", OP_CUDA, 80, 0, attention_fit_stream, attention_run_stream},
    {"batch_prefill_sm80", OP_CUDA, 80, 0, fit_prefill_sm80, run},
    {"batch_decode_cpu", OP_CPU, 0, 0, fit_decode_cpu, run_decode_cpu},
    {"batch_prefill_cpu", OP_CPU, 0, 0, fit_prefill_cpu, run},
    {0},
};
