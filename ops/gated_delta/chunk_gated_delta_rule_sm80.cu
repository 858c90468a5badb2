/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_80 that walks the chunks of a sequence with a head's state in registers. With the
 * tiles of gated_delta_tiles_sm80.cu, all of it transposed, values by tokens or keys:
 *
 *     E = beta V - known S K^T;   U = E + E T^T;   output = out S Q^T + U P^T;   S = end S + (update U) K
 *
 * A warp has 16 values and all keys. The operands a of all products come from its registers: S, E and U go from accumulators to
 * fragments in place, E and U as f16, whatever T is, each value divided by a unit. K and Q of the next chunk are copied from the
 * beginning of a chunk on, V and the tile once they are used.
 *
 *   T              f16, bf16
 *   HEAD_DIM       64, 128
 *   INITIAL, FINAL dtypes of states
 *   WARPS          4, 8: 16 values each
 *   KEPT           1: states are kept on the way
 * Grid: num_sequences * HEAD_DIM / (16 WARPS), num_heads; 32 WARPS threads. Dynamic shared memory: struct smem. */
#include "gated_delta_copies_sm80.cuh"
#include "gated_delta_state.cuh"
#include "pdl.cuh"

enum { THREADS = 32 * WARPS, SLICES = HEAD_DIM / (16 * WARPS), SLABS = HEAD_DIM / 64 };

struct smem {
    unsigned char keys[2][SLABS * SLAB_BYTES], queries[2][SLABS * SLAB_BYTES];
    unsigned char values[WARPS][CHUNK * 32]; /* of a row of 16 values, 16-byte piece c lies at c ^ (row / 4 % 2) */
    struct gated_delta_tile tile;
};
static_assert(sizeof(struct smem) == GATED_DELTA_SM80_SMEM(HEAD_DIM, WARPS), "the host counts on it");

/* What a thread walks. */
struct walk {
    int64_t left;                        /* tokens, from the chunk that is computed on */
    const T *k, *q, *v;                  /* of the chunk that is copied next: what the thread copies */
    const struct gated_delta_tile *tile; /* of that chunk */
    T *output;                           /* of the chunk that is computed: the thread's first values */
    int head, value;                     /* the warp's first one */
};

DEVICE struct walk make_walk(const struct gated_delta_sm80_args &args, int64_t sequence, int head)
{
    const struct gated_delta_args &a = args.a;
    int64_t token = sequence_begin(&a, sequence);
    int lane = lane_id(), value = (blockIdx.x % SLICES * WARPS + warp_id()) * 16;
    struct walk w;
    w.left = sequence_begin(&a, sequence + 1) - token;
    w.k = first_piece(a.k, token, head / a.k_group);
    w.q = first_piece(a.q, token, head / a.q_group);
    w.v = (const T *)a.v.data + (token + lane / 2) * a.v.token + head / a.v_group * a.v.head + value + lane % 2 * 8;
    w.tile = args.tiles + (int64_t)(head / args.sharers) * args.max_chunks + first_tile(a, sequence);
    w.output = (T *)a.output.data + (token + lane / 4) * a.output.token + head * a.output.head + value;
    w.output += lane % 4 / 2 * 4 + lane % 2 * 8;
    w.head = head;
    w.value = value;
    return w;
}

/* K and Q of the next chunk, of which there are `left` tokens or more. */
DEVICE void copy_keys(const struct gated_delta_args &a, struct smem *sm, struct walk &w, int64_t left, int stage)
{
    int length = (int)min((int64_t)CHUNK, left);
    copy_rows<THREADS>(shared_address(sm->keys[stage]), w.k, a.k.token, length);
    copy_rows<THREADS>(shared_address(sm->queries[stage]), w.q, a.q.token, length);
    cp_async_commit();
    w.k += CHUNK * a.k.token;
    w.q += CHUNK * a.q.token;
}

