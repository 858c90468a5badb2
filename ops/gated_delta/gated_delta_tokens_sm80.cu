/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule for a few tokens of each sequence, as many of each, states values by keys. A warp has 16 values.
 *
 * The state before all tokens is multiplied with k and q of all of them at once, and these with each other, by tensor cores. From
 * that follows what each value gains with each token: states after tokens, which are kept, cost two multiplications of an element
 * each; the last state alone is one more product. Operand a is values g and g + 8 of the state, operand b token g.
 *
 *   T        f16, bf16
 *   STATE    f32, f16, bf16
 *   HEAD_DIM 64, 128
 *   GATES    as gated_delta_recurrent_sm80
 *   TOKENS   4 or 8: as many, or fewer. Of 4, k and q are columns of one product, and rows of gains are both their parts
 *   KEPT     1: states after tokens are kept, each whole before the next. 0: the last state alone, piece by piece, so that more
 *            blocks run at once
 *   VALUES   of a block: 64; or all, so that what it needs of the tokens is worked out once
 * Grid: HEAD_DIM / VALUES, num_heads, num_sequences; 2 VALUES threads. */
#include "gated_delta_tokens.cuh"

enum { FLOATS = sizeof(STATE) == 4 };
enum { WIDE = (PER_KEY && !PARTS) || MIXED /* products with the state are in tf32 */ };
/* Blocks of a multiprocessor; of the last state alone, with operands that are made first, later ones than Hopper spill registers
 * with as many. Five of kept states leave registers enough on Hopper alone. */
enum { FEWER = (PER_KEY || MIXED || (TOKENS == 8 && !FLOATS)) && __CUDA_ARCH__ >= 1000 };
enum { MANY = !PER_KEY && !MIXED ? 7 : !PARTS ? 5 : TOKENS == 8 ? 6 : D == 64 ? 8 : 7 };
enum { BLOCKS = (KEPT ? 4 + (PARTS && __CUDA_ARCH__ == 900) : (FLOATS ? 4 : MANY) - FEWER) * 64 / VALUES };
enum { FAR = GAIN_PARTS && TOKENS == 4 && D == 128 };
enum { AHEAD = (FAR ? 198 : !KEPT ? 99 : FLOATS ? 33 : 66) * (128 / D) * (128 / D) /* states: more are gone when read */ };

DEVICE void multiply_state(struct tokens &x, const raw_state &s)
{
    float sums[SUMS][TILES][4] = {}, of[TILES][4];
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        piece<T, PIECE> b[1 + PARTS][TILES];
#if PER_KEY
        for (int i = 0; PARTS && i < 2; i++)
            load_operands(b[i], x.part[i], j);
#else
        load_operands(b[0], x.kq, j);
#endif
        if (!WIDE)
            multiply(sums, s[0][j], s[1][j], b);
        if (!WIDE)
            continue;
        float wide[TILES][PIECE];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#if PER_KEY
            load(wide[tile], &x.decayed[8 * tile + group()][key_of(j)]);
#else
            widen(wide[tile], b[0][tile].all);
#endif
        multiply_wide(sums, s[0][j], s[1][j], wide);
    }
    add_sums(of, sums);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            *(float2 *)&x.of_state[16 * warp() + 8 * i + group()][8 * tile + 2 * lane4()] =
                make_float2(of[tile][2 * i], of[tile][2 * i + 1]);
}

/* Outputs of a value, and what it gains along k with each token: in the state after that token where those are kept, or else in
 * the last one. */
DEVICE void solve(struct tokens &x, const struct gated_delta_args &a, uint32_t head)
{
    int value = 16 * warp() + threadIdx.x % 16, count = (int)a.num_tokens;
    float of[ROWS]; /* products of k, then q, with the state before a token */
    load(of, x.of_state[value]);
    enum { GO = TOKENS == 4 ? 4 : 2 /* tokens for which there are registers */ };
    float beta[GO], norm[GO], scale[GO], v[GO];
    T *to = output_of(a, blockIdx.z * count, head);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        if (t >= count)
            break;
        int n = t % GO;
        if (n == 0) {
            load(beta, &x.beta[t]);
            load(norm, &x.k_norm[t]);
            load(scale, &x.scale[t]);
#pragma unroll
            for (int i = 0; i < GO; i++)
                v[i] = x.v[t + i][value];
        }
        float alpha = PER_KEY ? 1.0f : x.alpha[t], gain = beta[n] * (v[n] - alpha * norm[n] * of[t]) * norm[n];
#pragma unroll
        for (int u = t; u < TOKENS; u++) {
            of[u] = alpha * of[u] + gain * x.own[t][u];
            of[TOKENS + u] = alpha * of[TOKENS + u] + gain * x.own[t][TOKENS + u];
        }
        x.v[t][value] = PER_KEY ? gain : x.after[t] * gain;
        from_float(to, scale[n] * of[TOKENS + t]);
        to += a.output.token;
    }
}

