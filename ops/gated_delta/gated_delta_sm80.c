/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of chunk_gated_delta_rule on sm_80 and later: a kernel makes tiles of all chunks, another one walks them with the
 * states. */
#include "core/status.h"
#include "ops/gated_delta/gated_delta_kernels.h"

enum { SPEC_TILES, SPEC_CHUNKS };
enum { WAY_MAX_CHUNKS, WAY_HEADS, WAY_WARPS };
enum { MAX_HEADS = 4, COPY_BYTES = 16, WARP_VALUES = 16, MAX_GRID_Y = 65535 };
enum { FEW_TOKENS = 5 }; /* of a sequence: token by token takes less */

static const struct jit_kernel tiles = {"gated_delta_tiles_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM"}};
static const struct jit_kernel chunks = {
    "chunk_gated_delta_rule_sm80", JIT_CUDA, {"T:dtype", "HEAD_DIM", "INITIAL:dtype", "FINAL:dtype", "WARPS", "KEPT"}};

int64_t gated_delta_tile_sharers(const struct gated_delta_args *a)
{
    return a->alpha || a->beta ? 1 : least(a->q_group, a->k_group);
}

int64_t gated_delta_tile_heads(const struct call *call, const struct gated_delta_args *a, int64_t max_chunks)
{
    int64_t group = least(a->q_group, a->k_group) / gated_delta_tile_sharers(a);
    int64_t blocks = max_chunks * a->num_heads, enough = (int64_t)call->device->sms * 4;
    int64_t heads = most(1, least(least(group, MAX_HEADS), blocks >= enough ? blocks / enough : 1));
    while (group % heads)
        heads--;
    return heads;
}

static const char *fit(const struct call *call, struct way *way, const struct gated_delta_args *a)
{
    const struct gated_delta_view *t = call_view(call);
    const DLTensor *copied[] = {t->q, t->k, t->v, t->output}, *states[] = {t->initial, t->final, t->kept};
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++)
        if (!tensor_is_aligned(copied[i], COPY_BYTES))
            return "a tensor is not aligned to 16 bytes";
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (states[i] && !tensor_is_aligned(states[i], 2 * dtype_bytes(tensor_dtype(states[i]))))
            return "a state is not aligned to two of its elements";
    int64_t dim = tensor_shape(t->q, -1), max_chunks = a->num_tokens / GATED_DELTA_CHUNK + a->num_sequences;
    if (a->num_sequences > INT32_MAX / 4 || max_chunks > INT32_MAX || a->num_heads > MAX_GRID_Y)
        return "there are more sequences, tokens or heads than a grid has blocks for";
    int64_t warps = dim == 64 || 2 * a->num_sequences * a->num_heads <= call->device->sms ? 4 : 8;
    int32_t *constant = way_spec(way, &tiles);
    constant[0] = tensor_dtype(t->q);
    constant[1] = (int32_t)dim;
    constant = way_spec(way, &chunks);
    constant[0] = tensor_dtype(t->q);
    constant[1] = (int32_t)dim;
    constant[2] = t->initial ? tensor_dtype(t->initial) : DTYPE_F32;
    constant[3] = t->final ? tensor_dtype(t->final) : DTYPE_F32;
    constant[4] = (int32_t)warps;
    constant[5] = t->kept != NULL;
    way->value[WAY_MAX_CHUNKS] = max_chunks;
    way->value[WAY_HEADS] = gated_delta_tile_heads(call, a, max_chunks);
    way->value[WAY_WARPS] = warps;
    way->workspace = (size_t)(a->num_heads / gated_delta_tile_sharers(a) * max_chunks) * sizeof(struct gated_delta_tile);
    return NULL;
}

const char *gated_delta_fit_sm80(const struct call *call, struct way *way)
{
    struct gated_delta_args *a = WAY_ARGS(way, struct gated_delta_args);
    *a = gated_delta_args(call);
    return fit(call, way, a);
}

const char *gated_delta_fit_few_sm80(const struct call *call, struct way *way)
{
    const struct gated_delta_args a = gated_delta_args(call);
    bool invariant = call->exec.flags & FLASHINFER_BATCH_INVARIANT;
    bool few = a.num_sequences > INT32_MAX || a.num_tokens <= a.num_sequences * FEW_TOKENS;
    if ((invariant || !few) && !fit(call, way, &a))
        return invariant ? "FLASHINFER_BATCH_INVARIANT: whether it is chosen depends on the other sequences"
                         : "64 tokens at a time take less time";
    way->num_specs = 0;
    way->workspace = 0;
    return gated_delta_fit_recurrent_sm80(call, way);
}

flashinfer_status gated_delta_run_sm80(const struct call *call, const struct way *way)
{
    struct gated_delta_sm80_args p = {.a = *WAY_ARGS(way, const struct gated_delta_args), .tiles = call->exec.workspace};
    uint32_t heads = (uint32_t)p.a.num_heads, warps = (uint32_t)way->value[WAY_WARPS];
    uint32_t dim = (uint32_t)tensor_shape(((const struct gated_delta_view *)call_view(call))->q, -1);
    p.max_chunks = (int32_t)way->value[WAY_MAX_CHUNKS];
    p.heads = (int32_t)way->value[WAY_HEADS];
    p.sharers = (int32_t)gated_delta_tile_sharers(&p.a);
    if (!p.max_chunks || !heads)
        return FLASHINFER_OK;
    struct jit_launch launch = {.grid = {(uint32_t)p.max_chunks, heads / (uint32_t)(p.heads * p.sharers)},
                                .block = {128},
                                .smem = GATED_DELTA_SM80_TILES_SMEM,
                                .args = &p,
                                .args_size = sizeof p};
    TRY(call_launch(call, way, SPEC_TILES, &launch));
    launch.follows = true;
    launch.grid[0] = (uint32_t)p.a.num_sequences * (dim / (warps * WARP_VALUES));
    launch.grid[1] = heads;
    launch.block[0] = 32 * warps;
    launch.smem = (uint32_t)GATED_DELTA_SM80_SMEM(dim, warps);
    return call_launch(call, way, SPEC_CHUNKS, &launch);
}
