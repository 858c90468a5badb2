/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the row batch_prefill_sm90: a small kernel writes the schedule to the workspace, the large one follows it. */
#include "backend/bulk_copy.h"
#include "core/status.h"
#include "flashinfer/attention.h"
#include "ops/attention/attention_host.h"

enum { SPEC_PREFILL, SPEC_SCHEDULE };
enum { WAY_BLOCKS, WAY_WARPGROUPS, WAY_BOX_TOKENS };
enum { MAX_GROUP = 64, MIN_TILE_Q = 64, SLAB_ELEMENTS = 64, MIN_BOX_TOKENS = 8, SCHEDULE_THREADS = 1024, ALIGNMENT = 256 };

static const struct jit_kernel prefill = {
    "batch_prefill_sm90", JIT_CUDA, {"T:dtype", "HEAD_DIM", "HEAD_DIM_VO", "CAUSAL", "WINDOW", "SOFT_CAP", "GATHER", "PAGED"}};
static const struct jit_kernel schedule = {"batch_prefill_schedule_sm90", JIT_CUDA, {NULL}};

static size_t align(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

size_t attention_schedule_bytes(int64_t batch)
{
    return ALIGNMENT + align(((size_t)batch + 1) * sizeof(int32_t)) + (size_t)batch * sizeof(struct attention_scheduled);
}

static struct attention_schedule place_schedule(void *workspace, int64_t batch)
{
    char *at = workspace, *requests = at + ALIGNMENT + align(((size_t)batch + 1) * sizeof(int32_t));
    return (struct attention_schedule){
        .next = (int32_t *)at, .first = (int32_t *)(at + ALIGNMENT), .request = (struct attention_scheduled *)requests};
}

/* Queries, keys and values as copies see them; k and v only if there is a box for them. */
struct copied {
    struct tensor_map_view q, k, v;
};

/* Queries as [total_q, num_kv_heads, group, head_dim], so that a box is some tokens of all query heads of a KV head. NULL, or why
 * copies cannot see it so. */
static const char *see_queries(const struct attention_plan *plan, const DLTensor *q, struct tensor_map_view *view)
{
    const int64_t group = plan->group, head = tensor_stride(q, 1);
    const struct tensor_map_axis axis[] = {{plan->head_dim, 1, SLAB_ELEMENTS},
                                           {group, head, (uint32_t)group},
                                           {plan->num_kv_heads, wrapping_product(head, group), 1},
                                           {tensor_shape(q, 0), tensor_stride(q, 0), (uint32_t)(64 / group)}};
    return tensor_map_fit(view, tensor_data(q), (enum dtype)plan->dtype, sizeof axis / sizeof *axis, axis);
}

/* A box may have all of head_dim: that is several slabs, and heads lie whole slabs apart, so that it can begin at any of them.
 * Copies count slabs in 31 bits. */
static bool has_whole_boxes(const struct attention_plan *plan, const DLTensor *cache)
{
    const int64_t head = attention_see_cache(plan, cache).head, bound = ((int64_t)SLAB_ELEMENTS << 31) / plan->num_kv_heads;
    return plan->head_dim > SLAB_ELEMENTS &&
           (plan->num_kv_heads == 1 || (head >= 0 && head % SLAB_ELEMENTS == 0 && head < bound));
}

static const char *see_cache(const struct attention_view *t, const struct attention_plan *plan, const DLTensor *cache,
                             int32_t head_dim, int64_t box_tokens, bool paged, struct tensor_map_view *view)
{
    const struct attention_cache c = attention_see_cache(plan, cache);
    const int64_t slabs = head_dim / SLAB_ELEMENTS;
    const struct tensor_map_axis axis[] = {{head_dim, 1, SLAB_ELEMENTS},
                                           {c.slots, c.slot, (uint32_t)box_tokens},
                                           {plan->num_kv_heads, c.head, 1},
                                           {c.pages, c.page, 1}};
    const struct tensor_map_axis paged_axis[] = {
        {SLAB_ELEMENTS, 1, SLAB_ELEMENTS},
        {8, c.slot, 8},
        {wrapping_product(plan->num_kv_heads - 1, c.head / SLAB_ELEMENTS) + slabs, SLAB_ELEMENTS, (uint32_t)slabs},
        {c.slots / 8, wrapping_product(8, c.slot), (uint32_t)box_tokens / 8},
        {c.pages, c.page, 1}};
    /* A cache without tokens may have no address. Nothing of it is read. */
    const void *data = tensor_data(tensor_elements(cache) ? cache : t->q);
    return paged ? tensor_map_fit(view, data, (enum dtype)plan->dtype, sizeof paged_axis / sizeof *paged_axis, paged_axis)
                 : tensor_map_fit(view, data, (enum dtype)plan->dtype, sizeof axis / sizeof *axis, axis);
}

/* The longest run of slots, whole groups of 8 rows, of which pages and tiles of keys both consist. 0: none. */
static int64_t choose_box(int64_t page_size, int64_t keys)
{
    int64_t box = keys;
    while (box >= MIN_BOX_TOKENS && (page_size % box || keys % box))
        box -= MIN_BOX_TOKENS;
    return box < MIN_BOX_TOKENS ? 0 : box;
}

const char *attention_fit_sm90(const struct call *call, struct way *way)
{
    const struct attention_plan *plan = attention_plan_of(call);
    const struct attention_view *t = call_view(call);
    int64_t group = plan->group, keys = ATTENTION_PREFILL_KEYS(plan->head_dim, 0, call->op->variant != NULL);
    int64_t box = choose_box(t->kv_last_page_len ? plan->page_size : keys, keys);
    struct copied *copied = WAY_ARGS(way, struct copied);
    const char *why = attention_needs_generic(call, false);
    if (why)
        return why;
    if (plan->head_dim != 64 && plan->head_dim != 128 && plan->head_dim != 256 &&
        (plan->head_dim != 192 || plan->head_dim_vo != 128))
        return "head_dim must be 64, 128 or 256, or 192 with head_dim_vo 128";
    /* Bits must not depend on the batch, so nor may the kernel. */
    bool invariant = plan->whole || call->exec.flags & FLASHINFER_BATCH_INVARIANT;
    if (!call->exec.kernel && !invariant && attention_tile_q(call) < MIN_TILE_Q)
        return "requests have too few query tokens to fill its tiles";
    if (!call->exec.kernel && !invariant && attention_is_small(call))
        return "requests are so short that batch_prefill_sm80 is faster";
    if (group > MAX_GROUP)
        return "more than 64 query heads have the same KV head";
    if (!tensor_is_aligned(t->out, 16) || !tensor_is_aligned(t->k_cache, 16) || !tensor_is_aligned(t->v_cache, 16))
        return "out, k_cache or v_cache is not aligned to 16 bytes";
    why = see_queries(plan, t->q, &copied->q);
    if (why)
        return why;
    bool paged = box && box < keys && has_whole_boxes(plan, t->k_cache) && has_whole_boxes(plan, t->v_cache);
    bool boxes = box && !see_cache(t, plan, t->k_cache, plan->head_dim, box, paged, &copied->k) &&
                 !see_cache(t, plan, t->v_cache, plan->head_dim_vo, box, paged, &copied->v);
    int32_t *constant = way_spec(way, &prefill);
    way_spec(way, &schedule);
    constant[0] = plan->dtype;
    constant[1] = plan->head_dim;
    constant[2] = plan->head_dim_vo;
    constant[3] = plan->causal;
    constant[4] = attention_window_of(call) >= 0;
    constant[5] = plan->logits_soft_cap > 0;
    constant[6] = !boxes;
    constant[7] = boxes && paged;
    way->value[WAY_BLOCKS] = call->device->sms;
    way->value[WAY_WARPGROUPS] = ATTENTION_PREFILL_WARPGROUPS(plan->head_dim, constant[4] || constant[5] || call->op->variant);
    way->hooks = ATTENTION_HOOKS_SM90;
    way->value[WAY_BOX_TOKENS] = boxes ? box : 0;
    way->workspace = attention_schedule_bytes(plan->max_batch_size);
    return NULL;
}

static flashinfer_status encode_maps(const struct way *way, struct attention_sm90_args *p)
{
    const struct copied *copied = WAY_ARGS(way, const struct copied);
    TRY(tensor_map_encode(&p->q, &copied->q));
    if (!p->box_tokens)
        return FLASHINFER_OK;
    TRY(tensor_map_encode(&p->k, &copied->k));
    return tensor_map_encode(&p->v, &copied->v);
}

/* Every tile has a block of its own, whatever the lengths are, so that there is nothing to order. */
static bool needs_no_schedule(const struct attention_sm90_args *p, int64_t total_q, int32_t tile_tokens, uint32_t blocks)
{
    int64_t tiles = (total_q + (int64_t)p->a.batch * (tile_tokens - 1)) / tile_tokens;
    return p->a.batch <= 32 && tiles * p->a.num_kv_heads <= blocks;
}

flashinfer_status attention_run_sm90(const struct call *call, const struct way *way)
{
    const struct attention_plan *plan = attention_plan_of(call);
    struct attention_sm90_args p = {.a = attention_args(call)};
    int32_t warpgroups = (int32_t)way->value[WAY_WARPGROUPS];
    uint32_t blocks = (uint32_t)way->value[WAY_BLOCKS];
    p.q_tokens = 64 / p.a.group;
    p.box_tokens = (int32_t)way->value[WAY_BOX_TOKENS];
    p.k_head_slabs = (int32_t)(p.a.k_head / SLAB_ELEMENTS);
    p.v_head_slabs = (int32_t)(p.a.v_head / SLAB_ELEMENTS);
    TRY(encode_maps(way, &p));
    int32_t tile_tokens = warpgroups * p.q_tokens;
    bool scheduled = !needs_no_schedule(&p, attention_total_q(call_view(call)), tile_tokens, blocks);
    if (scheduled) {
        p.schedule = place_schedule(call->exec.workspace, p.a.batch);
        struct attention_schedule_args s = {
            .a = p.a, .schedule = p.schedule, .tile_tokens = tile_tokens, .blocks = (int32_t)blocks};
        uint32_t threads = (uint32_t)least(ceil_div(p.a.batch, 32) * 32, SCHEDULE_THREADS);
        TRY(call_launch(call, way, SPEC_SCHEDULE,
                        &(struct jit_launch){.grid = {1}, .block = {threads}, .args = &s, .args_size = sizeof s}));
    }
    return call_launch(call, way, SPEC_PREFILL,
                       &(struct jit_launch){.grid = {blocks},
                                           .block = {128 * ((uint32_t)warpgroups + 1)},
                                           .smem = (uint32_t)ATTENTION_PREFILL_SM90_SMEM(
                                               plan->head_dim, plan->head_dim_vo, warpgroups, !p.box_tokens,
                                               call->op->variant != NULL),
                                           .follows = scheduled,
                                           .args = &p,
                                           .args_size = sizeof p});
}
