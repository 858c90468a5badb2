/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: the state's bytes are what costs, so the tokens go through the tensor cores. With R(t) the sum of A delta up
 * to token t, and j over the live tokens and the new ones up to t,
 *
 *     y(t) = exp(R(t)) C(t) . S + sum over j of exp(R(t) - R(j)) delta(j) (C(t) . B(j)) x(j)
 *
 * A block has ROWS rows of a head, a warp 16, as rows of its products; columns are outputs. A lane holds eight numbers that lie
 * together of two rows, which as they lie are operands of two steps of a product over state_dim; the operands beside them
 * are read in the same order. Products of x are in tf32, where x and B are exact and the other factor is two parts; with B, for
 * states of bf16, in bf16, in two parts as well.
 *
 *   T          f16, bf16
 *   STATE      dtype of states
 *   STATE_DIM  a multiple of 32, at most 256
 *   SAME       1: STATE is T
 *   TILES      1: at most eight tokens of a sequence; 2: sixteen
 *   RANDOM     rounds of Philox, for states, of 16 bits, that are rounded at random; 0: to nearest
 *   ACCESS     elements of an access: 8, or 1 where addresses are odd
 *   HEADS      of a block, one after the other: what depends on a group only, and where things are, is found once; or 1
 *   STAGES     heads on their way to shared memory
 * Grid: head_dim / ROWS, heads of all groups by HEADS, num_sequences with those from `whole` on twice; RING_THREADS. */
#define PIECE 8
#include "checkpointing_ssu_state.cuh"
#include "activation.cuh"
#include "barrier.cuh"
#include "pdl.cuh"

/* The other part of the outputs' sum. */
DEVICE void add_tokens(float (&y)[TILES][4], const uint32_t (&x)[STEPS + TILES][2], const struct head_tokens &tokens,
                       const struct ring_sequence &s, const struct lane &l)
{
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        float2 decay = *(const float2 *)&tokens.decay[8 * tile + 2 * l.t];
#pragma unroll
        for (int e = 0; e < 4; e++)
            y[tile][e] *= e % 2 ? decay.y : decay.x;
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (step % 2 * 8 >= (step < 2 ? s.live : s.count))
            continue;
        float left[4];
        widen_inputs(left, x[step]);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const float *weight = &tokens.weight[8 * step + 2 * l.t][8 * tile + l.g];
            float two[2] = {weight[0], weight[WEIGHT_ROW]}, low[2] = {below_tf32(two[0]), below_tf32(two[1])};
            mma_m16n8k8(y[tile], left, low);
            mma_m16n8k8(y[tile], left, two);
        }
    }
}

/* Of the lane's rows and tokens 2t and 2t + 1. */
DEVICE void store_outputs(const float (&y)[TILES][4], const uint32_t (&x)[STEPS + TILES][2], struct lane_rows &rows,
                          const struct checkpointing_ssu_args &a, const struct ring_sequence &s, const struct lane &l)
{
    int left = (int)a.head_dim - head_row(l, 0);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int token = 0; token < 2; token++) {
            float up = y[tile][token], down = y[tile][2 + token];
            T *to = rows.out + (8 * tile + token) * a.out.token;
            if (a.z.data) {
                float2 gates = unpack2(T(), x[STEPS + tile][token]);
                up = times_sigmoid(up * gates.x, gates.x);
                down = times_sigmoid(down * gates.y, gates.y);
            }
            if (8 * tile + 2 * l.t + token >= s.count || left <= 0)
                continue;
            if (ACCESS > 1) {
                *(uint32_t *)to = pack2(T(), up, down);
                continue;
            }
            from_float(to, up);
            if (left > 1)
                from_float(to + 1, down);
        }
    rows.out += a.out.head;
}

/* Two parts of bf16 are finer than what a state of T, bf16, is rounded to, and one product of theirs has all live tokens; f16 has
 * not the range for it. */
DEVICE constexpr bool keeps_halves(bf16) { return SAME; }
DEVICE constexpr bool keeps_halves(f16) { return false; }

/* x of the live tokens, by what of it the state behind them keeps: an operand in two parts, of tf32 or bf16. */
struct kept_inputs {
    float wide[2][2][4]; /* of each eight tokens */
    uint32_t half[2][4];
};

