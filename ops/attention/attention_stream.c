/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the row batch_decode_stream_sm80, of the ops of decode, and of those of prefill for few query tokens. It stands
 * behind the rows that serve the same calls, and is taken only where exec.kernel names it: see docs/performance.md. */
#include <string.h>

#include "flashinfer/attention.h"
#include "ops/attention/attention_kernels.h"

enum { WAY_BLOCKS, WAY_WARPS, WAY_SMEM, WAY_PARTS };
enum {
    MAX_ROWS = 64,      /* packed rows of a pair */
    MAX_RESULTS = 512,  /* ROW_TILES * HEAD_DIM, as registers go */
    STATIC_SMEM = 6144, /* of a block, and what the driver takes */
    MAX_WARPS = 4,
    MIN_STAGES = 3,
    MAX_STAGES = 6
};

static const struct jit_kernel stream = {
    "batch_decode_stream_sm80",
    JIT_CUDA,
    {"T:dtype", "KV:dtype", "HEAD_DIM", "ALIGNED", "ROW_TILES", "ROW_WARPS", "WARPS", "STAGES"},
};

/* How a block is made up. */
struct block {
    int32_t row_tiles, row_warps, warps, stages;
};

static int32_t kv_row_bytes(const struct attention_plan *plan)
{
    return plan->head_dim * (int32_t)dtype_bytes((enum dtype)plan->kv_dtype);
}

static int32_t stage_bytes(const struct attention_plan *plan) { return ATTENTION_STREAM_STAGE_BYTES(kv_row_bytes(plan)); }

static int64_t count_workers(const struct device *device) { return (int64_t)ATTENTION_STREAM_BLOCKS * device->sms; }

static int32_t rows_of(const struct block *b) { return 8 * b->row_tiles * b->row_warps; }

static int32_t query_bytes(const struct attention_plan *plan, const struct block *b)
{
    return ATTENTION_STREAM_QUERIES_SHARED(b->row_tiles, plan->head_dim) ? 2 * rows_of(b) * plan->head_dim : 0;
}

/* As few warps for each row as registers allow, because each copies its tiles; as many warps as leave each some stages. */
static struct block choose_block(const struct attention_plan *plan, const struct device *device, int64_t rows)
{
    struct block b = {1, 1, MAX_WARPS, 0};
    while (b.row_tiles < 4 && 8 * b.row_tiles < rows && 2 * b.row_tiles * plan->head_dim <= MAX_RESULTS)
        b.row_tiles *= 2;
    while (rows_of(&b) < rows && b.row_warps < MAX_WARPS)
        b.row_warps *= 2;
    int32_t smem = (int32_t)least(device->smem_block, device->smem_sm / ATTENTION_STREAM_BLOCKS);
    int32_t all = (smem - STATIC_SMEM - query_bytes(plan, &b)) / stage_bytes(plan);
    while (b.warps > b.row_warps && all / b.warps < MIN_STAGES)
        b.warps /= 2;
    b.stages = all / b.warps < MAX_STAGES ? all / b.warps : MAX_STAGES;
    return b;
}

static size_t part_bytes(const struct attention_plan *plan, const struct block *b)
{
    return ATTENTION_STREAM_PART_BYTES((size_t)rows_of(b), (size_t)plan->head_dim);
}

/* With a fixed split, each unit has a part; else each worker two. */
static int64_t count_parts(const struct call *call, const struct attention_plan *plan, const struct block *b, int32_t split)
{
    const struct attention_view *t = call_view(call);
    int64_t pages = t->kv_indices ? tensor_shape(t->kv_indices, 0) : 0, tile = ATTENTION_STREAM_TILE(kv_row_bytes(plan));
    if (split == INT32_MAX)
        return 0;
    if (!split)
        return 2 * count_workers(call->device);
    return (pages * plan->page_size / (ceil_div(split, tile) * tile) + attention_batch(t)) * plan->num_kv_heads *
           ceil_div(plan->group, rows_of(b));
}

static int32_t is_aligned(const struct attention_view *t)
{
    return tensor_is_aligned(t->q, 8) && tensor_is_aligned(t->out, 8) && tensor_is_aligned(t->k_cache, 16) &&
           tensor_is_aligned(t->v_cache, 16);
}

static int32_t split_of(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    return plan->stream_split ? plan->stream_split : call->exec.flags & FLASHINFER_BATCH_INVARIANT ? INT32_MAX : 0;
}

const char *attention_fit_stream(const struct call *call, struct way *way)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    const struct block b = choose_block(plan, call->device, plan->stream_rows);
    const char *why = attention_needs_generic(call, true);
    if (why)
        return why;
    if (!call->exec.kernel)
        return "it is served where exec.kernel names it, with a workspace that flashinfer_workspace_size tells";
    if (plan->head_dim_vo != plan->head_dim)
        return "head_dim_vo is not head_dim_qk";
    if (call->op->variant)
        return "it takes in no hooks";
    if (plan->stream_rows > MAX_ROWS)
        return "there are more query tokens and heads of a KV head than it has rows for";
    if (b.stages < 2)
        return "the device has too little shared memory for its tiles";
    int64_t parts = count_parts(call, plan, &b, split_of(call));
    if (parts > INT32_MAX)
        return "fixed_split_size gives more parts than are counted";
    way->value[WAY_BLOCKS] = count_workers(call->device);
    way->value[WAY_WARPS] = b.warps;
    way->value[WAY_SMEM] = b.warps * b.stages * stage_bytes(plan) + query_bytes(plan, &b);
    way->value[WAY_PARTS] = parts;
    way->workspace = 2 * (size_t)parts * part_bytes(plan, &b);
    const int32_t constants[] = {plan->dtype, plan->kv_dtype, plan->head_dim, is_aligned(t),
                                 b.row_tiles, b.row_warps,    b.warps,        b.stages};
    memcpy(way_spec(way, &stream), constants, sizeof constants);
    return NULL;
}

const char *attention_fit_stream_prefill(const struct call *call, struct way *way)
{
    if (split_of(call))
        return "how it divides keys and values depends on the batch";
    return attention_fit_stream(call, way);
}

flashinfer_status attention_run_stream(const struct call *call, const struct way *way)
{
    struct attention_args a = attention_args(call);
    a.stream.split = split_of(call);
    a.stream.num_parts = (int32_t)way->value[WAY_PARTS];
    return call_launch(call, way, 0, &(struct jit_launch){
        .grid = {(uint32_t)way->value[WAY_BLOCKS]},
        .block = {32 * (uint32_t)way->value[WAY_WARPS]},
        .smem = (uint32_t)way->value[WAY_SMEM],
        .args = &a,
        .args_size = sizeof a,
    });
}
