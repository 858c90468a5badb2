/* SPDX-License-Identifier: Apache-2.0 */
/* The second kernel of chunk_gated_delta_rule on sm_90a: walks the chunks of a sequence with a head's state in registers
 * (gated_delta_walk_sm90.cuh). A warpgroup has 64 values of a state; a warp loads, another one stores output, so that the fence
 * between the two ways into memory costs the warpgroups nothing.
 *
 *   T              f16, bf16
 *   INITIAL, FINAL dtypes of states
 *   HALVES         1: a block has 64 values of one state. 2: all 128, of one state after another
 *   KEPT           1: states are kept on the way
 * Grid: items, or as many blocks as run at once with HALVES 2. Dynamic shared memory: struct smem. */
#include "gated_delta_copies_sm90.cuh"
#include "gated_delta_walk_sm90.cuh"

DEVICE void load_from_pool(float (&s)[64], const struct state_pool &pool, int64_t row, int head, int value, int pair)
{
    const INITIAL *from = (const INITIAL *)pool.data + row * pool.row + head * pool.head + value * pool.line + 2 * pair;
#pragma unroll
    for (int j = 0; j < 32; j++) {
        float two[2];
        load(two, from + j % 2 * 8 * pool.line + j / 2 * 8);
        s[2 * j] = two[0];
        s[2 * j + 1] = two[1];
    }
}

DEVICE void store_to_pool(const float (&s)[64], const struct state_pool &pool, int64_t row, int head, int value, int pair)
{
    FINAL *to = (FINAL *)pool.data + row * pool.row + head * pool.head + value * pool.line + 2 * pair;
#pragma unroll
    for (int j = 0; j < 32; j++) {
        const float two[2] = {s[2 * j], s[2 * j + 1]};
        store(to + j % 2 * 8 * pool.line + j / 2 * 8, two);
    }
}

#if KEPT
/* The state after `done` chunks, if it is one that is kept. */
DEVICE void keep_state(const struct gated_delta_args &a, const float (&s)[64], const struct item &i, int done, int value,
                       int pair)
{
    int64_t tokens = (int64_t)done * CHUNK;
    if (tokens > i.length || tokens % a.kept_every)
        return;
    int64_t row = index_at(&a.kept_starts, i.sequence) + tokens / a.kept_every - 1;
    if (row < index_at(&a.kept_starts, i.sequence + 1))
        store_to_pool(s, a.kept, row, i.head, value, pair);
}
#endif

DEVICE void compute_item(const struct gated_delta_args &a, struct smem *sm, const struct item &i, struct worker &w)
{
    int value = (HALVES == 2 ? w.half : i.half) * 64 + w.place.row;
    int64_t row = state_row(a.initial_rows, i.sequence);
    float s[64] = {}, y[32] = {};
    uint32_t fragments[32];
    if (a.initial.data && row >= 0)
        load_from_pool(s, a.initial, row, i.head, value, w.place.pair);
    if (i.chunks > 0) {
        fetch(w, sm);
        pack(fragments, s);
#pragma unroll 1
        for (int c = 0; c < i.chunks; c++) {
            take_chunk(w, sm, s, fragments, y, c == 0, c + 1 == i.chunks);
#if KEPT
            keep_state(a, s, i, c + 1, value, w.place.pair);
#endif
        }
        mbarrier_arrive_if(AT(empty[w.last_stage]), w.leads);
        put_output(w, sm, y, true);
    }
    row = state_row(a.final_rows, i.sequence);
    if (a.final.data && row >= 0)
        store_to_pool(s, a.final, row, i.head, value, w.place.pair);
}

/* The blocks above the diagonal of T and P, which the tiles have not. One loop: a call of clear_upper for each is 4 KB of code. */
DEVICE void clear_uppers(struct smem *sm)
{
    for (int i = threadIdx.x; i < STAGES * 2 * 128; i += blockDim.x) {
        struct stage *stage = &sm->stage[i / 256];
        *(uint4 *)((i / 128 % 2 ? stage->p : stage->t) + NARROW_BYTES + i % 128 * 16) = make_uint4(0, 0, 0, 0);
    }
    shared_async_fence();
}

DEVICE void init_barriers(struct smem *sm)
{
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(full[i]), 1);
        mbarrier_init(AT(empty[i]), HALVES * WARPS);
    }
    mbarrier_init(AT(tail), 1);
    for (int h = 0; h < HALVES; h++) {
        mbarrier_init(AT(output_full[h]), WARPS);
        mbarrier_init(AT(output_empty[h]), 1);
    }
    mbarrier_init_fence();
}

extern "C" __global__ void __launch_bounds__(HALVES == 2 ? 384 : 192, 1)
    chunk_gated_delta_rule_sm90(const __grid_constant__ struct gated_delta_sm90_args p)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    int warp = warp_id();
    if (threadIdx.x == 0) {
        init_barriers(sm);
        tensor_map_prefetch(&p.q);
        tensor_map_prefetch(&p.k);
        tensor_map_prefetch(&p.v);
        tensor_map_prefetch(&p.output);
    }
    clear_uppers(sm);
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if (warp < HALVES * WARPS) {
        if (HALVES == 2)
            registers_take<WORKER_REGISTERS>();
        struct worker w = make_worker(HALVES == 2 ? warp / WARPS : 0);
        for (int n = blockIdx.x; n < p.items; n += gridDim.x)
            compute_item(p.a, sm, make_item(p.a, n), w);
        return;
    }
    if (HALVES == 2)
        registers_release<LOADER_REGISTERS>();
    struct ring ring = {0, 0};
    int tails = 0, phase = 0;
    for (int n = blockIdx.x; n < p.items; n += gridDim.x) {
        if (warp == HALVES * WARPS)
            load_item(p, sm, make_item(p.a, n), ring, tails);
        if (warp == HALVES * WARPS + 1)
            store_item(p, sm, make_item(p.a, n), phase);
    }
}
