/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of chunk_gated_delta_rule on sm_90a: a kernel makes tiles of all chunks and lists segments, another one walks them
 * with the states: whole sequences, or pieces of them, once two more have told the states that they begin with. */
#include "backend/bulk_copy.h"
#include "core/status.h"
#include "ops/gated_delta/gated_delta_kernels.h"

enum { SPEC_TILES, SPEC_CHUNKS, SPEC_SEGMENTS, SPEC_JOIN };
enum { WAY_HALVES, WAY_MAX_CHUNKS, WAY_HEADS, WAY_BLOCKS, WAY_SEGMENT_CHUNKS, WAY_MAX_CUTS, WAY_BESIDE };
enum { HEAD_DIM = 128, HALF = 64, ALIGNMENT = 256, GROUPS = 4 };
/* Sequences are cut where the machine has room for so many segments of each head, of as many chunks: a segment but the first is
 * walked three times, to be walked beside the others. */
enum { MIN_PIECES = 3, MIN_SEGMENT_CHUNKS = 8, MIN_BESIDE = 4096 };

static const struct jit_kernel tiles = {"gated_delta_tiles_sm90", JIT_CUDA, {"T:dtype", "GROUPS", "DECAYS", "F16_MATRICES"}};
static const struct jit_kernel chunks = {
    "chunk_gated_delta_rule_sm90",
    JIT_CUDA,
    {"T:dtype", "INITIAL:dtype", "FINAL:dtype", "HALVES", "KEPT", "DECAYS", "F16_MATRICES"}};
static const struct jit_kernel segments = {
    "gated_delta_segments_sm90", JIT_CUDA, {"T:dtype", "INITIAL:dtype", "DECAYS", "F16_MATRICES"}};
static const struct jit_kernel join = {"gated_delta_join_sm90", JIT_CUDA, {0}};

/* What copies bring, as they see it. */
struct copied {
    struct tensor_map_view q, k, v, output;
};

/* [tokens, heads, 128] as tiles of 64 tokens by `halves` times 64 elements of a head. NULL, or why copies cannot see it so. */
static const char *see(const DLTensor *t, uint32_t halves, struct tensor_map_view *view)
{
    const struct tensor_map_axis axis[] = {{HALF, 1, HALF},
                                           {tensor_shape(t, 0), tensor_stride(t, 0), GATED_DELTA_CHUNK},
                                           {HEAD_DIM / HALF, HALF, halves},
                                           {tensor_shape(t, 1), tensor_stride(t, 1), 1}};
    return tensor_map_fit(view, tensor_data(t), tensor_dtype(t), sizeof axis / sizeof *axis, axis);
}

static const char *see_all(const struct gated_delta_view *t, struct copied *copied)
{
    const char *why = see(t->q, 2, &copied->q);
    if (!why)
        why = see(t->k, 2, &copied->k);
    if (!why)
        why = see(t->v, 1, &copied->v);
    return why ? why : see(t->output, 1, &copied->output);
}

/* Chunks of a segment; 0: sequences stay whole. Where there are few heads, one wave of segments fills the machine. With fewer
 * sequences than segments, whatever their lengths, one of them is longer than a segment. */
static int64_t choose_segment(const struct call *call, const struct gated_delta_args *a)
{
    if (call->exec.flags & FLASHINFER_BATCH_INVARIANT)
        return 0;
    int64_t room = call->device->sms / 2 / a->num_heads, total = ceil_div(a->num_tokens, GATED_DELTA_CHUNK);
    int64_t own = room ? ceil_div(total, room) : 0;
    return room >= MIN_PIECES && own >= MIN_SEGMENT_CHUNKS && a->num_sequences < room ? own : 0;
}

/* Blocks of the first kernel that make tiles on multiprocessors of their own, beside the kernel that walks; 0: tiles are made
 * first. Where one sequence is long, and has so few heads that at most half of the machine walks. */
static int64_t choose_beside(const struct call *call, const struct gated_delta_args *a)
{
    int64_t walkers = 2 * a->num_heads, sms = call->device->sms;
    return a->num_sequences == 1 && 2 * walkers <= sms && a->num_tokens >= MIN_BESIDE ? sms - walkers : 0;
}

