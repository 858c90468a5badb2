/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_90a that walks the chunks of a segment with a head's state in registers. With the
 * tiles of gated_delta_tiles_sm90.cu, all of it transposed, values by tokens or keys:
 *
 *     U = (V - known S K^T) T^T;   output = out S Q^T + U P^T;   S = end S + (update U) K
 *
 * A warpgroup has 64 values of a state; a warp loads, another one stores output, so that the fence between the two ways into
 * memory costs the warpgroups nothing. The operands a of all products come from
 * registers: S, V - known S K^T and U go from accumulators to fragments in place. What the next chunk needs beside operands in
 * shared memory is fetched while the state is updated.
 *
 * Two rules of ptxas: once a round trip all wgmmas are waited for, or it orders every one; and where an accumulator is read that
 * is done, while others are under way, a wait that costs nothing tells so.
 *
 *   T              f16, bf16
 *   INITIAL, FINAL dtypes of states
 *   KEPT           1: states are kept on the way
 * Grid: as many blocks as run at once, or fewer; 384 threads. Dynamic shared memory: struct smem. */
#include "gated_delta_pieces_sm90.cuh"

enum { EARLY = 6 }; /* of the 8 steps of S Q^T, those before U */
enum { LOADER_REGISTERS = 72, WORKER_REGISTERS = 216 };

struct worker {
    struct ring ring;
    struct place place;
    int half, output_phase, last_stage;
    bool leads;      /* lane 0 of its warp */
    uint32_t v[16];  /* V^T of a chunk, as fragments */
    float2 known[8]; /* factors of the columns that the thread has */
    float end;
};

/* What the chunk in the ring's stage needs besides operands in shared memory. */
DEVICE void fetch(struct worker &w, struct smem *sm)
{
    int s = w.ring.stage;
    mbarrier_wait(AT(full[s]), w.ring.phase);
    load_values(w.v, AT(stage[s].values[0]) + w.half * SLAB_BYTES, w.place);
#pragma unroll
    for (int j = 0; j < 8; j++)
        w.known[j] = pair_at(sm->gates[s].known, j, w.place.pair);
    w.end = sm->gates[s].end[0];
}

/* Hands the output of a chunk to the warp that stores it; not `real`: goes through the motions, without a branch. */
DEVICE void put_output(struct worker &w, struct smem *sm, const float (&y)[32], bool real)
{
    uint32_t to = AT(output[w.half]) + w.place.offset;
    mbarrier_wait(AT(output_empty[w.half]), w.output_phase);
    w.output_phase ^= real;
#pragma unroll
    for (int j = 0; j < 4; j++)
        stmatrix_x4_trans(to + j * 2048, pack2(T(), y[8 * j], y[8 * j + 1]), pack2(T(), y[8 * j + 2], y[8 * j + 3]),
                          pack2(T(), y[8 * j + 4], y[8 * j + 5]), pack2(T(), y[8 * j + 6], y[8 * j + 7]));
    __syncwarp();
    mbarrier_arrive_if(AT(output_full[w.half]), w.leads && real);
}

DEVICE void scale_columns(float (&y)[32], const float *factors, int pair)
{
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float2 f = pair_at(factors, j, pair);
        y[4 * j] *= f.x;
        y[4 * j + 1] *= f.y;
        y[4 * j + 2] *= f.x;
        y[4 * j + 3] *= f.y;
    }
}

/* One chunk: s, the fragments a of it, and y, the output of the chunk before, which it hands on, become those of this chunk. */
DEVICE void take_chunk(struct worker &w, struct smem *sm, float (&s)[64], uint32_t (&a)[32], float (&y)[32], bool first,
                       bool last)
{
    const struct gated_delta_gates *gates = &sm->gates[w.ring.stage];
    uint32_t stage = AT(stage[w.ring.stage]);
    uint64_t keys = wgmma_describe(stage, 0, 1024), key_columns = wgmma_describe(stage, SLAB_BYTES, 1024);
    uint64_t queries = wgmma_describe(stage + 2 * SLAB_BYTES, 0, 1024);
    uint64_t t = wgmma_describe_narrow(stage + 4 * SLAB_BYTES, 512), p = t + 2 * NARROW_BYTES / 16;
    float x[32];
    uint32_t e[16], f[16];
    wgmma_pin(x);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; k++)
        wgmma_rows(x, a + 4 * k, keys + step_128(k), k != 0, T());
    wgmma_commit();
    wgmma_wait<1>();
    mbarrier_arrive_if(AT(empty[w.last_stage]), w.leads && !first);
    put_output(w, sm, y, !first);
    wgmma_pin(y);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < EARLY; k++)
        wgmma_rows(y, a + 4 * k, queries + step_128(k), k != 0, T());
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_pin(x);
    subtract_known(e, w.v, w.known, x);
    wgmma_pin(x);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_rows(x, e + 4 * k, t + step_64(k), k != 0, T());
    wgmma_commit();
