/* SPDX-License-Identifier: Apache-2.0 */
/* How a warp of batch_decode_stream_ brings tiles of keys and values to its stages: in boxes, by bulk copies, where BOX_TOKENS is
 * not 0, else 16 bytes a lane. */
#ifndef DECODE_STREAM_LOAD_CUH
#define DECODE_STREAM_LOAD_CUH

#include "decode_stream_share.cuh"
#if BOX_TOKENS
#include "hopper.cuh"
#endif

/* Where keys and values come from. */
struct source {
#if BOX_TOKENS
    const struct tensor_map *k, *v;
    uint32_t full; /* barriers of the warp, of each stage */
#else
    struct place *places; /* [TILE] of shared memory */
#endif
    uint64_t policy;
};

/* What a warp copies next: of the last task that it found, after which the walk is. */
struct loader {
    struct walk walk;
    struct task task;
    int tile;
    int found; /* tasks */
    bool done;
};

/* A tile that is about to be copied; this lane's token or box has page and slot. `at` is below 0 if there is none, which without
 * boxes all lanes agree on. */
struct request_of_tile {
    int page, at, kv_head;
};

/* Goes on to the task that has the next tile. */
DEVICE void find_tile(const struct attention_args &a, const struct division &d, struct loader &l)
{
#pragma unroll 1
    while (!l.done && l.tile >= l.task.tile_end) {
        l.done = !next_task(a, d, l.walk, l.task);
        if (l.done)
            break;
        l.tile = l.task.tile + d.stream;
        l.found++;
    }
}

/* Asks for the page of the tile, long before it is needed, and goes on to the next tile. After a guess `safe` is false. */
DEVICE struct request_of_tile look_up(const struct attention_args &a, const struct division &d, struct loader &l, bool safe)
{
    enum { STEP = BOX_TOKENS ? BOX_TOKENS : 1 };
    const struct task &t = l.task;
    int lane = threadIdx.x % 32, token = l.tile * TILE + (BOX_TOKENS ? lane * STEP : lane % TILE);
    struct request_of_tile r = {0, -1, t.kv_head};
    bool exists = !l.done && (!BOX_TOKENS || lane * STEP < TILE && token + STEP > t.begin && token < t.kv_len);
    if (!BOX_TOKENS) /* in place of tokens that the request does not have, which are hidden, stands one that it has */
        token = min(max(token, t.begin), t.kv_len - 1);
    if (!safe && a.kv_last_page_len)
        exists &= (unsigned)(t.first_page + divide(token, a.by_page_size)) < (unsigned)a.stream.num_indices;
    if (exists) {
        struct slot s = find_slot(a, t.first_page, token);
        r.page = s.page;
        r.at = s.at;
    }
    l.tile += d.streams;
    return r;
}

#if BOX_TOKENS

/* Starts to copy a tile. A stage's barrier completes a phase for each tile that there is. */
DEVICE void copy_tile(const struct attention_args &a, const struct source &s, uint32_t stages, int stage,
                      const struct request_of_tile &r)
{
    uint32_t to = stages + stage * STAGE_BYTES, full = s.full + 8 * stage;
    __syncwarp();
    int boxes = __popc(__ballot_sync(0xffffffffu, r.at >= 0));
    if (boxes && elect())
        mbarrier_arrive_expect(full, boxes * (2 * BOX_TOKENS * ROW_BYTES));
#pragma unroll
    for (int i = 0; i < TILE / BOX_TOKENS; i++, to += BOX_TOKENS * ROW_BYTES) {
        int at = __shfl_sync(0xffffffffu, r.at, i), page = __shfl_sync(0xffffffffu, r.page, i);
        if (at >= 0 && elect()) {
            tensor_load_5d(to, s.k, full, 0, at, 0, r.kv_head, page, s.policy);
            tensor_load_5d(to + TILE_BYTES, s.v, full, 0, at, 0, r.kv_head, page, s.policy);
        }
    }
}

DEVICE void wait_for_tile(const struct source &s, int stage, int phase) { mbarrier_wait(s.full + 8 * stage, phase); }

/* Boxes bring what pages hold beyond a request's tokens, NaN for instance: zeros take the place of such values. */
DEVICE void clear_values(uint32_t values, int begin, int end)
{
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < TILE * CHUNKS; i += 32)
        if (i / CHUNKS < begin || i / CHUNKS >= end)
            *(uint4 *)__cvta_shared_to_generic(chunk_address(values, i / CHUNKS, i % CHUNKS)) = make_uint4(0, 0, 0, 0);
    shared_async_fence();
    __syncwarp();
}

#else

DEVICE void copy_chunk(uint32_t to, const KV *from, uint64_t policy)
{
#if ALIGNED
    cp_async_16(to, from, policy);
#else
    uint32_t x[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 16 / (int)sizeof(KV); i++)
        x[i * sizeof(KV) / 4] |= (uint32_t)from[i].bits << (8 * sizeof(KV) * i % 32);
    *(uint4 *)__cvta_shared_to_generic(to) = make_uint4(x[0], x[1], x[2], x[3]);
#endif
}

/* Starts to copy a tile. Places are read a few at a time, because no read of shared memory is moved before a copy to it. */
DEVICE void copy_tile(const struct attention_args &a, const struct source &s, uint32_t stages, int stage,
                      const struct request_of_tile &r)
{
    enum { STEPS = (TILE * CHUNKS + 31) / 32, AHEAD = ALIGNED && STEPS % 4 == 0 ? 4 : 1, WHOLE = 32 % CHUNKS == 0 };
    int lane = threadIdx.x % 32;
    uint32_t to = stages + stage * STAGE_BYTES;
    if (r.at >= 0) {
        __syncwarp();
        if (lane < TILE) {
            s.places[lane].key = (const KV *)a.k + (r.page * a.k_page + r.at * a.k_slot + r.kv_head * a.k_head);
            s.places[lane].value = (const KV *)a.v + (r.page * a.v_page + r.at * a.v_slot + r.kv_head * a.v_head);
        }
        __syncwarp();
#pragma unroll(ALIGNED ? 16 : 1)
        for (int i = 0; i < STEPS; i += AHEAD) {
            struct place p[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                int row = WHOLE ? (i + j) * (32 / CHUNKS) + lane / CHUNKS : (32 * (i + j) + lane) / CHUNKS;
                p[j] = s.places[min(row, TILE - 1)];
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                int n = 32 * (i + j) + lane, row = n / CHUNKS, chunk = n % CHUNKS, column = chunk * (16 / (int)sizeof(KV));
                uint32_t at = chunk_address(to, row, chunk);
                if (WHOLE) {
                    row = (i + j) * (32 / CHUNKS);
                    at = (chunk_address(to, lane / CHUNKS, chunk) ^ turn_of(row) << 4) + row * ROW_BYTES;
                }
                if (TILE * CHUNKS % 32 && row >= TILE)
                    break;
                copy_chunk(at, p[j].key + column, s.policy);
                copy_chunk(at + TILE_BYTES, p[j].value + column, s.policy);
            }
        }
    }
    cp_async_commit();
}

/* One more tile than STAGES - 1 is on its way. */
DEVICE void wait_for_tile(const struct source &s, int stage, int phase)
{
    cp_async_wait<STAGES - 1>();
    __syncwarp();
}

#endif

#endif