DEVICE struct kept_inputs keep_inputs(const uint32_t (&x)[STEPS + TILES][2], const struct head_tokens &tokens,
                                      const struct lane &l)
{
    struct kept_inputs k;
#pragma unroll
    for (int step = 0; step < 2; step++) {
        float2 kept = *(const float2 *)&tokens.kept[8 * step + 2 * l.t];
        float(&high)[4] = k.wide[0][step];
        widen_inputs(high, x[step]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            high[i] *= i < 2 ? kept.x : kept.y;
            k.wide[1][step][i] = below_tf32(high[i]);
        }
#pragma unroll
        for (int row = 0; row < 2; row++) {
            uint32_t half = pack2(T(), high[row], high[2 + row]);
            float2 part = unpack2(T(), half);
            k.half[0][2 * step + row] = half;
            k.half[1][2 * step + row] = pack2(T(), high[row] - part.x, high[2 + row] - part.y);
        }
    }
    return k;
}

/* Plus these by B, of sixteen numbers: b has eight of the first eight tokens and of the others, then the other eight. */
DEVICE void add_kept(float (&sum)[2][4], const struct kept_inputs &k, const uint32_t (&b)[4])
{
#pragma unroll
    for (int n = 0; n < 4; n++) {
        if (keeps_halves(T())) {
            uint32_t two[2] = {b[n & 2], b[(n & 2) + 1]};
            mma_m16n8k16(sum[n / 2], k.half[1 - n % 2], two, T());
            continue;
        }
        float2 wide = unpack2(T(), b[n]);
        float two[2] = {wide.x, wide.y};
        mma_m16n8k8(sum[n / 2], k.wide[1][n % 2], two);
        mma_m16n8k8(sum[n / 2], k.wide[0][n % 2], two);
    }
}

/* The state behind the live tokens, 32 numbers of the warp's rows at a time. */
DEVICE void store_state(const struct shared &shared, const struct stage &stage, const uint32_t (&x)[STEPS + TILES][2],
                        const struct head_tokens &tokens, const struct checkpointing_ssu_args &a, const struct ring_sequence &s,
                        int head, const struct lane &l)
{
    uint64_t key = RANDOM ? rounding_key(&a.seed) : 0;
    STATE *to = (STATE *)a.state.data + s.row * a.state.row + head * a.state.head + head_row(l, 0) * a.state.dim + 8 * l.t;
    float decay = tokens.whole;
    struct kept_inputs kept = keep_inputs(x, tokens, l);
#pragma unroll (SAME ? PIECES : sizeof(STATE) == 4 ? 1 : 2)
    for (int q = 0; q < PIECES; q++) {
        float row[2][8], sum[2][4];
        widen(row[0], state_piece(stage, l, 0, q));
        widen(row[1], state_piece(stage, l, 1, q));
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            uint32_t four[4];
            ldmatrix_x4_trans(four, shared_address(&shared.B[l.at % 16][32 * q + 8 * i + l.at / 16 * 8]));
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[e / 4][e % 4] = row[e % 4 / 2][2 * i + e / 4 * 2 + e % 2] * decay;
            add_kept(sum, kept, four);
#pragma unroll
            for (int e = 0; e < 8; e++)
                row[e % 4 / 2][2 * i + e / 4 * 2 + e % 2] = sum[e / 4][e % 4];
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int64_t read = RANDOM ? ((s.row * a.num_heads + head) * a.head_dim + head_row(l, half)) * STATE_DIM : 0;
            if (head_row(l, half) < a.head_dim)
                store_piece(to + half * a.state.dim + 32 * q, row[half], key, read + 32 * q + 8 * l.t);
        }
    }
}

DEVICE void store_zeros(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int64_t first, int head)
{
    int row = blockIdx.x * ROWS + threadIdx.x % ROWS;
    for (int64_t i = first + threadIdx.x / ROWS; i < s.all && row < a.head_dim; i += THREADS / ROWS)
        from_float((T *)a.out.data + token_place(a.out, s, i, head) + row, 0.0f);
}

/* The heads of a block, of one group. */
struct heads {
    int sequence, group, first, count;
};

DEVICE struct heads block_heads(const struct checkpointing_ssu_args &a)
{
    int group = (int)((uint64_t)blockIdx.y * a.group_factor >> 32), before = (blockIdx.y - group * a.group_blocks) * HEADS;
    int sequence = blockIdx.z, most = HEADS, half = sequence - a.whole;
    if (HEADS > 1 && half >= 0) {
        most = HEADS / 2;
        sequence = a.whole + half / 2;
        before += half % 2 * most;
    }
    struct heads h = {sequence, group, group * a.group_heads + before, min(most, a.group_heads - before)};
    return h;
}

