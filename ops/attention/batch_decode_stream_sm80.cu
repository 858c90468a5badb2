/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode, and batch_prefill of few query tokens: attention at the speed of memory, in one launch.
 *
 * Two blocks of WARPS warps run on a multiprocessor. Each takes its share of the batch (decode_stream_share.cuh), task by task.
 * In a task, STREAMS streams take a tile of tokens each in turn; ROW_WARPS warps of a stream have 8 * ROW_TILES packed rows
 * each, and copy the tile each for itself, so that nothing waits for another warp until the task ends (the second copy comes
 * from the L2 cache). A warp has STAGES tiles of shared memory, through which the tiles of all its tasks pass without a break;
 * one of them is free while a task ends, and holds its results for the others (decode_stream_parts.cuh).
 *
 *   T           f16, bf16: of queries and out
 *   KV          T, e4m3, e5m2
 *   HEAD_DIM    a multiple of 16
 *   ALIGNED     1: q, k, v and out, and their strides, are multiples of 16 bytes; 0: of one element
 *   ROW_TILES   1, 2, 4, as registers go: ROW_TILES * HEAD_DIM is at most 512
 *   ROW_WARPS   1, 2, 4; divides WARPS
 *   WARPS       of a block
 *   STAGES      at least 2
 * Workspace: struct part[2 * num_parts]. Dynamic shared memory: WARPS * STAGES * STAGE_BYTES. */
#include "decode_stream_parts.cuh"
#include "pdl.cuh"

/* What a warp copies next. */
struct loader {
    struct walk walk;
    struct task task;
    int tile;
    bool done;
};

/* A tile that is about to be copied; this lane's token has page and slot. `at` is below 0 if there is none. */
struct request_of_tile {
    int page, at, kv_head;
};

/* On to a task in which this stream has a tile. */
DEVICE void seek(const struct attention_args &a, const struct division &d, struct loader &l)
{
#pragma unroll 1
    while (!l.done && l.tile >= l.task.tile_end) {
        l.done = !next_task(a, d, l.walk, l.task);
        l.tile = l.task.tile + threadIdx.x / 32 / ROW_WARPS;
    }
}

/* Asks for the page, long before it is needed, and goes on to the next tile. */
DEVICE struct request_of_tile look_up(const struct attention_args &a, const struct division &d, struct loader &l)
{
    int lane = threadIdx.x % 32, token = l.tile * TILE + lane;
    struct request_of_tile r = {0, -1, l.task.kv_head};
    if (!l.done && lane < TILE && token >= l.task.begin && token < l.task.kv_len) {
        struct slot s = find_slot(a, l.task.first_page, token);
        r.page = s.page;
        r.at = s.at;
    }
    l.tile += STREAMS;
    seek(a, d, l);
    return r;
}

DEVICE struct place place_of(const struct attention_args &a, const struct request_of_tile &r)
{
    struct place p = {-1, 0};
    if (r.at >= 0) {
        p.key = r.page * a.k_page + r.at * a.k_slot + r.kv_head * a.k_head;
        p.value = r.page * a.v_page + r.at * a.v_slot + r.kv_head * a.v_head;
    }
    return p;
}

/* Zeros for the requests that see nothing. */
DEVICE void write_nothing(const struct attention_args &a)
{
    int heads = a.num_kv_heads * a.group;
#pragma unroll 1
    for (int request = blockIdx.x; request < a.batch; request += gridDim.x) {
        struct extent e = extent_of(a, 0, request);
        if (e.units > 0)
            continue;
#pragma unroll 1
        for (int64_t i = threadIdx.x; i < (int64_t)e.qo_len * heads * HEAD_DIM; i += THREADS) {
            int64_t token = e.first_q + i / HEAD_DIM / heads;
            int head = i / HEAD_DIM % heads, column = i % HEAD_DIM;
            from_float((T *)a.out + token * a.out_token + head * a.out_head + column, 0.0f);
            if (a.lse && column == 0)
                finish_row(a, -INFINITY, 0.0f, head, &a.lse[token * a.lse_token + head * a.lse_head]);
        }
    }
}

/* The tokens that all rows of a warp see. */
DEVICE void find_unmasked(const struct attention_args &a, const struct row_range &range, int &begin, int &end)
{
    int before = range.kv_len - range.qo_len, last = max(range.first, min(range.first + 8 * ROW_TILES, range.end) - 1);
    end = a.causal ? min(range.kv_len, before + divide(range.first, a.by_group) + 1) : range.kv_len;
    begin = a.window_left >= 0 ? before + divide(last, a.by_group) - a.window_left : 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, ATTENTION_STREAM_BLOCKS)
    batch_decode_stream_sm80(const __grid_constant__ struct attention_args a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ struct place all_places[WARPS][TILE];
    __shared__ struct exchange exchange;
    __shared__ struct open_pairs open;
    int warp = threadIdx.x / 32, stream = warp / ROW_WARPS;
    uint32_t stages = shared_address(shared) + warp * STAGES * STAGE_BYTES;
    uint64_t policy = evict_first_policy();
    pdl_wait();
    pdl_launch();
    struct loader l;
    struct division d = divide_batch(a, l.walk);
    struct logit_rule rule = make_logit_rule(a);
    struct walk walk = l.walk;
    struct task t;
    struct row_range range;
    struct rows r;
    r.shared_q = (uint2 *)(shared + WARPS * STAGES * STAGE_BYTES) + warp % ROW_WARPS * (ROW_TILES * DIM_STEPS * 32);
    if (threadIdx.x == 0)
        open.count = 0;
    bool in_task = false;
    int unmasked, unmasked_end, tile = 0;
    t.tile_end = 0;
    l.tile = l.task.tile_end = 0;
    l.done = false;
    seek(a, d, l);
    struct request_of_tile next = look_up(a, d, l);

    /* Steps before 0 only fill the stages. From then on one stage is free when a step begins, STAGES - 1 are on their way. */
    int stage = 0, free = 0;
#pragma unroll 1
    for (int step = 1 - STAGES;; step++) {
#pragma unroll 1
        while (step >= 0 && tile >= t.tile_end) {
            if (in_task)
                finish_task(a, d, t, r, stages + free * STAGE_BYTES, exchange, open);
            in_task = next_task(a, d, walk, t);
            if (!in_task || d.unit_tiles)
                close_pairs(a, d, exchange, open);
            if (!in_task)
                goto done;
            tile = t.tile + stream;
            range = t.range;
            range.first += warp % ROW_WARPS * 8 * ROW_TILES;
            find_unmasked(a, range, unmasked, unmasked_end);
            begin_rows(a, range, t.kv_head, t.first_q, rule.factor, r);
        }
        copy_tile(a, stages + free * STAGE_BYTES, all_places[warp], place_of(a, next), policy);
        next = look_up(a, d, l);
        free++;
        if (step < 0)
            continue;
        cp_async_wait<STAGES - 1>();
        __syncwarp();
        attend_tile(a, range, rule, r, stages + stage * STAGE_BYTES, tile * TILE,
                    tile * TILE < unmasked || (tile + 1) * TILE > unmasked_end);
        tile += STREAMS;
        free = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
done:
    cp_async_wait<0>();
    if (d.any_empty)
        write_nothing(a);
}
