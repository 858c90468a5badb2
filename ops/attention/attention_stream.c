/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the rows batch_decode_stream_sm80 and batch_decode_stream_sm90, of the ops of decode, and of those of prefill for
 * few query tokens. */
#include <string.h>

#include "backend/bulk_copy.h"
#include "core/status.h"
#include "flashinfer/attention.h"
#include "ops/attention/attention_host.h"

enum { WAY_BLOCKS, WAY_WARPS, WAY_SMEM, WAY_PARTS };
enum {
    MAX_ROWS = 64,      /* packed rows of a pair */
    MAX_RESULTS = 512,  /* ROW_TILES * HEAD_DIM, as registers go */
    MAX_ROW_TILES = 4,
    MAX_ROW_TILES_8 = 2, /* of keys and values of 8 bits, which are widened in registers */
    BLOCK_SMEM = 4096,  /* beside stages and queries, with what the driver takes */
    WARP_SMEM = 1536,   /* for each warp of the block in addition */
    MAX_WARPS = 8,      /* of a multiprocessor; with more bytes under way it is slower, see docs/performance-attention.md */
    STAGES = 2,
    SLAB_BYTES = 128,   /* of a row, that bulk copies lay one below the other */
    LEAST_ROWS = 8,     /* packed rows that a warp has */
    MIN_BOX_TOKENS = 8,
    FEW_KEYS = 400,
    MANY_KEYS = 192, /* of a request, on average */
    MOST_KEYS = 768,
    FOLDED_BYTES = 70000000, /* of keys and values */
    SHORT_BYTES = 5000000
};

#define CONSTANTS "T:dtype", "KV:dtype", "HEAD_DIM", "ALIGNED", "ROW_TILES", "ROW_WARPS", "WARPS", "STAGES", "BLOCKS"

static const struct jit_kernel stream_sm80 = {"batch_decode_stream_sm80", JIT_CUDA, {CONSTANTS}};
static const struct jit_kernel stream_sm90 = {"batch_decode_stream_sm90", JIT_CUDA, {CONSTANTS, "BOX_TOKENS", "HEADS"}};

/* How a block is made up; no warps: the device has too little shared memory for it. */
struct block {
    int32_t row_tiles, row_warps, warps, blocks;
    int32_t smem;
};

static int32_t kv_row_bytes(const struct attention_plan *plan)
{
    return plan->head_dim * (int32_t)dtype_bytes((enum dtype)plan->kv_dtype);
}

static int32_t rows_of(const struct block *b) { return 8 * b->row_tiles * b->row_warps; }

static int32_t query_bytes(const struct attention_plan *plan, const struct block *b)
{
    return ATTENTION_STREAM_QUERIES_SHARED(b->row_tiles, plan->head_dim) ? 2 * rows_of(b) * plan->head_dim : 0;
}

/* As few warps for each row as registers allow, because each copies its tiles; as many warps as have room. Of two blocks one
 * reads while the other ends a task, which pays with rows of 256 bytes; with others one block of all warps is faster. */
static struct block choose_block(const struct attention_plan *plan, const struct device *device, int64_t rows)
{
    int32_t stage_bytes = ATTENTION_STREAM_STAGE_BYTES(kv_row_bytes(plan));
    int32_t blocks = kv_row_bytes(plan) == 256 ? 2 : 1;
    int32_t most = dtype_bytes((enum dtype)plan->kv_dtype) == 1 ? MAX_ROW_TILES_8 : MAX_ROW_TILES;
    struct block b = {1, 1, MAX_WARPS / blocks, blocks, 0};
    while (b.row_tiles < most && 8 * b.row_tiles < rows && 2 * b.row_tiles * plan->head_dim <= MAX_RESULTS)
        b.row_tiles *= 2;
    while (rows_of(&b) < rows && b.row_warps < b.warps)
        b.row_warps *= 2;
    int32_t rest = query_bytes(plan, &b) + ATTENTION_STREAM_ALIGNMENT;
    int32_t smem = (int32_t)least(device->smem_block, device->smem_sm / blocks) - BLOCK_SMEM;
    while (b.warps && b.warps * (STAGES * stage_bytes + WARP_SMEM) + rest > smem)
        b.warps = b.warps > b.row_warps ? b.warps / 2 : 0;
    b.smem = b.warps * STAGES * stage_bytes + rest;
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
    const int64_t too_many = (int64_t)INT32_MAX + 1, tile = ATTENTION_STREAM_TILE(kv_row_bytes(plan));
    const int64_t pages = t->kv_indices ? least(tensor_shape(t->kv_indices, 0), too_many) : 0;
    if (split == INT32_MAX)
        return 0;
    if (!split)
        return 2 * (int64_t)b->blocks * call->device->sms;
    const int64_t units = pages * plan->page_size / (ceil_div(split, tile) * tile) + attention_batch(t);
    return least(least(units, too_many) * plan->num_kv_heads, too_many) * ceil_div(plan->stream_rows, rows_of(b));
}

