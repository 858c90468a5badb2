/* SPDX-License-Identifier: Apache-2.0 */
/* The second kernel of chunk_gated_delta_rule on sm_90a: walks the chunks of a sequence with a head's state in registers. With
 * the tiles of gated_delta_tiles_sm90.cu, all of it transposed, values by tokens or keys:
 *
 *     U = (V - known S K^T) T^T;   output = out S Q^T + U P^T;   S = end S + (update U) K
 *
 * A warpgroup has 64 values of a state; a warp loads, another one stores output, so that the fence between the two ways into
 * memory costs the warpgroups nothing. The operands a of all products come from registers: S, V - known S K^T and U go from
 * accumulators to fragments in place. What the next chunk needs beside operands in shared memory is fetched while the state is
 * updated.
 *
 * Two rules of ptxas: once a round trip all wgmmas are waited for, or it orders every one; and where an accumulator is read that
 * is done, while others are under way, a wait that costs nothing tells so.
 *
 *   T              f16, bf16
 *   INITIAL, FINAL dtypes of states
 *   HALVES         1: a block has 64 values of one state. 2: all 128, of one state after another
 *   KEPT           1: states are kept on the way
 * Grid: items, or as many blocks as run at once with HALVES 2. Dynamic shared memory: struct smem. */
#include "gated_delta_copies_sm90.cuh"

enum { EARLY = 6 }; /* of the 8 steps of S Q^T, those before U */
enum { LOADER_REGISTERS = 72, WORKER_REGISTERS = 216 };

/* Of a thread. row and pair: of its fragments; offset: of its lane's row and 16-byte piece in a tile of 64 tokens by 64 values.
 */
struct worker {
    struct ring ring;
    int warpgroup, row, pair, offset, output_phase, last_stage;
    bool leads;      /* lane 0 of its warp */
    uint32_t v[16];  /* V^T of a chunk, as fragments */
    float2 known[8]; /* factors of the columns that the thread has */
    float end;
};

DEVICE int step_128(int k)
{
    return (k / 4 * SLAB_BYTES + k % 4 * 32) / 16;
} /* 16 steps of k in a tile of two slabs */
DEVICE int step_64(int k)
{
    return (k / 2 * NARROW_BYTES + k % 2 * 32) / 16;
} /* in T and P */

template <int N> DEVICE void pack(uint32_t *to, const float (&from)[N])
{
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        to[i] = pack2(T(), from[2 * i], from[2 * i + 1]);
}

DEVICE float2 pair_at(const float *factors, int block, int pair)
{
    return *(const float2 *)(factors + 8 * block + 2 * pair);
}

DEVICE void load_state(float (&s)[64], const struct state_pool &pool, int64_t row, int head, int value, int pair)
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

DEVICE void store_state(const float (&s)[64], const struct state_pool &pool, int64_t row, int head, int value, int pair)
{
    FINAL *to = (FINAL *)pool.data + row * pool.row + head * pool.head + value * pool.line + 2 * pair;
#pragma unroll
    for (int j = 0; j < 32; j++) {
        const float two[2] = {s[2 * j], s[2 * j + 1]};
        store(to + j % 2 * 8 * pool.line + j / 2 * 8, two);
    }
}

/* What the chunk in the ring's stage needs besides operands in shared memory. */
DEVICE void fetch(struct worker &w, struct smem *sm)
{
    int s = w.ring.stage;
    mbarrier_wait(AT(full[s]), w.ring.phase);
    uint32_t values = AT(stage[s].values[0]) + (HALVES == 2 ? w.warpgroup * SLAB_BYTES : 0) + w.offset;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, values + j * 2048);
#pragma unroll
        for (int i = 0; i < 4; i++)
            w.v[4 * j + i] = r[i];
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        w.known[j] = pair_at(sm->gates[s].known, j, w.pair);
    w.end = sm->gates[s].end[0];
}

/* Hands the output of a chunk to the warp that stores it; not `real`: goes through the motions, without a branch. */
DEVICE void put_output(struct worker &w, struct smem *sm, const float (&y)[32], bool real)
{
    int h = HALVES == 2 ? w.warpgroup : 0;
    uint32_t to = AT(output[h]) + w.offset;
    mbarrier_wait(AT(output_empty[h]), w.output_phase);
    w.output_phase ^= real;
#pragma unroll
    for (int j = 0; j < 4; j++)
        stmatrix_x4_trans(to + j * 2048, pack2(T(), y[8 * j], y[8 * j + 1]), pack2(T(), y[8 * j + 2], y[8 * j + 3]),
                          pack2(T(), y[8 * j + 4], y[8 * j + 5]), pack2(T(), y[8 * j + 6], y[8 * j + 7]));
    __syncwarp();
    mbarrier_arrive_if(AT(output_full[h]), w.leads && real);
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
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float2 v = unpack2(T(), w.v[i]), known = w.known[i / 2];
        e[i] = pack2(T(), v.x - known.x * x[2 * i], v.y - known.y * x[2 * i + 1]);
    }
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
        update[j] = pair_at(gates->update, j, w.pair);