/* New ones to the ring, by the first warp that has them of one block of the group. */
DEVICE void append_tokens(const struct pieces (&b)[2], const struct checkpointing_ssu_args &a, const struct ring_sequence &s,
                          const struct heads &heads, const struct lane &l)
{
    if (l.role == 1 && blockIdx.x == 0 && heads.first == heads.group * a.group_heads)
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (l.g + 8 * half < s.count)
#pragma unroll
                for (int q = 0; q < PIECES; q++)
                    store_vec_by<ACCESS>(ring_at(a.B_cache, a, s, heads.group, s.live + l.g + 8 * half) + 32 * q + 8 * l.t,
                                         b[half].at[q]);
}

/* What tokens weigh in all outputs of the block. Of a single head nobody waits here for the other warps. */
DEVICE void weigh_tokens(struct shared &shared, const struct warp_tokens &tokens, const struct pieces (&c)[TILES],
                         const struct checkpointing_ssu_args &a, const struct ring_sequence &s, const struct heads &heads)
{
    struct lane l = this_lane();
    struct head_tokens &own = shared.head[own_head(l)];
    struct token_reach reach = {};
    float product[4] = {};
    bool keeps = HEADS > 1 || l.role == 1;
    if (has_head(l, heads.count))
        reach = find_reach(own, tokens.delta, a, s, keeps, l);
    if (multiplies(l, s)) {
        multiply_tokens(product, tokens.b, c, l);
        if (HEADS == 1)
            find_warp_weights(own, product, reach, meant(tokens.delta.skip, a.D.wide), s, l);
        else
#pragma unroll
            for (int e = 0; e < 4; e++)
                shared.product[(l.role % 2 ? WINDOW : 0) + l.g + e / 2 * 8][l.role / 2 * 8 + 2 * l.t + e % 2] = product[e];
        if (l.role == 0 && ring_is_full(&a, &s))
            keep_tokens(shared, tokens.b, l);
        if (HEADS > 1)
            append_tokens(tokens.b, a, s, heads, l);
    }
    if (HEADS == 1) {
        named_barrier_arrive(1, THREADS); /* none waits for what follows */
        if (multiplies(l, s))
            append_tokens(tokens.b, a, s, heads, l);
    }
    if (has_head(l, heads.count) && keeps && blockIdx.x == 0 && l.at >= WINDOW && l.at - WINDOW < s.count)
        *delta_at(a, s, heads.first + own_head(l), s.live + l.at - WINDOW) = reach.delta;
    if (HEADS == 1)
        return;
    __syncthreads();
    if (has_head(l, heads.count))
        find_weights(own, shared, s, l);
    __syncthreads();
}

/* All of a head that comes from memory, once it is known where the ring begins. */
DEVICE void begin_head(uint32_t stage, const STATE *state, struct lane_rows &rows, const struct checkpointing_ssu_args &a,
                       const struct lane &l)
{
    begin_state(stage, state, a, l);
    begin_new_inputs(stage, rows, l);
    begin_live_inputs(stage, rows, a, l);
}

/* What is asked for is there soon. Of a single head the state is multiplied while its tokens are on their way. */
DEVICE void serve_heads(struct shared &shared, uint32_t base, const STATE *state, struct lane_rows &rows,
                        const struct warp_tokens &tokens, const struct pieces (&c)[TILES],
                        const struct checkpointing_ssu_args &a, const struct ring_sequence &s, const struct heads &heads)
{
    struct lane l = this_lane();
    bool full = ring_is_full(&a, &s);
#if HEADS == 1
    float y[TILES][4] = {};
    uint32_t x[STEPS + TILES][2];
    cp_async_wait<1>();
    __syncwarp();
    multiply_state(y, shared.stage[0], c, l);
    cp_async_wait<0>();
    __syncwarp();
    append_inputs(shared.stage[0], rows, a, l);
    find_inputs(x, shared.stage[0], l);
    named_barrier_sync(1, THREADS);
    add_tokens(y, x, shared.head[0], s, l);
    store_outputs(y, x, rows, a, s, l);
    if (full)
        store_state(shared, shared.stage[0], x, shared.head[0], a, s, heads.first, l);
#else
    if (STAGES > 1) {
        if (heads.count > 1)
            begin_head(base + sizeof(struct stage), state += a.state.head, rows, a, l);
        cp_async_commit();
    }
    weigh_tokens(shared, tokens, c, a, s, heads);
#pragma unroll 1
    for (int i = 0; i < heads.count; i++) {
        struct stage &stage = shared.stage[i % STAGES];
        struct lane l = this_lane();
        float y[TILES][4] = {};
        uint32_t x[STEPS + TILES][2];
        cp_async_wait<STAGES - 1>();
        __syncwarp();
        append_inputs(stage, rows, a, l);
        find_inputs(x, stage, l);
        multiply_state(y, stage, c, l);
        if (full)
            store_state(shared, stage, x, shared.head[i], a, s, heads.first + i, l);
        __syncwarp();
        if (i + STAGES < heads.count)
            begin_head(base + i % STAGES * sizeof stage, state += a.state.head, rows, a, l);
        cp_async_commit();
        add_tokens(y, x, shared.head[i], s, l);
        store_outputs(y, x, rows, a, s, l);
    }
#endif
}

