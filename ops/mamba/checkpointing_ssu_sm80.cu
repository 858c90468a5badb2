/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: the state's bytes are what costs, so the tokens go through the tensor cores. With R(t) the sum of A delta up
 * to token t, and j over the live tokens and the new ones up to t,
 *
 *     y(t) = exp(R(t)) C(t) . S + sum over j of exp(R(t) - R(j)) delta(j) (C(t) . B(j)) x(j)
 *
 * A block has ROWS rows of a head, a warp 16, as rows of its products; columns are outputs. A lane holds eight numbers that lie
 * together of rows g and g + 8, which as they lie are operands of two steps of a product over state_dim; the operands beside them
 * are read in the same order. Products of x are in tf32, where x and B are exact and the other factor is two parts.
 *
 *   T          f16, bf16
 *   STATE      dtype of states
 *   STATE_DIM  a multiple of 32, at most 256
 *   SAME       1: STATE is T
 *   TILES      1: at most eight tokens of a sequence; 2: sixteen
 *   RANDOM     rounds of Philox, for states, of 16 bits, that are rounded at random; 0: to nearest
 *   ACCESS     elements of an access: 8, or 1 where addresses are odd
 * Grid: head_dim / ROWS, num_heads, num_sequences; 128 threads. */
#define PIECE 8
#include "checkpointing_ssu_tokens.cuh"
#include "pdl.cuh"
#include "prefetch.cuh"

/* What tf32 leaves of a number. */
DEVICE float below_tf32(float x) { return x - __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

/* The warp's rows of the state, on their way to shared memory. */
DEVICE void begin_state(struct shared &shared, const struct checkpointing_ssu_args &a, const STATE *from)
{
    enum { EACH = ACCESS > 1 ? 16 / sizeof(STATE) : 1, PER_ROW = STATE_DIM / EACH, STEP = PER_ROW < 32 ? 32 / PER_ROW : 1 };
    struct lane l = this_lane();
    int lane = threadIdx.x % 32, first = lane / PER_ROW, left = (int)a.head_dim - (int)blockIdx.x * ROWS - 16 * l.warp - first;
    STATE *to = &shared.state[16 * l.warp + first][lane % PER_ROW * EACH];
    uint32_t address = shared_address(to);
    from += first * a.state.dim + lane % PER_ROW * EACH;
#pragma unroll
    for (int row = 0; row < 16; row += STEP, from += STEP * a.state.dim)
#pragma unroll
        for (int n = 0; n < PER_ROW; n += 32) {
            bool exists = row < left && first < STEP && (STEP > 1 || n + lane < PER_ROW);
            if (ACCESS == 1 && exists)
                to[row * STATE_ROW + n] = from[n];
            else if (exists)
                cp_async_16(address + (row * STATE_ROW + n * EACH) * sizeof(STATE), from + n * EACH, 16);
        }
}

DEVICE vec<STATE, 8> state_piece(const struct shared &shared, const struct lane &l, int half, int q)
{
    return load_vec<8>(&shared.state[16 * l.warp + l.g + 8 * half][32 * q + 8 * l.t]);
}

/* S . C of the lane's rows for outputs 2t and 2t + 1. */
DEVICE void multiply_state(float (&y)[TILES][4], const struct shared &shared, const struct pieces (&c)[TILES])
{
    struct lane l = this_lane();
#pragma unroll
    for (int q = 0; q < PIECES; q++) {
#if SAME
        vec_elements<uint32_t, 4> up, down;
        up.all.bits = state_piece(shared, l, 0, q).bits;
        down.all.bits = state_piece(shared, l, 1, q).bits;
#else
        float up[8], down[8];
        widen(up, state_piece(shared, l, 0, q));
        widen(down, state_piece(shared, l, 1, q));
#endif
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#if SAME
            vec_elements<uint32_t, 4> right;
            right.all.bits = c[tile].at[q].bits;
#pragma unroll
            for (int k = 0; k < 4; k += 2) {
                uint32_t left[4] = {up.at[k], down.at[k], up.at[k + 1], down.at[k + 1]}, two[2] = {right.at[k], right.at[k + 1]};
                mma_m16n8k16(y[tile], left, two, T());
            }
#else
            float right[8];
            widen(right, c[tile].at[q]);
#pragma unroll
            for (int k = 0; k < 8; k += 2) {
                float left[4] = {up[k], down[k], up[k + 1], down[k + 1]}, two[2] = {right[k], right[k + 1]};
                mma_m16n8k8(y[tile], left, two);
                if (sizeof(STATE) == 4) {
                    float low[4] = {below_tf32(left[0]), below_tf32(left[1]), below_tf32(left[2]), below_tf32(left[3])};
                    mma_m16n8k8(y[tile], low, two);
                }
            }
#endif
        }
    }
}