#pragma unroll
    for (int i = 0; i < 64; i++)
        s[i] *= w.end;
    wgmma_wait<1>();
    wgmma_pin(x);
#pragma unroll
    for (int i = 0; i < 16; i++)
        f[i] = pack2(T(), x[2 * i] * update[i / 2].x, x[2 * i + 1] * update[i / 2].y);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_columns(s, f + 4 * k, key_columns + k * 128, T());
    wgmma_commit();
    pack(e, x);
    wgmma_wait<1>();
    wgmma_pin(y);
    scale_columns(y, gates->output, w.pair);
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
/* The state after `done` chunks, if it is one that is kept. */
DEVICE void keep_state(const struct gated_delta_args &a, const float (&s)[64], const struct item &i, int done, int value,
                       int pair)
{
    int64_t tokens = (int64_t)done * CHUNK;
    if (tokens > i.length || tokens % a.kept_every)
        return;
    int64_t row = index_at(&a.kept_starts, i.sequence) + tokens / a.kept_every - 1;
    if (row < index_at(&a.kept_starts, i.sequence + 1))
        store_state(s, a.kept, row, i.head, value, pair);
}
#endif

DEVICE void compute_item(const struct gated_delta_args &a, struct smem *sm, const struct item &i, struct worker &w)
{
    int value = (HALVES == 2 ? w.warpgroup : i.half) * 64 + w.row;
    int64_t row = state_row(a.initial_rows, i.sequence);
    float s[64] = {}, y[32] = {};
    uint32_t fragments[32];
    if (a.initial.data && row >= 0)
        load_state(s, a.initial, row, i.head, value, w.pair);
    if (i.chunks > 0) {
        fetch(w, sm);
        pack(fragments, s);
#pragma unroll 1
        for (int c = 0; c < i.chunks; c++) {
            take_chunk(w, sm, s, fragments, y, c == 0, c + 1 == i.chunks);
#if KEPT
            keep_state(a, s, i, c + 1, value, w.pair);
#endif
        }
        mbarrier_arrive_if(AT(empty[w.last_stage]), w.leads);
        put_output(w, sm, y, true);
    }
    row = state_row(a.final_rows, i.sequence);
    if (a.final.data && row >= 0)
        store_state(s, a.final, row, i.head, value, w.pair);
}

DEVICE struct worker make_worker(int warp)
{
    int thread = threadIdx.x % 128, lane = lane_id();
    int token = lane / 16 * 8 + lane % 8, piece = thread / 32 * 2 + lane / 8 % 2;
    struct worker w;
    w.ring = {0, 0};
    w.warpgroup = warp / 4;
    w.row = thread / 32 * 16 + lane / 4;
    w.pair = lane % 4;
    w.offset = token * 128 + ((piece ^ token % 8) << 4);
    w.output_phase = 1;
    w.last_stage = 0;
    w.leads = lane == 0;
    return w;
}

/* The blocks above the diagonal of T and P, which the tiles have not. */
DEVICE void clear_upper(struct smem *sm)
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
        mbarrier_init(AT(empty[i]), WARPS);
    }
    mbarrier_init(AT(tail), 1);
    for (int h = 0; h < HALVES; h++) {
        mbarrier_init(AT(output_full[h]), 4);
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
    clear_upper(sm);
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if (warp < WARPS) {
        if (HALVES == 2)
            registers_take<WORKER_REGISTERS>();
        struct worker w = make_worker(warp);
        for (int n = blockIdx.x; n < p.items; n += gridDim.x)
            compute_item(p.a, sm, make_item(p.a, n), w);
        return;
    }
    if (HALVES == 2)
        registers_release<LOADER_REGISTERS>();
    struct ring ring = {0, 0};
    int tails = 0, phase = 0;
    for (int n = blockIdx.x; n < p.items; n += gridDim.x) {
        if (warp == WARPS)
            load_item(p, sm, make_item(p.a, n), ring, tails);
        if (warp == WARPS + 1)
            store_item(p, sm, make_item(p.a, n), phase);
    }
}