/* Bytes from the beginning of the workspace. */
struct layout {
    size_t ready, schedule, after, through, total;
};

static struct layout lay_out(int64_t heads, int64_t sharers, int64_t max_chunks, int64_t sequences, int64_t max_cuts)
{
    struct layout x;
    int64_t count = heads / sharers * max_chunks;
    size_t states = (size_t)(max_cuts * heads) * GATED_DELTA_STATE * sizeof(float);
    x.after = (size_t)count * sizeof(struct gated_delta_tile);
    x.through = x.after + states;
    x.ready = x.through + states;
    x.schedule = x.ready + (size_t)(count + 4) / 4 * 16;
    x.total = x.schedule + sizeof(struct gated_delta_schedule) +
              (size_t)(sequences + max_cuts) * sizeof(struct gated_delta_segment);
    return x;
}

/* Keys without beta are as strong as they get: then matrices of bf16 are not precise enough. */
static bool needs_f16_matrices(const struct gated_delta_view *t)
{
    return !t->beta && tensor_dtype(t->q) == DTYPE_BF16;
}

static void fill_specs(const struct call *call, struct way *way, int64_t halves, int64_t max_cuts, int64_t beside)
{
    const struct gated_delta_view *t = call_view(call);
    int32_t initial = t->initial ? tensor_dtype(t->initial) : DTYPE_F32, decays = t->alpha || t->l2norm;
    int32_t f16 = needs_f16_matrices(t), *constant = way_spec(way, &tiles);
    constant[0] = tensor_dtype(t->q);
    constant[1] = beside ? GROUPS : 1;
    constant[2] = t->alpha || beside; /* beside the walk it takes no time, and has no registers left */
    constant[3] = f16;
    constant = way_spec(way, &chunks);
    constant[0] = tensor_dtype(t->q);
    constant[1] = initial;
    constant[2] = t->final ? tensor_dtype(t->final) : DTYPE_F32;
    constant[3] = (int32_t)halves;
    constant[4] = t->kept != NULL;
    constant[5] = decays;
    constant[6] = f16;
    if (!max_cuts)
        return;
    constant = way_spec(way, &segments);
    constant[0] = tensor_dtype(t->q);
    constant[1] = initial;
    constant[2] = decays;
    constant[3] = f16;
    way_spec(way, &join);
}

const char *gated_delta_fit_sm90(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    const DLTensor *states[] = {t->initial, t->final, t->kept};
    if (tensor_shape(t->q, -1) != HEAD_DIM)
        return "head_dim is not 128";
    const struct gated_delta_args a = gated_delta_args(call);
    if (!a.num_tokens || !a.num_heads)
        return "there are no tokens or heads";
    const char *why = see_all(t, WAY_ARGS(way, struct copied));
    if (why)
        return why;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (states[i] && !tensor_is_aligned(states[i], 2 * dtype_bytes(tensor_dtype(states[i]))))
            return "a state is not aligned to two of its elements";
    int64_t max_chunks = a.num_tokens / GATED_DELTA_CHUNK + a.num_sequences;
    if (max_chunks > INT32_MAX || a.num_heads > 65535 || a.num_sequences * a.num_heads > INT32_MAX / 4)
        return "there are more sequences, tokens or heads than a grid has blocks for";
    int64_t pairs = a.num_sequences * a.num_heads, segment_chunks = choose_segment(call, &a);
    int64_t max_cuts = segment_chunks ? a.num_tokens / GATED_DELTA_CHUNK / segment_chunks : 0;
    int64_t halves = max_cuts || 2 * pairs <= call->device->sms ? 1 : 2;
    int64_t beside = max_cuts ? 0 : choose_beside(call, &a);
    fill_specs(call, way, halves, max_cuts, beside);
    way->value[WAY_BESIDE] = beside;
    way->value[WAY_MAX_CHUNKS] = max_chunks;
    way->value[WAY_HEADS] = gated_delta_tile_heads(call, &a, max_chunks);
    way->value[WAY_HALVES] = halves;
    way->value[WAY_BLOCKS] = least(2 * (pairs + max_cuts * a.num_heads), call->device->sms);
    way->value[WAY_SEGMENT_CHUNKS] = max_cuts ? segment_chunks : INT32_MAX / GATED_DELTA_CHUNK;
    way->value[WAY_MAX_CUTS] = max_cuts;
    way->workspace = lay_out(a.num_heads, gated_delta_tile_sharers(&a), max_chunks, a.num_sequences, max_cuts).total + ALIGNMENT;
    return NULL;
}