/* copied: keys and values by bulk copies, for which they are. */
static int32_t is_aligned(const struct attention_view *t, bool copied)
{
    return tensor_is_aligned(t->q, 8) && tensor_is_aligned(t->out, 8) &&
           (copied || (tensor_is_aligned(t->k_cache, 16) && tensor_is_aligned(t->v_cache, 16)));
}

/* A workspace for units of fixed_split_size grows with the number of pages, which no plan knows: it is for those who name a row
 * and ask flashinfer_workspace_size. For others nothing is divided, which keeps the promise, too. */
static int32_t split_of(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    if (!plan->stream_split)
        return call->exec.flags & FLASHINFER_BATCH_INVARIANT ? INT32_MAX : 0;
    return call->exec.kernel ? plan->stream_split : INT32_MAX;
}

static int32_t *fill_way(const struct call *call, const struct attention_plan *plan, struct way *way, const struct block *b,
                         int64_t parts, const struct jit_kernel *kernel)
{
    way->value[WAY_BLOCKS] = (int64_t)b->blocks * call->device->sms;
    way->value[WAY_WARPS] = b->warps;
    way->value[WAY_SMEM] = b->smem;
    way->value[WAY_PARTS] = parts;
    way->workspace = 2 * (size_t)parts * part_bytes(plan, b);
    const int32_t aligned = is_aligned(call_view(call), kernel == &stream_sm90);
    const int32_t constants[] = {plan->dtype,  plan->kv_dtype, plan->head_dim, aligned,
                                 b->row_tiles, b->row_warps,   b->warps,       STAGES,
                                 b->blocks};
    int32_t *constant = way_spec(way, kernel);
    memcpy(constant, constants, sizeof constants);
    return constant + sizeof constants / sizeof *constants;
}

/* KV heads side by side whose rows of keys together are as long as reads of memory like them, and whose packed rows a warp has
 * anyway, are read as one: of half as many logits for as many bytes. */
static bool can_fold(const struct attention_plan *plan)
{
    return kv_row_bytes(plan) == SLAB_BYTES && plan->kv_dtype == plan->dtype && plan->num_kv_heads % 2 == 0 &&
           plan->stream_rows <= LEAST_ROWS / 2;
}

static struct attention_plan fold(const struct attention_plan *plan)
{
    struct attention_plan folded = *plan;
    folded.head_dim *= 2;
    folded.head_dim_vo *= 2;
    folded.num_kv_heads /= 2;
    folded.group *= 2;
    folded.by_group = attention_divisor((uint32_t)folded.group);
    folded.stream_rows *= 2;
    return folded;
}

static bool holds_less(const struct call *call, int64_t bytes)
{
    const struct attention_plan *plan = attention_plan_of(call);
    return attention_most_tokens(call) * plan->num_kv_heads < bytes / (2 * kv_row_bytes(plan));
}

/* While multiprocessors are idle, twice as many pairs are worth more than long reads: as far as was measured. */
static bool has_few_pairs(const struct call *call)
{
    const int64_t batch = least(attention_batch(call_view(call)), INT32_MAX), sms = call->device->sms;
    const int64_t pairs = batch * attention_plan_of(call)->num_kv_heads, tokens = attention_most_tokens(call);
    return pairs <= sms && holds_less(call, FOLDED_BYTES) &&
           (2 * pairs > sms ? tokens >= MANY_KEYS * batch : tokens <= MOST_KEYS * batch);
}

/* A scale of each KV head's values is found by what is not folded. Where bits must not depend on the batch, nor may this. */
static bool folds(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    return can_fold(attention_plan_of(call)) && t->v_scale->kind != FLASHINFER_NUMBER_TENSOR &&
           (split_of(call) || !has_few_pairs(call));
}

/* Of few bytes they are worth more than boxes, too. */
static bool is_short_fold(const struct call *call) { return folds(call) && holds_less(call, SHORT_BYTES); }

/* Of more than 16 rows a stream's results take so long to be added up that batch_prefill_sm80 has gone through few keys before,
 * even if one request has them all, or through a tile of each. */
