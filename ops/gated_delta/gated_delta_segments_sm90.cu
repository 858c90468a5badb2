/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_90a that tells what a segment that others follow does to the state: from S it
 * makes S through + after. The rows of a state are independent, so that the rows of `after` are walked from those of the
 * initial state or from 0, and the rows of `through`, with values of 0, from those of the identity. As in
 * chunk_gated_delta_rule_sm90.cu, without queries and output.
 *
 *   T            f16, bf16
 *   INITIAL      dtype of states
 *   DECAYS       0: alpha is 1, and q and k are not normalised
 *   F16_MATRICES 1: T, E and U are f16, E in units; beta is 1
 * Grid: 4 (halves of `after`, of `through`), num_heads, cuts at most; 160 threads, of which one warp loads. Dynamic shared
 * memory: struct smem. */
#include "gated_delta_state_sm90.cuh"

struct stage {
    unsigned char keys[2 * SLAB_BYTES], t[MATRIX_BYTES], values[SLAB_BYTES];
};

struct smem {
    struct stage stage[STAGES];
    struct gated_delta_gates gates[STAGES];
    uint64_t full[STAGES], empty[STAGES];
};
static_assert(sizeof(struct smem) == GATED_DELTA_SEGMENTS_SMEM, "the host counts on it");

/* What a block does. */
struct part {
    struct gated_delta_segment segment;
    int head, half;
    bool through;
};

DEVICE void load_chunks(const struct gated_delta_sm90_args &p, struct smem *sm, const struct part &i)
{
    const struct gated_delta_tile *tile = tile_at(p, i.head / p.sharers, i.segment.tile);
    struct ring ring = {0, 0};
    int k_head = i.head / p.a.k_group, v_head = i.head / p.a.v_group;
#pragma unroll 1
    for (int c = 0; c < p.segment_chunks; c++, tile++, advance<STAGES>(ring)) {
        int s = ring.stage, token = i.segment.begin + c * CHUNK;
        struct stage *stage = &sm->stage[s];
        uint32_t full = AT(full[s]);
        mbarrier_wait(AT(empty[s]), ring.phase ^ 1);
        mbarrier_arrive_expect(full, (i.through ? 2 : 3) * SLAB_BYTES + sizeof tile->gates + sizeof tile->t);
        tensor_load_4d(shared_address(stage->keys), &p.k, full, 0, token, 0, k_head);
        if (!i.through)
            tensor_load_4d(shared_address(stage->values), &p.v, full, 0, token, i.half, v_head);
        bulk_load(AT(gates[s]), &tile->gates, sizeof tile->gates, full);
        load_matrix(stage->t, tile->t, full);
    }
}

struct worker {
    struct ring ring;
    struct place place;
    int last_stage;
    uint32_t v[16];
};

DEVICE void fetch(struct worker &w, struct smem *sm)
{
    int s = w.ring.stage;
    mbarrier_wait(AT(full[s]), w.ring.phase);
    load_values(w.v, AT(stage[s].values[0]), w.place);
}

DEVICE void take_chunk(struct worker &w, struct smem *sm, float (&s)[64], uint32_t (&a)[32], bool first, bool last)
{
    const struct gated_delta_gates *gates = &sm->gates[w.ring.stage];
    uint32_t stage = AT(stage[w.ring.stage]);
    uint64_t keys = wgmma_describe(stage, 0, 1024), key_columns = wgmma_describe(stage, SLAB_BYTES, 1024);
    uint64_t t = wgmma_describe_narrow(stage + 2 * SLAB_BYTES, 256);
    float x[32], end = gates->end[0];
    uint32_t e[16];
    float2 known[8], update[8];
    multiply_keys(x, a, keys);
    wgmma_wait<1>();
    mbarrier_arrive_if(AT(empty[w.last_stage]), !first);
    fetch_known(known, gates, w.place);
    wgmma_wait<0>();
    wgmma_pin(x);
    float2 unit = make_e(x, e, w.v, known, gates->beta, w.place);
    multiply_matrix(x, e, t, true);
    wgmma_wait<1>();
    fetch_update(update, gates, w.place);
#pragma unroll
    for (int i = 0; DECAYS && i < 64; i++)
        s[i] *= end;
    wgmma_wait<0>();
    wgmma_pin(x);
    scale_update(e, x, update, unit);
    add_update(s, e, key_columns);
    w.last_stage = w.ring.stage;
    advance<STAGES>(w.ring);
    if (!last)
        fetch(w, sm);
    __syncwarp(); /* as in gated_delta_walk_sm90.cuh */
    wgmma_wait<0>();
    wgmma_pin(s);
    pack(a, s, T());
}

DEVICE void begin_state(const struct gated_delta_sm90_args &p, float (&s)[64], const struct part &i, const struct place &place)
{
    const struct state_pool &pool = p.a.initial;
    int64_t row = state_row(p.a.initial_rows, i.segment.sequence);
    if (i.through) {
#pragma unroll
        for (int j = 0; j < 64; j++)
            s[j] = j / 4 * 8 + 2 * place.pair + j % 2 == i.half * 64 + place.row + j / 2 % 2 * 8 ? 1.0f : 0.0f;
    } else if (!i.segment.first) {
        if (pool.data && row >= 0)
            load_state(s, (const INITIAL *)pool.data + row * pool.row + i.head * pool.head + i.half * 64 * pool.line, pool.line,
                       place);
        store_state(s, state_at(p.through, p, i.segment.cut, i.head) + i.half * 64 * HEAD_DIM, HEAD_DIM, place);
    }
}

DEVICE void walk_chunks(const struct gated_delta_sm90_args &p, struct smem *sm, const struct part &i)
{
    float s[64] = {};
    uint32_t fragments[32];
    struct worker w;
    w.ring = {0, 0};
    w.place = make_place();
    w.last_stage = 0;
    begin_state(p, s, i, w.place);
    fetch(w, sm);
    pack(fragments, s, T());
#pragma unroll 1
    for (int c = 0; c < p.segment_chunks; c++)
        take_chunk(w, sm, s, fragments, c == 0, c + 1 == p.segment_chunks);
    store_state(s, state_at(i.through ? p.through : p.after, p, i.segment.cut, i.head) + i.half * 64 * HEAD_DIM, HEAD_DIM,
                w.place);
}

extern "C" __global__ void __launch_bounds__(160, 2)
    gated_delta_segments_sm90(const __grid_constant__ struct gated_delta_sm90_args p)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    int warp = warp_id();
    struct part i;
    i.half = blockIdx.x % 2;
    i.through = blockIdx.x / 2;
    i.head = blockIdx.y;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(AT(full[s]), 1);
            mbarrier_init(AT(empty[s]), 32 * WARPS);
        }
        mbarrier_init_fence();
        tensor_map_prefetch(&p.k);
        tensor_map_prefetch(&p.v);
    }
    for (int s = 0; s < STAGES; s++) {
        clear_upper(sm->stage[s].t, threadIdx.x, blockDim.x);
        for (int n = threadIdx.x; n < SLAB_BYTES / 16; n += blockDim.x)
            *(uint4 *)(sm->stage[s].values + n * 16) = make_uint4(0, 0, 0, 0);
    }
    shared_async_fence();
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if ((int)blockIdx.z >= p.schedule->num_cuts)
        return;
    i.segment = p.segments[blockIdx.z];
    if (i.through && !i.segment.first)
        return;
    if (warp < WARPS)
        walk_chunks(p, sm, i);
    else if (lane_id() == 0)
        load_chunks(p, sm, i);
}