static flashinfer_status encode(const struct way *way, struct gated_delta_sm90_args *p)
{
    const struct copied *copied = WAY_ARGS(way, const struct copied);
    TRY(tensor_map_encode(&p->q, &copied->q));
    TRY(tensor_map_encode(&p->k, &copied->k));
    TRY(tensor_map_encode(&p->v, &copied->v));
    return tensor_map_encode(&p->output, &copied->output);
}

/* Finds what the pieces of sequences do to the states, and joins them. */
static flashinfer_status launch_cuts(const struct call *call, const struct way *way, struct jit_launch launch, uint32_t heads,
                                     uint32_t max_cuts)
{
    launch.grid[0] = 4;
    launch.grid[1] = heads;
    launch.grid[2] = max_cuts;
    launch.block[0] = 160;
    launch.smem = GATED_DELTA_SEGMENTS_SMEM;
    TRY(call_launch(call, way, SPEC_SEGMENTS, &launch));
    launch.grid[0] = HEAD_DIM / GATED_DELTA_JOIN_ROWS;
    launch.block[0] = 256;
    launch.smem = 0;
    return call_launch(call, way, SPEC_JOIN, &launch);
}

flashinfer_status gated_delta_run_sm90(const struct call *call, const struct way *way)
{
    struct gated_delta_sm90_args p = {.a = gated_delta_args(call)};
    unsigned char *workspace = call->exec.workspace;
    uint32_t heads = (uint32_t)p.a.num_heads, max_cuts = (uint32_t)way->value[WAY_MAX_CUTS];
    p.max_chunks = (int32_t)way->value[WAY_MAX_CHUNKS];
    p.heads = (int32_t)way->value[WAY_HEADS];
    p.sharers = (int32_t)gated_delta_tile_sharers(&p.a);
    p.halves = (int32_t)way->value[WAY_HALVES];
    p.multiprocessors = call->device->sms;
    p.segment_chunks = (int32_t)way->value[WAY_SEGMENT_CHUNKS];
    struct layout layout = lay_out(p.a.num_heads, p.sharers, p.max_chunks, p.a.num_sequences, max_cuts);
    p.tiles = (struct gated_delta_tile *)workspace;
    p.ready = way->value[WAY_BESIDE] ? (int32_t *)(workspace + layout.ready) : NULL;
    p.after = (float *)(workspace + layout.after);
    p.through = (float *)(workspace + layout.through);
    p.schedule = (struct gated_delta_schedule *)(workspace + layout.schedule);
    p.segments = (struct gated_delta_segment *)(p.schedule + 1);
    TRY(encode(way, &p));
    struct jit_launch launch = {.grid = {(uint32_t)p.max_chunks, heads / (uint32_t)(p.heads * p.sharers)},
                                .block = {128},
                                .smem = GATED_DELTA_TILES_SMEM,
                                .args = &p,
                                .args_size = sizeof p};
    if (p.ready) {
        launch.grid[0] = (uint32_t)way->value[WAY_BESIDE];
        launch.grid[1] = 1;
        launch.block[0] = 128 * GROUPS;
        launch.smem = GROUPS * GATED_DELTA_TILES_SMEM;
    }
    TRY(call_launch(call, way, SPEC_TILES, &launch));
    launch.follows = true;
    if (max_cuts)
        TRY(launch_cuts(call, way, launch, heads, max_cuts));
    launch.grid[0] = (uint32_t)way->value[WAY_BLOCKS];
    launch.grid[1] = launch.grid[2] = 1;
    launch.block[0] = p.halves == 1 ? 192 : 384;
    launch.smem = (uint32_t)GATED_DELTA_CHUNK_SMEM(p.halves);
    return call_launch(call, way, SPEC_CHUNKS, &launch);
}