static bool has_few_keys(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    const int32_t window = attention_window_of(call);
    int64_t keys = attention_most_tokens(call);
    if (window >= 0)
        keys = least(keys, (int64_t)window + ceil_div(plan->stream_rows, plan->group));
    bool few = keys <= FEW_KEYS && least(attention_batch(call_view(call)), INT32_MAX) * plan->num_kv_heads <= call->device->sms;
    return (few || attention_is_small(call)) && plan->stream_rows > 2 * LEAST_ROWS && plan->head_dim <= 128 &&
           !attention_converts(call);
}

/* What is better for a call depends on the batch: neither if a row is named, nor if bits must not depend on it. */
static bool may_prefer(const struct call *call) { return !call->exec.kernel && !split_of(call); }

static size_t workspace_of(const struct attention_plan *plan, const struct device *device)
{
    const struct block b = choose_block(plan, device, plan->stream_rows);
    size_t workers = (size_t)b.blocks * (size_t)device->sms;
    return plan->whole || plan->stream_rows > MAX_ROWS || !b.warps ? 0 : 4 * workers * part_bytes(plan, &b);
}

size_t attention_stream_workspace(const struct attention_plan *plan, const struct device *device)
{
    size_t bytes = workspace_of(plan, device);
    if (!can_fold(plan))
        return bytes;
    const struct attention_plan folded = fold(plan);
    size_t others = workspace_of(&folded, device);
    return bytes > others ? bytes : others;
}

/* If shares are worked out from all units: each counts up to 24 besides its own, and together they must stay below 2^31. */
static bool has_too_many_pairs(const struct call *call, const struct attention_plan *plan, const struct block *b)
{
    enum { MOST_PAIRS = 9 << 23 };
    const struct attention_view *t = call_view(call);
    const int64_t rows = least(attention_total_q(t), INT32_MAX) * plan->group;
    return !split_of(call) && attention_batch(t) + rows / rows_of(b) > MOST_PAIRS / plan->num_kv_heads;
}

static const char *fit(const struct call *call, const struct attention_plan *plan, struct way *way,
                       const struct jit_kernel *kernel, int32_t box_tokens)
{
    const struct block b = choose_block(plan, call->device, plan->stream_rows);
    if (plan->head_dim_vo != plan->head_dim)
        return "head_dim_vo is not head_dim_qk";
    if (call->op->variant)
        return "it takes in no hooks";
    if (plan->stream_rows > MAX_ROWS)
        return "there are more query tokens and heads of a KV head than it has rows for";
    if (!b.warps)
        return "the device has too little shared memory for its tiles";
    if (has_too_many_pairs(call, plan, &b))
        return "there are more pairs of a request and a KV head than it counts";
    if (may_prefer(call) && has_few_keys(call))
        return "there are so few keys that batch_prefill_sm80 is faster";
    int64_t parts = count_parts(call, plan, &b, split_of(call));
    if (parts > INT32_MAX)
        return "fixed_split_size gives more parts than are counted";
    int32_t *constant = fill_way(call, plan, way, &b, parts, kernel);
    if (box_tokens) {
        constant[0] = box_tokens;
        constant[1] = attention_plan_of(call)->num_kv_heads / plan->num_kv_heads;
    }
    return NULL;
}

const char *attention_fit_stream(const struct call *call, struct way *way)
{
    const char *why = attention_needs_generic(call, true);
    return why ? why : fit(call, attention_plan_of(call), way, &stream_sm80, 0);
}

/* Keys and values as copies of batch_decode_stream_sm90 see them. */
struct caches {
    struct tensor_map_view k, v;
};

/* A cache without tokens may have no address. Nothing of it is read. */
static const void *address_of(const struct attention_view *t, const DLTensor *cache)
{
    return tensor_data(tensor_elements(cache) ? cache : t->q);
}

/* In chunks of 128 bytes of a row, as bulk copies swizzle them; values mostly lie as keys do. NULL, or why that cannot be. */
static const char *see_caches(const struct attention_view *t, const struct attention_plan *plan, int32_t heads,
                              int64_t box_tokens, struct caches *caches)
{
    const struct attention_cache k = attention_see_cache(plan, t->k_cache), v = attention_see_cache(plan, t->v_cache);
    const enum dtype dtype = (enum dtype)plan->kv_dtype;
    const int32_t slab = SLAB_BYTES / dtype_bytes(dtype), slabs = plan->head_dim / slab;
    const int64_t next = heads == 1 ? slab : 0; /* of folded heads slabs are as far apart as these */
    struct tensor_map_axis axis[] = {{slab, 1, (uint32_t)slab},
                                     {k.slots, k.slot, (uint32_t)box_tokens},
                                     {slabs, next ? next : k.head, (uint32_t)slabs},
                                     {plan->num_kv_heads, wrapping_product(heads, k.head), 1},
                                     {k.pages, k.page, 1}};
    enum { AXES = sizeof axis / sizeof *axis };
    const char *why = tensor_map_fit(&caches->k, address_of(t, t->k_cache), dtype, AXES, axis);
    if (why)
        return why;
    if (!memcmp(&k, &v, sizeof k))
        return tensor_map_move(&caches->v, &caches->k, address_of(t, t->v_cache));
    axis[1] = (struct tensor_map_axis){v.slots, v.slot, (uint32_t)box_tokens};
    axis[2].stride = next ? next : v.head;
    axis[3].stride = wrapping_product(heads, v.head);
    axis[4] = (struct tensor_map_axis){v.pages, v.page, 1};
    return tensor_map_fit(&caches->v, address_of(t, t->v_cache), dtype, AXES, axis);
}