/* A piece of the state before a token is added. */
DEVICE void decay_piece(float (&s)[OWN_VALUES][PIECE], const struct tokens &x, int t, int piece)
{
    float decay[PIECE];
#if PER_KEY
    load(decay, KEPT ? &x.gates[t][key_of(piece)] : &x.all_gates[key_of(piece)]);
#else
#pragma unroll
    for (int n = 0; n < PIECE; n++)
        decay[n] = x.decay[t];
#endif
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
#pragma unroll
        for (int n = 0; n < PIECE; n++)
            s[i][n] *= decay[n];
}

DEVICE void add_token(float (&s)[OWN_VALUES][PIECE], const struct tokens &x, int t, int piece)
{
    float k[PIECE];
    load(k, &x.wide_k[t][key_of(piece)]);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        float gain = x.v[t][16 * warp() + 8 * i + group()];
#pragma unroll
        for (int n = 0; n < PIECE; n++)
            s[i][n] += gain * k[n];
    }
}

DEVICE void store_piece(STATE *to, int64_t line, const float (&s)[OWN_VALUES][PIECE], int piece)
{
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        vec<STATE, PIECE> narrowed;
        narrow(narrowed, s[i]);
        store_global_by<PIECE>(to + place_of(i, piece, line), narrowed);
    }
}

DEVICE void widen_piece(float (&s)[OWN_VALUES][PIECE], const raw_state &raw, int piece)
{
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
        widen(s[i], raw[i][piece].all);
}

#if KEPT
DEVICE void walk_tokens(const raw_state &raw, const struct tokens &x, const struct gated_delta_args &a)
{
    float s[PIECES][OWN_VALUES][PIECE];
#pragma unroll
    for (int j = 0; j < PIECES; j++)
        widen_piece(s[j], raw, j);
#pragma unroll 1
    for (int t = 0; t <= a.num_tokens; t++) {
        bool end = t == a.num_tokens;
        if (!end) {
#pragma unroll
            for (int j = 0; j < PIECES; j++)
                decay_piece(s[j], x, t, j);
#pragma unroll
            for (int j = 0; j < PIECES; j++)
                add_token(s[j], x, t, j);
        }
        STATE *to = end ? x.last : x.kept[t];
        if (to)
#pragma unroll
            for (int j = 0; j < PIECES; j++)
                store_piece(to, end ? a.final.line : a.kept.line, s[j], j);
    }
}
#else
/* Of 8 columns, keys 2 i and 2 i + 1 of a piece of each thread, rows are tokens lane4() and lane4() + 4; or, of 4, twice. */
DEVICE void load_columns(float (&b)[PIECE / 2][2], const struct tokens &x, int piece)
{
#pragma unroll
    for (int row = 0; row < TILES; row++) {
        int t = lane4() + 4 * row, key = PIECE * (4 * piece + group() / 2);
#if PER_KEY
        float own[PIECE / 2];
        load(own, &x.wide_k[t][key + group() % 2 * (PIECE / 2)]);
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++)
            b[i][row] = own[i];
#else
        float own[PIECE];
        load(own, &x.kq[t][key]);
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++)
            b[i][row] = group() % 2 ? own[2 * i + 1] : own[2 * i];
#endif
    }
#pragma unroll
    for (int i = 0; TILES == 1 && i < PIECE / 2; i++)
        b[i][1] = b[i][0];
}

#if PER_KEY
/* Operands a of values g and g + 8; columns, and rows of k, are tokens. Of four tokens one product has both parts of gains with
 * both of k, of eight two have. */
DEVICE void load_gains(uint32_t (&gains)[TILES][4], const struct tokens &x, int value)
{
    int t = 2 * lane4() % TOKENS;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float gain[2] = {x.v[t][value + 8 * i], x.v[t + 1][value + 8 * i]};
        piece<T, 2> high, low;
        split(high, low, gain);
        gains[0][i] = high.pair[0];
        gains[0][2 + i] = TILES == 2 ? high.pair[0] : low.pair[0];
        gains[TILES - 1][2 + i] = low.pair[0];
        if (TILES == 2)
            gains[1][i] = low.pair[0];
    }
}

