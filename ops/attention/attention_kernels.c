/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of attention: which of its kernels serve a call, and the launch of batch_prefill_sm80 and of those for CPUs. The
 * others' are in attention_sm90.c and attention_stream.c. */
#include "ops/attention/attention_host.h"

#include <string.h>

#include "flashinfer/attention.h"
#include "op/variant.h"
#include "ops/attention/attention_decode_cpu_args.h"

enum { MAX_PARTS = INT32_MAX, MIN_PARTS = 16 /* of a CPU's decode, if there are keys or heads enough */ };
enum { WAY_GRID, WAY_GRID_Y, WAY_PARTS, WAY_THREADS, WAY_SMEM };
enum { WAY_KEY_PARTS = WAY_GRID_Y, WAY_SCRATCH }; /* of a CPU's decode */

/* Of the generic kernels, after T. */
#define GENERIC "HEAD_DIM", "HEAD_DIM_VO", "Q:dtype", "KV:dtype", "O:dtype", "CONVERTS", "MASK", "POS"

static const struct jit_kernel prefill_sm80 = {"batch_prefill_sm80", JIT_CUDA,
                                               {"T:dtype", GENERIC, "ALIGNED", "TILE_Q", "KEYS", "SOFT_CAP", "PARTS"}};
static const struct jit_kernel prefill_cpu = {"batch_prefill_cpu", JIT_CPU, {"T:dtype", GENERIC}};
static const struct jit_kernel decode_cpu = {"batch_decode_cpu", JIT_CPU, {"T:dtype", GENERIC}};

/* Tiles of `rows` packed rows that hold every request's rows, whatever their lengths. */
static int64_t count_tiles(const struct call *call, const struct attention_view *t, int64_t rows)
{
    return ceil_div(attention_total_q(t) * attention_plan_of(call)->group, rows) + attention_batch(t);
}

static int32_t *add_spec(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct attention_plan *plan = attention_plan_of(call);
    /* A CPU stores any dtype that is not T alike; a GPU's registers would not have it. */
    int32_t o = plan->o_dtype == plan->dtype || kernel->target == JIT_CUDA ? plan->o_dtype : DTYPE_F32;
    const int32_t constants[] = {plan->dtype, plan->head_dim, plan->head_dim_vo, plan->q_dtype, plan->kv_dtype,
                                 o,           attention_converts(call), plan->mask,        plan->pos};
    int32_t *constant = way_spec(way, kernel);
    memcpy(constant, constants, sizeof constants);
    return constant + sizeof constants / sizeof *constants;
}

/* 16-byte copies of keys and values, and accesses to 8 bytes of queries, or to all of a chunk that is converted. */
static int32_t is_aligned(const struct call *call, int32_t tile_q)
{
    const struct attention_view *t = call_view(call);
    bool shared = ATTENTION_QUERIES_SHARED(attention_plan_of(call)->head_dim, tile_q, attention_converts(call));
    return tensor_is_aligned(t->q, shared ? 16 : 8) && tensor_is_aligned(t->out, 8) && tensor_is_aligned(t->k_cache, 16) &&
           tensor_is_aligned(t->v_cache, 16);
}

static int32_t next_tile(int32_t tile_q) { return tile_q == 128 ? 64 : 16; }

static int32_t prefill_smem(const struct call *call, int32_t tile_q, int32_t keys)
{
    const struct attention_plan *plan = attention_plan_of(call);
    return ATTENTION_PREFILL_SMEM(plan->head_dim, plan->head_dim_vo, tile_q, keys, attention_converts(call),
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
    const char *why = attention_unserved(call);
    bool special = call->op->variant || plan->head_dim > 128 || plan->head_dim_vo > 128 || plan->mask || plan->pos ||
                   attention_converts(call);
    /* In its tiles of 128 rows, beside a window, rows that do not exist may move the bound of the logits elsewhere. */
    special = special || (is_invariant(call) && attention_window_of(call) >= 0);
    if (why)
        return why;
    int32_t tile_q = attention_tile_q(call), parts = 1, keys, smem;
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
    const char *why = attention_unserved(call);
    if (why)
        return why;
    return fit_cpu(call, way, &prefill_cpu, count_tiles(call, t, ATTENTION_CPU_ROWS) * plan->num_kv_heads);
}

/* Where tasks are few, parts divide the keys of each, as far as there is room for the partial results of their rows. */
static int64_t count_key_parts(const struct attention_plan *plan, struct way *way, int64_t tasks, int64_t batch)
{
    const int64_t bytes = batch * plan->num_qo_heads * ATTENTION_DECODE_CPU_PARTIAL(plan->head_dim_vo);
    int64_t parts = ceil_div(MIN_PARTS, tasks);
    while (parts > 1 && ATTENTION_DECODE_CPU_COUNTERS + parts * bytes > JIT_MAX_SCRATCH)
        parts /= 2;
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
    int64_t group = plan->group, batch = most(1, attention_batch(t)); /* what is empty can be prepared */
    const char *why = attention_unserved(call);
    if (why)
        return why;
    if (plan->q_len_per_req > 1)
        return "requests have more than one query token";
    int64_t parts_of_request = group > ATTENTION_CPU_ROWS
                                   ? plan->num_kv_heads * ceil_div(group, ATTENTION_CPU_ROWS)
                                   : ceil_div(plan->num_kv_heads, ATTENTION_CPU_ROWS / group);
    way->value[WAY_KEY_PARTS] = 1;
    way->value[WAY_SCRATCH] = 0;
    if (group <= ATTENTION_CPU_ROWS && !is_invariant(call) && !call->op->variant)
        way->value[WAY_KEY_PARTS] = count_key_parts(plan, way, batch * parts_of_request, batch);
    int64_t wanted = ceil_div(MIN_PARTS, batch * way->value[WAY_KEY_PARTS]);
    if (parts_of_request < wanted && parts_of_request < plan->num_kv_heads)
        parts_of_request = least(wanted, plan->num_kv_heads);
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
