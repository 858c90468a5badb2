/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of chunk_gated_delta_rule on sm_90a: a kernel makes tiles of all chunks, another one walks them with the states. */
#include "backend/bulk_copy.h"
#include "core/status.h"
#include "ops/gated_delta/gated_delta_kernels.h"

enum { SPEC_TILES, SPEC_CHUNKS };
enum { WAY_HALVES, WAY_MAX_CHUNKS, WAY_HEADS, WAY_BLOCKS };
enum { HEAD_DIM = 128, HALF = 64, MAX_HEADS = 4, ALIGNMENT = 256 };

static const struct jit_kernel tiles = {"gated_delta_tiles_sm90", JIT_CUDA, {"T:dtype"}};
static const struct jit_kernel chunks = {
    "chunk_gated_delta_rule_sm90", JIT_CUDA, {"T:dtype", "INITIAL:dtype", "FINAL:dtype", "HALVES", "KEPT"}};

/* [tokens, heads, 128] as tiles of 64 tokens by `halves` times 64 elements of a head. */
static void see(const DLTensor *t, uint32_t halves, struct tensor_map_axis axis[4])
{
    axis[0] = (struct tensor_map_axis){HALF, 1, HALF};
    axis[1] = (struct tensor_map_axis){tensor_shape(t, 0), tensor_stride(t, 0), GATED_DELTA_CHUNK};
    axis[2] = (struct tensor_map_axis){HEAD_DIM / HALF, HALF, halves};
    axis[3] = (struct tensor_map_axis){tensor_shape(t, 1), tensor_stride(t, 1), 1};
}

/* Heads that a block of the first kernel takes, which share q and k: more of them share its products, fewer fill the machine. */
static int64_t choose_heads(const struct call *call, const struct gated_delta_args *a, int64_t max_chunks)
{
    int64_t group = a->q_group < a->k_group ? a->q_group : a->k_group;
    int64_t blocks = max_chunks * a->num_heads, enough = (int64_t)call->device->sms * 4;
    int64_t heads = least(least(group, MAX_HEADS), blocks >= enough ? blocks / enough : 1);
    while (group % heads)
        heads--;
    return heads;
}

const char *gated_delta_fit_sm90(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    const DLTensor *copied[] = {t->q, t->k, t->v, t->output}, *states[] = {t->initial, t->final, t->kept};
    struct gated_delta_args a = gated_delta_args(call);
    struct tensor_map_axis axis[4];
    if (tensor_shape(t->q, -1) != HEAD_DIM)
        return "head_dim is not 128";
    if (!a.num_tokens)
        return "there are no tokens";
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        see(copied[i], 2, axis);
        const char *why = tensor_map_fit(tensor_data(copied[i]), axis);
        if (why)
            return why;
    }
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (states[i] && !tensor_is_aligned(states[i], 2 * dtype_bytes(tensor_dtype(states[i]))))
            return "a state is not aligned to two of its elements";
    int64_t pairs = a.num_sequences * a.num_heads, max_chunks = a.num_tokens / GATED_DELTA_CHUNK + a.num_sequences;
    if (pairs > INT32_MAX / 2 || max_chunks > INT32_MAX || a.num_heads > 65535)
        return "there are more sequences, tokens or heads than a grid has blocks for";
    int64_t halves = 2 * pairs <= call->device->sms ? 1 : 2;
    way_spec(way, &tiles)[0] = tensor_dtype(t->q);
    int32_t *constant = way_spec(way, &chunks);
    constant[0] = tensor_dtype(t->q);
    constant[1] = t->initial ? tensor_dtype(t->initial) : DTYPE_F32;
    constant[2] = t->final ? tensor_dtype(t->final) : DTYPE_F32;
    constant[3] = (int32_t)halves;
    constant[4] = t->kept != NULL;
    way->value[WAY_HALVES] = halves;
    way->value[WAY_MAX_CHUNKS] = max_chunks;
    way->value[WAY_HEADS] = choose_heads(call, &a, max_chunks);
    way->value[WAY_BLOCKS] = halves == 1 ? 2 * pairs : least(pairs, call->device->sms);
    way->workspace = (size_t)(a.num_heads * max_chunks) * sizeof(struct gated_delta_tile) + ALIGNMENT;
    return NULL;
}

static flashinfer_status encode(const struct gated_delta_view *t, struct gated_delta_sm90_args *p, uint32_t halves)
{
    const DLTensor *tensor[] = {t->q, t->k, t->v, t->output};
    struct tensor_map *map[] = {&p->q, &p->k, &p->v, &p->output};
    const uint32_t box[] = {2, 2, halves, 1};
    struct tensor_map_axis axis[4];
    for (int i = 0; i < 4; i++) {
        see(tensor[i], box[i], axis);
        TRY(tensor_map_encode(map[i], tensor_dtype(tensor[i]), tensor_data(tensor[i]), axis));
    }
    return FLASHINFER_OK;
}

flashinfer_status gated_delta_run_sm90(const struct call *call, const struct way *way)
{
    struct gated_delta_sm90_args p = {.a = gated_delta_args(call)};
    uint32_t halves = (uint32_t)way->value[WAY_HALVES];
    p.tiles = call->exec.workspace;
    p.max_chunks = (int32_t)way->value[WAY_MAX_CHUNKS];
    p.heads = (int32_t)way->value[WAY_HEADS];
    p.items = (int32_t)(p.a.num_sequences * p.a.num_heads * (halves == 1 ? 2 : 1));
    TRY(encode(call_view(call), &p, halves));
    TRY(call_launch(call, way, SPEC_TILES,
                    &(struct jit_launch){.grid = {(uint32_t)p.max_chunks, (uint32_t)(p.a.num_heads / p.heads)},
                                         .block = {128},
                                         .smem = GATED_DELTA_TILES_SMEM,
                                         .args = &p,
                                         .args_size = sizeof p}));
    return call_launch(call, way, SPEC_CHUNKS,
                       &(struct jit_launch){.grid = {(uint32_t)way->value[WAY_BLOCKS]},
                                            .block = {halves == 1 ? 192 : 384},
                                            .smem = (uint32_t)GATED_DELTA_CHUNK_SMEM((int)halves),
                                            .follows = true,
                                            .args = &p,
                                            .args_size = sizeof p});
}