/* The other part of the outputs' sum. */
DEVICE void add_tokens(float (&y)[TILES][4], const struct shared &shared, const struct ring_sequence &s)
{
    struct lane l = this_lane();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        float2 reach = *(const float2 *)&shared.reach[WINDOW + 8 * tile + 2 * l.t];
        float decay[2] = {expf(reach.x), expf(reach.y)};
#pragma unroll
        for (int e = 0; e < 4; e++)
            y[tile][e] *= decay[e % 2];
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (step % 2 * 8 >= (step < 2 ? s.live : s.count))
            continue;
        float left[4];
        find_inputs(left, shared, step);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const float *weight = &shared.weight[8 * step + l.t][8 * tile + l.g];
            float two[2] = {weight[0], weight[4 * WEIGHT_ROW]}, low[2] = {below_tf32(two[0]), below_tf32(two[1])};
            mma_m16n8k8(y[tile], left, low);
            mma_m16n8k8(y[tile], left, two);
        }
    }
}

/* Of rows g and g + 8 and tokens 2t and 2t + 1. */
DEVICE void store_outputs(const float (&y)[TILES][4], const struct shared &shared, const struct checkpointing_ssu_args &a,
                          const struct ring_sequence &s)
{
    struct lane l = this_lane();
    T *first = (T *)a.out.data + token_place(a.out, s, 2 * l.t, blockIdx.y) + head_row(l, 0);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++, first += 8 * a.out.token)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int token = 8 * tile + 2 * l.t + e % 2, half = e / 2;
            if (token >= s.count || head_row(l, half) >= a.head_dim)
                continue;
            float gate = to_float(shared.z[token][16 * l.warp + l.g + 8 * half]), value = y[tile][e];
            value = a.z.data ? __fdividef(value * gate, 1.0f + expf(-gate)) : value;
            from_float((e % 2 ? first + a.out.token : first) + 8 * half, value);
        }
}

/* The state behind the live tokens, 32 numbers of the warp's rows at a time. */
DEVICE void store_state(const struct shared &shared, const struct checkpointing_ssu_args &a, const struct ring_sequence &s,
                        STATE *to)
{
    struct lane l = this_lane();
    uint64_t key = RANDOM ? rounding_key(&a.seed) : 0;
    float decay = expf(shared.reach[WINDOW - 1]), left[2][4], low[2][4];
#pragma unroll
    for (int step = 0; step < 2; step++) {
        find_inputs(left[step], shared, step);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            left[step][i] *= shared.kept[8 * step + i / 2 * 4 + l.t];
            low[step][i] = below_tf32(left[step][i]);
        }
    }
#pragma unroll
    for (int q = 0; q < PIECES; q++) {
        float row[2][8], sum[4];
        widen(row[0], state_piece(shared, l, 0, q));
        widen(row[1], state_piece(shared, l, 1, q));
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                sum[e] = row[e / 2][2 * i + e % 2] * decay;
#pragma unroll
            for (int step = 0; step < 2 && 8 * step < s.live; step++) {
                const T *b = &shared.B[8 * step + l.t][32 * q + 8 * i + l.g];
                float two[2] = {to_float(b[0]), to_float(b[4 * B_ROW])};
                mma_m16n8k8(sum, low[step], two);
                mma_m16n8k8(sum, left[step], two);
            }
#pragma unroll
            for (int e = 0; e < 4; e++)
                row[e / 2][2 * i + e % 2] = sum[e];
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int64_t read = RANDOM ? ((s.row * a.num_heads + blockIdx.y) * a.head_dim + head_row(l, half)) * STATE_DIM : 0;
            int number = 32 * q + 8 * l.t;
            if (head_row(l, half) < a.head_dim)
                store_piece(to + 8 * half * a.state.dim + number, row[half], key, read + number);
        }
    }
}

DEVICE void store_zeros(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int64_t first)
{
    int row = blockIdx.x * ROWS + threadIdx.x % ROWS;
    for (int64_t i = first + threadIdx.x / ROWS; i < s.all && row < a.head_dim; i += THREADS / ROWS)
        from_float((T *)a.out.data + token_place(a.out, s, i, blockIdx.y) + row, 0.0f);
}

