/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode, and batch_prefill of few query tokens: attention at the speed of memory, in one launch. What the kernels
 * batch_decode_stream_sm80 and batch_decode_stream_sm90 share.
 *
 * BLOCKS blocks of WARPS warps run on a multiprocessor. Each takes its share of the batch (decode_stream_share.cuh), task by
 * task. In a task, the STREAMS streams of a block, or a team of them, take a tile of tokens each in turn; ROW_WARPS warps of a
 * stream have 8 * ROW_TILES packed rows each, and copy the tile each for itself, so that nothing waits for another warp until the
 * task ends (the second copy comes from the L2 cache). A warp has STAGES tiles of shared memory, through which the tiles of all
 * its tasks pass without a break; one of them is free while a task ends, and holds its results for the others
 * (decode_stream_parts.cuh).
 *
 *   T           f16, bf16: of queries and out
 *   KV          T, e4m3, e5m2
 *   HEADS       1; 2: KV heads side by side are read as one of twice the head_dim, by the rows of both, whose queries are 0 where
 *               the other one's dimensions are; then group, num_kv_heads and by_group are those of such heads
 *   HEAD_DIM    a multiple of 16; of HEADS
 *   ALIGNED     1: q, k, v and out, and their strides, are multiples of 16 bytes; 0: of one element
 *   ROW_TILES   1, 2, 4, as registers go: ROW_TILES * HEAD_DIM is at most 512; of keys of 8 bits 1, 2
 *   ROW_WARPS   1, 2, 4; divides WARPS
 *   WARPS       of a block
 *   STAGES      at least 2
 *   BLOCKS      of a multiprocessor
 *   BOX_TOKENS  of a bulk copy, a multiple of 8 that divides TILE and page_size; 0: there are none
 * Workspace: struct part[2 * num_parts]. Dynamic shared memory: WARPS * STAGES * STAGE_BYTES, and STAGE_ALIGNMENT. */
#ifndef DECODE_STREAM_CUH
#define DECODE_STREAM_CUH

#include "decode_stream_parts.cuh"
#include "pdl.cuh"

/* Whether a block guesses what there is to do: what it looks up for it must do no harm, and registers must suffice. */
#define GUESSES (BOX_TOKENS && !QUERIES_SHARED)

enum { MANY = 32 }; /* of more requests blocks mostly begin when those of the kernel before end, and nothing overlaps */
enum { STAGE_ALIGNMENT = ATTENTION_STREAM_ALIGNMENT };