DEVICE void add_parts(float (&s)[OWN_VALUES][PIECE], const uint32_t (&gains)[TILES][4], const struct tokens &x, int at)
{
    piece<uint32_t, 4> k[TILES];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
        k[tile].all = load_vec<4>(x.pairs[tile][8 * at + group()][lane4()]);
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        float sum[4] = {s[0][2 * i], s[0][2 * i + 1], s[1][2 * i], s[1][2 * i + 1]};
        uint32_t b[2] = {k[0].pair[i], k[TILES - 1].pair[i]};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            mma_m16n8k16(sum, gains[tile], b, T());
        s[0][2 * i] = sum[0], s[0][2 * i + 1] = sum[1], s[1][2 * i] = sum[2], s[1][2 * i + 1] = sum[3];
    }
}
#endif

/* A product of gains and k, in tf32. */
DEVICE void add_tokens(float (&s)[OWN_VALUES][PIECE], const float (&gain)[4], const float (&rest)[4], const struct tokens &x,
                       int piece)
{
    float columns[PIECE / 2][2];
    load_columns(columns, x, piece);
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        float sum[4] = {s[0][2 * i], s[0][2 * i + 1], s[1][2 * i], s[1][2 * i + 1]};
        mma_m16n8k8(sum, gain, columns[i]);
        if (TILES == 2)
            mma_m16n8k8(sum, rest, columns[i]);
        if (PER_KEY) {
            float rest_k[2] = {rest_of(columns[i][0]), rest_of(columns[i][1])};
            mma_m16n8k8(sum, gain, rest_k);
        }
        s[0][2 * i] = sum[0], s[0][2 * i + 1] = sum[1], s[1][2 * i] = sum[2], s[1][2 * i + 1] = sum[3];
    }
}

DEVICE void walk_tokens(const raw_state &raw, const struct tokens &x, const struct gated_delta_args &a)
{
    STATE *to = x.last;
    int value = 16 * warp() + group();
#if PER_KEY
    uint32_t gains[TILES][4];
    if (GAIN_PARTS)
        load_gains(gains, x, value);
#endif
    float gain[4] = {x.v[lane4()][value], x.v[lane4()][value + 8]}, rest[4] = {rest_of(gain[0]), rest_of(gain[1])};
    for (int i = 0; i < 2; i++) {
        gain[2 + i] = TILES == 2 ? x.v[lane4() + 4 * (TILES - 1)][value + 8 * i] : rest[i];
        rest[2 + i] = rest_of(gain[2 + i]);
    }
#pragma unroll
    for (int j = 0; to && j < PIECES; j++) {
        float s[OWN_VALUES][PIECE];
        widen_piece(s, raw, j);
        decay_piece(s, x, 0, j);
#if PER_KEY
        if (GAIN_PARTS)
            add_parts(s, gains, x, j);
        else
#endif
            add_tokens(s, gain, rest, x, j);
        store_piece(to, a.final.line, s, j);
        __syncwarp(); /* or loads of all pieces come first, and registers are spilled */
    }
}
#endif

extern "C" __global__ void TOGETHER __launch_bounds__(THREADS, BLOCKS)
    gated_delta_tokens_sm80(const __grid_constant__ struct gated_delta_args a)
{
    __shared__ __align__(16) struct tokens x;
    uint32_t head = blockIdx.y, count = (uint32_t)a.num_tokens;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, blockIdx.z);
    raw_state raw;
    if (!load_all(raw, x, a, row, head, AHEAD)) {
#pragma unroll 1
        for (uint32_t t = 0; t < count; t++)
            from_float(output_of(a, blockIdx.z * count + t, head), 0.0f);
        return;
    }
    __syncthreads();
#if PER_KEY
    decay_tokens(x, a);
    multiply_tokens(x, a);
    __syncthreads();
#else
    if (warp() == 0)
        multiply_tokens(x, a);
#endif
    multiply_state(x, raw);
#if PER_KEY
    __syncwarp(); /* a warp has values of its own, and all know the tokens */
#else
    __syncthreads();
#endif
    if (threadIdx.x % 32 < 16)
        solve(x, a, head);
    __syncwarp();
    walk_tokens(raw, x, a);
}