/* What a later block has for itself, and the first of a group for all of it: its state and the lines of its tokens. By a warp. */
DEVICE void fetch_block_ahead(const struct checkpointing_ssu_args &a)
{
    uint32_t at = blockIdx.z * gridDim.y + blockIdx.y, sequence = (at + a.ahead.distance) / gridDim.y;
    if (at >= a.ahead.blocks)
        return;
    int head = at + a.ahead.distance - sequence * gridDim.y, lane = threadIdx.x % 32, first = blockIdx.x * ROWS;
    struct ring_sequence s = ring_sequence(&a, sequence);
    if (s.row < 0)
        return;
    if (lane == 0)
        bulk_prefetch((const STATE *)a.state.data + s.row * a.state.row + head * a.state.head + first * STATE_DIM,
                      min(ROWS, (int)a.head_dim - first) * STATE_DIM * sizeof(STATE));
    if (lane < s.count) {
        int64_t x = sequence * a.x.sequence + (s.begin + lane) * a.x.token + head * a.x.head + first;
        prefetch_l2((const T *)a.x.data + x);
        if (a.z.data)
            prefetch_l2((const T *)a.z.data + sequence * a.z.sequence + (s.begin + lane) * a.z.token + head * a.z.head + first);
    }
    if (lane < s.live)
        prefetch_l2(ring_at(a.x_cache, a, s, head, lane) + first);
}

/* Of a multiprocessor: as many as there are registers and shared memory for. */
enum { LARGE = __CUDA_ARCH__ >= 900 && SM_THREADS == 2048, SMALL = sizeof(struct shared) <= 32000 && TILES == 1 };
enum { BLOCKS = sizeof(struct shared) > 45000 ? 2 : LARGE ? 5 + SMALL : 4 };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    checkpointing_ssu_sm80(const __grid_constant__ struct checkpointing_ssu_args a)
{
    extern __shared__ __align__(16) unsigned char memory[];
    struct shared &shared = *(struct shared *)memory;
    struct lane l = this_lane();
    int group = (int)((uint64_t)blockIdx.y * a.group_factor >> 32);
    pdl_wait();
    pdl_launch();
    struct ring_sequence s = ring_tokens(&a, blockIdx.z);
    if (s.row < 0 || s.all > s.count)
        store_zeros(a, s, s.row < 0 ? 0 : s.count);
    if (s.row < 0 || s.count <= 0)
        return;
    /* Nothing waits for where the ring begins that can be asked for without. */
    int32_t start = a.ring_start[s.row], accepted = a.accepted[s.row];
    STATE *rows = (STATE *)a.state.data + s.row * a.state.row + blockIdx.y * a.state.head +
                  (blockIdx.x * ROWS + 16 * l.warp) * a.state.dim;
    begin_state(shared, a, rows);
    struct pieces c[TILES] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
        if (l.g + 8 * tile < s.count)
            load_pieces(c[tile], (const T *)a.C.data + token_place(a.C, s, l.g + 8 * tile, group) + 8 * l.t);
    begin_rows(&shared.x[WINDOW], 8 * TILES, s.count, a,
               [&](int i) { return (const T *)a.x.data + token_place(a.x, s, i, blockIdx.y); });
    if (a.z.data)
        begin_rows(shared.z, 8 * TILES, s.count, a,
                   [&](int i) { return (const T *)a.z.data + token_place(a.z, s, i, blockIdx.y); });
    ring_has(&a, &s, start, accepted);
    bool full = ring_is_full(&a, &s);
    begin_rows(shared.x, WINDOW, s.live, a, [&](int i) { return ring_at(a.x_cache, a, s, blockIdx.y, i); });
    cp_async_commit();
    uint32_t skip = fetch_weight(a.D);
    if (l.role == 3)
        find_deltas(shared, a, s);
    float product[4] = {}, y[TILES][4] = {};
    if (multiplies(l, s))
        multiply_tokens(product, c, shared, a, s, group, full);
    __syncthreads();
    if (multiplies(l, s))
        store_weights(shared, product, meant(skip, a.D.wide), s);
    if (l.role == 2)
        fetch_block_ahead(a);
    cp_async_wait<0>();
    __syncwarp();
    append_inputs(shared, a, s);
    multiply_state(y, shared, c);
    __syncthreads();
    add_tokens(y, shared, s);
    store_outputs(y, shared, a, s);
    if (full)
        store_state(shared, a, s, rows + l.g * a.state.dim);
}