/* Its tile, and the warp's values. */
DEVICE void copy_values(const struct gated_delta_args &a, struct smem *sm, struct walk &w, int64_t left)
{
    enum { PIECES = sizeof(struct gated_delta_tile) / 16 };
    int row = lane_id() / 2, thread = threadIdx.x;
    uint32_t values = shared_address(sm->values[warp_id()]) + row * 32 + (lane_id() % 2 ^ row / 4 % 2) * 16;
    uint32_t to = shared_address(&sm->tile) + thread * 16;
#pragma unroll
    for (int i = 0; i < CHUNK; i += 16)
        cp_async_16_or_zero(values + i * 32, w.v + i * a.v.token, row + i < left);
#pragma unroll
    for (int i = 0; i < PIECES; i += THREADS)
        if (i + THREADS <= PIECES || thread + i < PIECES)
            cp_async_16(to + i * 16, (const unsigned char *)w.tile + (thread + i) * 16, 16);
    cp_async_commit();
    w.v += CHUNK * a.v.token;
    w.tile++;
}

/* V^T of a chunk, as fragments. */
DEVICE void load_values(uint32_t (&v)[16], uint32_t values)
{
    int row = lane_id() / 16 * 8 + lane_id() % 8, piece = lane_id() / 8 % 2;
#pragma unroll
    for (int k = 0; k < 4; k++)
        ldmatrix_x4_trans((uint32_t (&)[4])v[4 * k], values + (16 * k + row) * 32 + (piece ^ row / 4 % 2) * 16);
}

/* x += S M^T, of K or Q in slabs. */
DEVICE void multiply_state(float (&x)[32], const uint32_t (&state)[HEAD_DIM / 4], uint32_t slabs)
{
    uint32_t rows = at_rows(slabs);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            multiply_rows(x + 8 * i, state + 4 * k, rows, i, k);
}

/* x += E M^T, of T or P in strips of 16 columns, without those above the diagonal. */
DEVICE void multiply_matrix(float (&x)[32], const uint32_t (&e)[16], uint32_t matrix)
{
    int row = lane_id() % 8 + lane_id() / 16 * 8, piece = lane_id() / 8 % 2;
    uint32_t own = matrix + row * 32 + (piece ^ row / 4 % 2) * 16;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = k; i < 4; i++) {
            uint32_t b[4];
            ldmatrix_x4(b, own + 256 * k * (7 - k) + i * 512);
            multiply_16(x + 8 * i, e + 4 * k, b, f16());
        }
}

/* s += F K */
DEVICE void add_update(float (&s)[HEAD_DIM / 2], const uint32_t (&f)[16], uint32_t keys)
{
    uint32_t columns = at_slab(keys, lane_id() % 16, lane_id() / 16);
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 16; n++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, pieces_on(columns, n) + k * 16 * 128);
            multiply_16(s + 8 * n, f + 4 * k, b, T());
        }
}

/* Transposes, so that four values of a token leave as one. */
DEVICE void write_output(const struct gated_delta_args &a, struct walk &w, const float (&y)[32])
{
    bool odd = lane_id() % 2;
    T *to = w.output;
#pragma unroll
    for (int j = 0; j < 8; j++, to += 8 * a.output.token) {
        uint32_t low = transpose_8x8(pack2(T(), y[4 * j], y[4 * j + 1]));
        uint32_t high = transpose_8x8(pack2(T(), y[4 * j + 2], y[4 * j + 3]));
        uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
        if (8 * j + lane_id() / 4 < w.left)
            *(uint2 *)to = odd ? make_uint2(other, high) : make_uint2(low, other);
    }
    w.output = to;
}

/* Units of columns. */
DEVICE float2 units_at(const int8_t *exponents, int block, int pair)
{
    const int8_t *own = exponents + 8 * block + 2 * pair;
    return make_float2(__int_as_float((own[0] + 127) << 23), __int_as_float((own[1] + 127) << 23));
}

