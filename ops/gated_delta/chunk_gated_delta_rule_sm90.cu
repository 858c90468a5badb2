/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_90a that walks the chunks of a segment with a head's state in registers
 * (gated_delta_walk_sm90.cuh). A warpgroup has 64 values of a state; a warp loads, another one stores output, so that the fence
 * between the two ways into memory costs the warpgroups nothing.
 *
 *   T              f16, bf16
 *   INITIAL, FINAL dtypes of states
 *   HALVES         1: a block has 64 values of a state, of one item after another. 2: all 128, or 64 where an item says so
 *   F16_MATRICES   1: T, P, E and U are f16, E and P in units; beta is 1
 *   DECAYS         0: alpha is 1, and q and k are not normalised
 *   KEPT           1: states are kept on the way
 * Grid: as many blocks as run at once, or fewer; 192 or 384 threads. Dynamic shared memory: struct smem. */
#include "gated_delta_copies_sm90.cuh"
#include "gated_delta_walk_sm90.cuh"

#if KEPT
/* The state after `done` chunks of the sequence, if it is one that is kept. */
DEVICE void keep_state(const struct gated_delta_args &a, const float (&s)[64], const struct item *i, int done, int half,
                       const struct place &place)
{
    int64_t tokens = (int64_t)(i->segment.first + done) * CHUNK;
    if (done * CHUNK > i->segment.length || tokens % a.kept_every)
        return;
    int64_t row = index_at(&a.kept_starts, i->segment.sequence) + tokens / a.kept_every - 1;
    if (row < index_at(&a.kept_starts, i->segment.sequence + 1))
        store_state(s, (FINAL *)a.kept.data + row * a.kept.row + i->head * a.kept.head + half * 64 * a.kept.line, a.kept.line,
                    place);
}
#endif

/* The state that a segment begins with. */
DEVICE void begin_state(const struct gated_delta_sm90_args &p, float (&s)[64], const struct item *i, int half,
                        const struct place &place)
{
    const struct state_pool &pool = p.a.initial;
    int64_t row = state_row(p.a.initial_rows, i->segment.sequence);
    if (i->segment.first || !i->segment.ends)
        load_state(s, joined_state(p, i->segment, i->head) + half * 64 * HEAD_DIM, HEAD_DIM, place);
    else if (pool.data && row >= 0)
        load_state(s, (const INITIAL *)pool.data + row * pool.row + i->head * pool.head + half * 64 * pool.line, pool.line,
                   place);
}

DEVICE void compute_item(const struct gated_delta_sm90_args &p, struct smem *sm, const struct item *i, struct worker &w)
{
    const struct state_pool &pool = p.a.final;
    int half = HALVES == 1 ? i->first_half : w.slot, chunks = i->chunks;
    float s[64] = {}, y[32] = {};
    uint32_t fragments[32];
    begin_state(p, s, i, half, w.place);
    if (chunks > 0) {
        fetch(w, sm);
        pack(fragments, s, T());
#pragma unroll 1
        for (int c = 0; c < chunks; c++) {
            take_chunk(w, sm, s, fragments, y, c == 0, c + 1 == chunks);
#if KEPT
            keep_state(p.a, s, i, c + 1, half, w.place);
#endif
        }
        mbarrier_arrive(AT(empty[w.last_stage]));
        put_output(w, sm, y, true);
    }
    int64_t row = state_row(p.a.final_rows, i->segment.sequence);
    half = HALVES == 1 ? i->first_half : w.slot;
    if (pool.data && row >= 0 && i->segment.ends)
        store_state(s, (FINAL *)pool.data + row * pool.row + i->head * pool.head + half * 64 * pool.line, pool.line, w.place);
}

/* Goes along with the other warpgroup, which has the item: a phase of a barrier that nobody waited for is mistaken for the
 * next. */
DEVICE void pass_item(struct smem *sm, const struct item *i, struct worker &w)
{
#pragma unroll 1
    for (int c = i->chunks; c > 0; c--) {
        mbarrier_wait(AT(full[w.ring.stage]), w.ring.phase);
        __syncwarp();
        mbarrier_arrive(AT(empty[w.ring.stage]));
        advance<STAGES>(w.ring);
    }
}

DEVICE void compute_items(const struct gated_delta_sm90_args &p, struct smem *sm, struct items &items, int slot)
{
    struct worker w = make_worker(slot);
    while (const struct item *i = next_item(sm, items)) {
        if (HALVES == 1 || (slot >= i->first_half && slot < i->end_half))
            compute_item(p, sm, i, w);
        else
            pass_item(sm, i, w);
        leave_item(sm, items);
    }
}

/* The blocks above the diagonal of T and P, which the tiles have not. One loop: a call of clear_upper for each is 4 KB of
 * code. */
DEVICE void clear_uppers(struct smem *sm)
{
    for (int i = threadIdx.x; i < STAGES * 2 * UPPER_PIECES; i += blockDim.x) {
        struct stage *stage = &sm->stage[i / (2 * UPPER_PIECES)];
        *(uint4 *)((i / UPPER_PIECES % 2 ? stage->p : stage->t) + upper_piece(i % UPPER_PIECES)) = make_uint4(0, 0, 0, 0);
    }
    shared_async_fence();
}

extern "C" __global__ void __launch_bounds__(HALVES == 2 ? 384 : 192, 1)
    chunk_gated_delta_rule_sm90(const __grid_constant__ struct gated_delta_sm90_args p)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    struct items items = {};
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
    if (!p.ready)
        pdl_wait();
    pdl_launch();
    if (warp < HALVES * WARPS) {
        if (HALVES == 2)
            registers_take<WORKER_REGISTERS>();
        compute_items(p, sm, items, HALVES == 2 ? warp / WARPS : 0);
        return;
    }
    if (HALVES == 2)
        registers_release<LOADER_REGISTERS>();
    if (warp == HALVES * WARPS)
        load_items(p, sm, items);
    if (warp == HALVES * WARPS + 1)
        store_items(p, sm, items);
    pdl_wait();
}