/* The longest run of slots of which pages and tiles both consist. */
static int32_t choose_box(const struct attention_view *t, const struct attention_plan *plan)
{
    int32_t box = ATTENTION_STREAM_TILE(kv_row_bytes(plan));
    while (t->kv_last_page_len && plan->page_size % box)
        box /= 2;
    return box;
}

const char *attention_fit_stream_sm90(const struct call *call, struct way *way)
{
    const char *why = attention_needs_generic(call, true);
    if (why)
        return why;
    const struct attention_view *t = call_view(call);
    const struct attention_plan own = *attention_plan_of(call), plan = folds(call) ? fold(&own) : own;
    struct caches *caches = WAY_ARGS(way, struct caches);
    int32_t box = choose_box(t, &plan);
    if (box < MIN_BOX_TOKENS)
        return "page_size must be a multiple of 8";
    if (kv_row_bytes(&plan) % SLAB_BYTES)
        return "a row of keys is no multiple of 128 bytes";
    if (may_prefer(call) && is_short_fold(call))
        return "keys and values are so few that batch_decode_stream_sm80 is faster, which reads each KV head by itself";
    why = see_caches(t, &plan, own.num_kv_heads / plan.num_kv_heads, box, caches);
    return why ? why : fit(call, &plan, way, &stream_sm90, box);
}

static const char *why_not_prefill(const struct call *call)
{
    if (split_of(call))
        return "how it divides keys and values depends on the batch";
    if (!call->exec.kernel && !attention_plan_of(call)->stream_rows_known)
        return "the plan does not know how many query tokens requests have";
    return NULL;
}

const char *attention_fit_stream_prefill(const struct call *call, struct way *way)
{
    const char *why = why_not_prefill(call);
    return why ? why : attention_fit_stream(call, way);
}

const char *attention_fit_stream_prefill_sm90(const struct call *call, struct way *way)
{
    const char *why = why_not_prefill(call);
    return why ? why : attention_fit_stream_sm90(call, way);
}

static struct attention_args stream_args(const struct call *call, const struct attention_plan *plan, const struct way *way)
{
    struct attention_args a = attention_args(call);
    a.stream.unit_tiles = (int32_t)ceil_div(split_of(call), ATTENTION_STREAM_TILE(kv_row_bytes(plan)));
    a.stream.by_unit = attention_divisor(a.stream.unit_tiles ? (uint32_t)a.stream.unit_tiles : 1);
    a.stream.num_parts = (int32_t)way->value[WAY_PARTS];
    return a;
}

static flashinfer_status launch(const struct call *call, const struct way *way, const void *args, size_t args_size)
{
    return call_launch(call, way, 0, &(struct jit_launch){
        .grid = {(uint32_t)way->value[WAY_BLOCKS]},
        .block = {32 * (uint32_t)way->value[WAY_WARPS]},
        .smem = (uint32_t)way->value[WAY_SMEM],
        .args = args,
        .args_size = args_size,
    });
}

flashinfer_status attention_run_stream(const struct call *call, const struct way *way)
{
    struct attention_args a = stream_args(call, attention_plan_of(call), way);
    return launch(call, way, &a, sizeof a);
}

flashinfer_status attention_run_stream_sm90(const struct call *call, const struct way *way)
{
    const struct caches *caches = WAY_ARGS(way, const struct caches);
    const struct attention_plan own = *attention_plan_of(call), plan = folds(call) ? fold(&own) : own;
    struct attention_stream_sm90_args p = {.a = stream_args(call, &plan, way)};
    p.a.num_kv_heads = plan.num_kv_heads;
    p.a.group = plan.group;
    p.a.by_group = plan.by_group;
    TRY(tensor_map_encode(&p.k, &caches->k));
    TRY(tensor_map_encode(&p.v, &caches->v));
    return launch(call, way, &p, sizeof p);
}