/* From output so far, for which f16 products follow, the units of rows and columns are taken; and given back. */
DEVICE void take_units(float (&y)[32], float2 rows, const int8_t *columns, int pair)
{
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        float2 column = units_at(columns, i / 4, pair);
        float row = over_unit(i / 2 % 2 ? rows.y : rows.x);
        y[i] = y[i] * row * over_unit(column.x);
        y[i + 1] = y[i + 1] * row * over_unit(column.y);
    }
}

DEVICE void give_units(float (&y)[32], float2 rows, const int8_t *columns, int pair)
{
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        float2 column = units_at(columns, i / 4, pair);
        float row = i / 2 % 2 ? rows.y : rows.x;
        y[i] = y[i] * row * column.x;
        y[i + 1] = y[i + 1] * row * column.y;
    }
}

/* One chunk, whose copies are there but for those of other threads. */
DEVICE void take_chunk(const struct gated_delta_args &a, struct smem *sm, float (&s)[HEAD_DIM / 2], struct walk &w, int stage)
{
    const struct gated_delta_gates *gates = &sm->tile.gates;
    uint32_t keys = shared_address(sm->keys[stage]), state[HEAD_DIM / 4], v[16], e[16];
    float x[32] = {}, y[32] = {};
    float2 factors[8];
    int pair = lane_id() % 4;
    int64_t left = w.left - CHUNK;
    __syncthreads();
    if (left > 0)
        copy_keys(a, sm, w, left, stage ^ 1);
    pack(state, s, T());
    multiply_state(x, state, keys);
    multiply_state(y, state, shared_address(sm->queries[stage]));
    load_values(v, shared_address(sm->values[warp_id()]));
    fetch_factors(factors, gates->known, pair);
    subtract_known(x, v, factors, gates->beta, pair);
    float2 unit = take_units(x);
    pack(e, x, f16());
    multiply_matrix(x, e, shared_address(sm->tile.t));
    pack(e, x, f16());
    scale_columns(y, gates->output, pair);
    take_units(y, unit, gates->unit, pair);
    multiply_matrix(y, e, shared_address(sm->tile.p));
    give_units(y, unit, gates->unit, pair);
    fetch_factors(factors, gates->update, pair);
    float end = gates->end[0];
    __syncthreads();
    if (left > 0)
        copy_values(a, sm, w, left);
    scale_update(e, x, factors, unit);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; i++)
        s[i] *= end;
    add_update(s, e, keys);
    write_output(a, w, y);
    w.left = left;
}

/* The thread's first elements of a state, in its pool. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, const struct walk &w)
{
    return row * pool.row + w.head * pool.head + (w.value + lane_id() / 4) * pool.line + lane_id() % 4 * 2;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    chunk_gated_delta_rule_sm80(const __grid_constant__ struct gated_delta_sm80_args args)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    const struct gated_delta_args &a = args.a;
    float s[HEAD_DIM / 2] = {};
    pdl_wait();
    pdl_launch();
    int64_t sequence = blockIdx.x / SLICES, row = state_row(a.initial_rows, sequence), done = 0;
    struct walk w = make_walk(args, sequence, blockIdx.y);
    if (w.left > 0) {
        copy_keys(a, sm, w, w.left, 0);
        copy_values(a, sm, w, w.left);
    }
    if (a.initial.data && row >= 0)
        load_rows(s, (const INITIAL *)a.initial.data + place(a.initial, row, w), a.initial.line);
#pragma unroll 1
    for (int stage = 0; w.left > 0; stage ^= 1) {
        cp_async_wait<0>();
        take_chunk(a, sm, s, w, stage);
        done += CHUNK;
#if KEPT
        int64_t kept = w.left >= 0 ? kept_row(&a, sequence, done) : -1;
        if (kept >= 0)
            store_rows(s, (FINAL *)a.kept.data + place(a.kept, kept, w), a.kept.line);
#endif
    }
    row = state_row(a.final_rows, sequence);
    if (a.final.data && row >= 0)
        store_rows(s, (FINAL *)a.final.data + place(a.final, row, w), a.final.line);
}