/* Behind the states of a multiprocessor's blocks what weighs tokens comes late. With two heads on their way it may. */
enum { TOKENS_FIRST = HEADS > 1 && STAGES == 1 };

/* Of a multiprocessor: as many as there are registers and shared memory for. */
enum { ROOM = __CUDA_ARCH__ >= 900 && SM_THREADS == 2048 ? 233000 : 100000, FIT = ROOM / (sizeof(struct shared) + 1024) };
enum { SMALL = TILES * PIECES <= 4 && !RANDOM, LARGE = TILES * PIECES > 8 };
enum { MOST = LARGE ? 2 : HEADS == 1 ? 6 - 2 * TILES : 3 + SMALL, BLOCKS = FIT > MOST ? MOST : FIT > 1 ? FIT : 1 };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    checkpointing_ssu_sm80(const __grid_constant__ struct checkpointing_ssu_args a)
{
    extern __shared__ __align__(16) unsigned char memory[];
    struct shared &shared = *(struct shared *)memory;
    struct lane l = this_lane();
    struct heads heads = block_heads(a);
    uint32_t base = shared_address(memory);
    forget(base);
    pdl_wait();
    pdl_launch();
    struct ring_sequence s = ring_tokens(&a, heads.sequence);
    if (s.row < 0 || s.all > s.count)
        for (int i = 0; i < heads.count; i++)
            store_zeros(a, s, s.row < 0 ? 0 : s.count, heads.first + i);
    if (s.row < 0 || s.count <= 0 || heads.count <= 0)
        return;
    /* Nothing waits for where the ring begins that can be asked for without. Lanes ask for one or the other: a number that all
     * lanes load would go to a uniform register, for which the warp waits at once. */
    int32_t ring = (l.at % 2 ? a.accepted : a.ring_start)[s.row];
    const STATE *state = (const STATE *)a.state.data + s.row * a.state.row + heads.first * a.state.head +
                         (blockIdx.x * ROWS + 16 * l.warp) * a.state.dim + (ACCESS > 1 ? l.at * EACH : 0);
    bool weighs = HEADS > 1 || l.warp >= ROW_WARPS, has_rows = HEADS > 1 || !weighs;
    if (has_rows && !TOKENS_FIRST)
        begin_state(base, state, a, l);
    if (HEADS == 1)
        cp_async_commit();
    struct pieces c[TILES] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
        if (l.g + 8 * tile < s.count)
            load_pieces(c[tile], (const T *)a.C.data + token_place(a.C, s, l.g + 8 * tile, heads.group) + 8 * l.t);
    struct warp_tokens tokens;
    const T *first = first_token(a, s, heads.group, l);
    if (weighs && has_head(l, heads.count))
        tokens.delta = fetch_delta(a, s, heads.first + own_head(l), l);
    struct lane_rows rows;
    if (has_rows) {
        find_new_rows(rows, a, s, heads.first, l);
        begin_new_inputs(base, rows, l);
    }
    ring_has(&a, &s, __shfl_sync(0xffffffffu, ring, 0), __shfl_sync(0xffffffffu, ring, 1));
    if (weighs && has_head(l, heads.count))
        fetch_live_delta(tokens.delta, a, s, heads.first + own_head(l), l);
    if (weighs && multiplies(l, s))
        fetch_tokens(tokens.b, first, a, s, l);
    if (HEADS == 1 && weighs) {
        weigh_tokens(shared, tokens, c, a, s, heads);
        return;
    }
    if (TOKENS_FIRST)
        begin_state(base, state, a, l);
    find_ring_rows(rows, a, s, heads.first, l);
    begin_live_inputs(base, rows, a, l);
    cp_async_commit();
    serve_heads(shared, base, state, rows, tokens, c, a, s, heads);
}