/* Zeros for the requests that see nothing. */
DEVICE void write_nothing(const struct attention_args &a)
{
    int heads = a.num_kv_heads * a.group;
#pragma unroll 1
    for (int request = blockIdx.x; request < a.batch; request += gridDim.x) {
        struct attention_scheduled r = see_request(a, request);
        if (r.kv_len > 0)
            continue;
#pragma unroll 1
        for (int token = r.first_q; token < r.first_q + r.qo_len; token++)
#pragma unroll 1
            for (int head = threadIdx.x / 32; head < heads; head += WARPS) {
#pragma unroll 1
                for (int column = threadIdx.x % 32; column < HEAD_DIM / HEADS; column += 32)
                    from_float((T *)a.out + token * a.out_token + head * a.out_head + column, 0.0f);
                if (a.lse && threadIdx.x % 32 == 0) /* as finish_row */
                    a.lse[token * a.lse_token + head * a.lse_head] =
                        a.sinks ? a.sinks[head] * LOG2E * a.modes.lse_factor : -INFINITY;
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

/* Arguments are in no cache when a kernel begins: all of them are asked for at once. Where requests lie is wanted first of all,
 * and by then in the L2 cache. */
DEVICE void prefetch_tables(const struct attention_args &a)
{
    enum { LINE = 32, ARGUMENTS = sizeof a / 64 };
    touch(((const int *)&a)[16 * min((int)threadIdx.x % 32, ARGUMENTS - 1)]);
    int at = (blockIdx.x * THREADS + threadIdx.x) * LINE;
    if (at < a.stream.num_indices)
        prefetch_l2(a.kv_indices + at);
    if (a.kv_indptr && at <= a.batch)
        prefetch_l2(a.kv_indptr + at);
    if (a.kv_last_page_len && at < a.batch)
        prefetch_l2(a.kv_last_page_len + at);
}

/* By a whole warp: the address of all stages, and what they are filled with. */
DEVICE uint32_t init_source(struct source &source)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    int warp = threadIdx.x / 32;
    source.policy = evict_first_policy();
#if BOX_TOKENS
    __shared__ uint64_t full[WARPS][STAGES];
    source.full = shared_address(full[warp]);
    if (threadIdx.x == 0) {
        tensor_map_prefetch(source.k);
        tensor_map_prefetch(source.v);
    }
    if (threadIdx.x % 32 == 0) {
        for (int i = 0; i < STAGES; i++)
            mbarrier_init(source.full + 8 * i, 1);
        mbarrier_init_fence();
    }
    __syncwarp();
#else
    __shared__ struct place tokens[WARPS][TILE];
    source.places = tokens[warp];
#endif
    return (shared_address(shared) + STAGE_ALIGNMENT - 1) / STAGE_ALIGNMENT * STAGE_ALIGNMENT;
}

/* Divides the batch. While the kernel before it runs, a block looks tables up, divides the batch and finds its first tile as if
 * they were final. When that kernel has ended it looks again; if they are other then, all is done again. True if `next` is the
 * first tile. */
DEVICE bool begin_batch(const struct attention_args &a, struct division &d, struct loader &l, struct walk &walk,
                        struct request_of_tile &next)
{
    bool guess = GUESSES && a.stream.ahead && a.batch <= MANY;
#pragma unroll 1
    for (bool guessed = false;; guess = false) {
        if (!guess) {
            pdl_wait();
            pdl_launch();
        }
#if GUESSES
        if (guessed)
            next = look_up(a, d, l, false);
#endif
        bool usual = keep_requests(a, guess);
        if (guessed && usual)
            return true;
        if (guess && !usual)
            continue;
        l = {};
        d = divide_batch(a, l.walk);
        walk = l.walk;
        if (!guess)
            return false;
        find_tile(a, d, l);
        guessed = true;
    }
}

/* What each kernel does. */
DEVICE void decode_stream(const struct attention_args &a, struct source &source)
{
    __shared__ struct exchange exchange;
    __shared__ struct places parts[WARPS];
    int warp = threadIdx.x / 32;
    uint32_t all_stages = init_source(source), stages = all_stages + warp * STAGES * STAGE_BYTES;
    prefetch_tables(a);
    struct division d;
    struct loader l;
    struct walk walk;
    struct request_of_tile next;
    bool guessed = begin_batch(a, d, l, walk, next);
    struct logit_rule rule = make_logit_rule(a);
    struct task t;
    struct row_range range;
    struct rows r;
    r.shared_q = (uint2 *)__cvta_shared_to_generic(all_stages + WARPS * STAGES * STAGE_BYTES) +
                 warp % ROW_WARPS * (ROW_TILES * DIM_STEPS * 32);
    struct places &places = parts[warp];
    unsigned long long arrived;
    int unmasked, unmasked_end, tile = 0, taken = 0, stage = 0, free = 0, phase = 0;
    t.count = t.tile_end = 0;

    /* Steps before 0 only fill the stages; the first one looks up, unless a guess was right. From then on one stage is free
     * when a step begins, STAGES - 1 are on their way. */
#pragma unroll 1
    for (int step = guessed - STAGES;; step++) {
#pragma unroll 1
        while (step >= 0 && tile >= t.tile_end) {
            if (t.count)
                finish_task(a, d, t, places, r, stages + free * STAGE_BYTES, arrived, exchange);
            if (!QUERIES_SHARED && ++taken == l.found) { /* else there are no registers for it */
                walk = l.walk;
                t = l.task;
            } else if (!next_task(a, d, walk, t)) {
                goto done;
            }
            keep_places(places, d, t);
            arrived = 0;
            tile = t.tile + d.stream;
            range = t.range;
            range.first += warp % ROW_WARPS * 8 * ROW_TILES;
            find_unmasked(a, range, unmasked, unmasked_end);
            begin_rows(a, range, t.kv_head, t.first_q, rule.factor, d.stream, r);
        }
        if (step > -STAGES)
            copy_tile(a, source, stages, free++, next);
        find_tile(a, d, l);
        next = look_up(a, d, l, true);
        if (step < 0)
            continue;
        if (t.count < t.units && tile + d.streams >= t.tile_end)
            arrived = ask_for_arrivals(places, (const struct part *)a.workspace);
        int first = tile * TILE;
        uint32_t at = stages + stage * STAGE_BYTES;
        wait_for_tile(source, stage, phase);
#if BOX_TOKENS
        if (first < t.begin || first + TILE > t.kv_len)
            clear_values(at + TILE_BYTES, t.begin - first, t.kv_len - first);
#endif
        attend_tile(a, range, rule, r, at, first, first < unmasked || first + TILE > unmasked_end);
        tile += d.streams;
        free = stage;
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
done:
#if !BOX_TOKENS
    cp_async_wait<0>();
#endif
    if (d.any_empty)
        write_nothing(a);
}

#endif