#pragma unroll
    for (int k = EARLY; k < 8; k++)
        wgmma_rows(y, a + 4 * k, queries + step_128(k), true, T());
    wgmma_commit();
    wgmma_wait<2>();
    float2 update[8];
#pragma unroll
    for (int j = 0; j < 8; j++)
        update[j] = pair_at(gates->update, j, w.place.pair);
#pragma unroll
    for (int i = 0; i < 64; i++)
        s[i] *= w.end;
    wgmma_wait<1>();
    wgmma_pin(x);
    scale_update(f, x, update);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_columns(s, f + 4 * k, key_columns + k * 128, T());
    wgmma_commit();
    pack(e, x);
    wgmma_wait<1>();
    wgmma_pin(y);
    scale_columns(y, gates->output, w.place.pair);
    wgmma_pin(y);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_rows(y, e + 4 * k, p + step_64(k), true, T());
    wgmma_commit();
    w.last_stage = w.ring.stage;
    advance(w.ring);
    if (!last)
        fetch(w, sm);
    wgmma_wait<0>();
    wgmma_pin(s);
    wgmma_pin(y);
    pack(a, s);
}

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
        load_state(s, (const INITIAL *)pool.data + row * pool.row + i->head * pool.head + half * 64 * pool.line, pool.line, place);
}

DEVICE void compute_item(const struct gated_delta_sm90_args &p, struct smem *sm, const struct item *i, struct worker &w)
{
    const struct state_pool &pool = p.a.final;
    float s[64] = {}, y[32] = {};
    uint32_t fragments[32];
    begin_state(p, s, i, w.half, w.place);
    if (i->chunks > 0) {
        fetch(w, sm);
        pack(fragments, s);
#pragma unroll 1
        for (int c = 0; c < i->chunks; c++) {
            take_chunk(w, sm, s, fragments, y, c == 0, c + 1 == i->chunks);
#if KEPT
            keep_state(p.a, s, i, c + 1, w.half, w.place);
#endif
        }
        mbarrier_arrive_if(AT(empty[w.last_stage]), w.leads);
        put_output(w, sm, y, true);
    }
    int64_t row = state_row(p.a.final_rows, i->segment.sequence);
    if (pool.data && row >= 0 && i->segment.ends)
        store_state(s, (FINAL *)pool.data + row * pool.row + i->head * pool.head + w.half * 64 * pool.line, pool.line, w.place);
}

/* Goes along with the other warpgroup, which has the item: a phase of a barrier that nobody waited for is mistaken for the next. */
DEVICE void pass_item(struct smem *sm, const struct item *i, struct worker &w)
{
#pragma unroll 1
    for (int c = 0; c < i->chunks; c++) {
        mbarrier_wait(AT(full[w.ring.stage]), w.ring.phase);
        mbarrier_arrive_if(AT(empty[w.ring.stage]), w.leads);
        advance(w.ring);
    }
}

DEVICE void compute_items(const struct gated_delta_sm90_args &p, struct smem *sm, struct items &items, int half)
{
    struct worker w;
    w.ring = {0, 0};
    w.place = make_place();
    w.half = half;
    w.output_phase = 1;
    w.last_stage = 0;
    w.leads = lane_id() == 0;
    while (const struct item *i = next_item(sm, items)) {
        if (half >= i->first_half && half < i->end_half)
            compute_item(p, sm, i, w);
        else
            pass_item(sm, i, w);
        leave_item(sm, items);
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    chunk_gated_delta_rule_pieces_sm90(const __grid_constant__ struct gated_delta_sm90_args p)
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
    for (int i = 0; i < STAGES; i++) {
        clear_upper(sm->stage[i].t, threadIdx.x, blockDim.x);
        clear_upper(sm->stage[i].p, threadIdx.x, blockDim.x);
    }
    shared_async_fence();
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if (warp < HALVES * WARPS) {
        registers_take<WORKER_REGISTERS>();
        compute_items(p, sm, items, warp / WARPS);
        return;
    }
    registers_release<LOADER_REGISTERS>();
    if (warp == HALVES * WARPS)
        load_items(p, sm, items);
    if (warp == HALVES * WARPS + 1)
        store_items(p, sm, items);
}
