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
 *   KEPT     1: states after tokens are kept, each whole before the next. 0: the last state alone, piece by piece, so that more
 *            blocks run at once
 * Grid: HEAD_DIM / 64, num_heads, num_sequences; 128 threads. */
#include "gated_delta_tokens.cuh"

enum { OWN_VALUES = 2, WIDE = PER_KEY || MIXED /* products with the state are in tf32 */ };
/* Blocks of a multiprocessor; where operands are made of states, later ones than Hopper spill registers with as many. */
enum { FEWER = !KEPT && (WIDE || sizeof(STATE) == 4) && __CUDA_ARCH__ >= 1000 };
enum { BLOCKS = (KEPT || sizeof(STATE) == 4 ? 4 : WIDE ? 5 : 7) - FEWER };
enum { AHEAD = !KEPT ? 99 : sizeof(STATE) == 4 ? 33 : 66 /* states: more are gone again when they are read */ };

typedef piece<STATE, PIECE> raw_state[OWN_VALUES][PIECES];

DEVICE void multiply_state(struct tokens &x, const raw_state &s)
{
    float of_k[4] = {}, of_q[4] = {};
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        piece<T, PIECE> k, q;
        load_operands(k, q, x, j);
        if (!WIDE) {
            multiply(of_k, of_q, s[0][j], s[1][j], k, q);
            continue;
        }
        float wide_k[PIECE], wide_q[PIECE];
#if PER_KEY
        load(wide_k, &x.decayed_k[group()][key_of(j)]);
        load(wide_q, &x.decayed_q[group()][key_of(j)]);
#else
        widen(wide_k, k.all);
        widen(wide_q, q.all);
#endif
        multiply_wide(of_k, of_q, s[0][j], s[1][j], wide_k, wide_q);
    }
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        int value = 16 * warp() + 8 * i + group();
        *(float2 *)&x.of_k[value][2 * lane4()] = make_float2(of_k[2 * i], of_k[2 * i + 1]);
        *(float2 *)&x.of_q[value][2 * lane4()] = make_float2(of_q[2 * i], of_q[2 * i + 1]);
    }
}

/* Outputs of a value, and what it gains along k with each token: in the state after that token where those are kept, or else in
 * the last one. */
DEVICE void solve(struct tokens &x, const struct gated_delta_args &a, int64_t begin, int head)
{
    int value = 16 * warp() + threadIdx.x % 16;
    float of_k[TOKENS], of_q[TOKENS]; /* products with the state before a token */
    load(of_k, x.of_k[value]);
    load(of_q, x.of_q[value]);
    T *to = output_of(a, begin, head);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        if (t >= a.num_tokens)
            break;
        float alpha = x.alpha[t], k_norm = x.k_norm[t], gain = x.beta[t] * (x.v[t][value] - alpha * k_norm * of_k[t]) * k_norm;
#pragma unroll
        for (int u = t; u < TOKENS; u++) {
            of_k[u] = alpha * of_k[u] + gain * x.kk[t][u];
            of_q[u] = alpha * of_q[u] + gain * x.kq[t][u];
        }
        x.v[t][value] = x.after[t] * gain;
        from_float(to, x.scale[t] * of_q[t]);
        to += a.output.token;
    }
}

DEVICE void load_state(raw_state &s, const struct state_pool &pool, int64_t row, int head)
{
    const STATE *from = (const STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            s[i][j].all = load_vec<PIECE>(from + place_of(i, j, pool.line));
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
/* Of 8 columns, keys 2 i and 2 i + 1 of a piece of each thread, rows are tokens lane4() and lane4() + 4. */
DEVICE void load_columns(float (&b)[PIECE / 2][2], const struct tokens &x, int piece)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int t = lane4() + 4 * row, key = PIECE * (4 * piece + group() / 2);
#if PER_KEY
        float own[PIECE / 2];
        load(own, &x.wide_k[t][key + group() % 2 * (PIECE / 2)]);
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++)
            b[i][row] = own[i];
#else
        float own[PIECE];
        load(own, &x.k[t][key]);
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++)
            b[i][row] = group() % 2 ? own[2 * i + 1] : own[2 * i];
#endif
    }
}

/* A product of gains and k, in tf32. */
DEVICE void add_tokens(float (&s)[OWN_VALUES][PIECE], const float (&gain)[4], const struct tokens &x, int piece)
{
    float columns[PIECE / 2][2], rest[4] = {rest_of(gain[0]), rest_of(gain[1]), rest_of(gain[2]), rest_of(gain[3])};
    load_columns(columns, x, piece);
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        float sum[4] = {s[0][2 * i], s[0][2 * i + 1], s[1][2 * i], s[1][2 * i + 1]};
        mma_m16n8k8(sum, gain, columns[i]);
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
    float gain[4] = {x.v[lane4()][value], x.v[lane4()][value + 8], x.v[lane4() + 4][value], x.v[lane4() + 4][value + 8]};
#pragma unroll
    for (int j = 0; to && j < PIECES; j++) {
        float s[OWN_VALUES][PIECE];
        widen_piece(s, raw, j);
        decay_piece(s, x, 0, j);
        add_tokens(s, gain, x, j);
        store_piece(to, a.final.line, s, j);
        __syncwarp(); /* or loads of all pieces come first, and registers are spilled */
    }
}
#endif

extern "C" __global__ void TOGETHER __launch_bounds__(THREADS, BLOCKS)
    gated_delta_tokens_sm80(const __grid_constant__ struct gated_delta_args a)
{
    __shared__ __align__(16) struct tokens x;
    int head = blockIdx.y, count = (int)a.num_tokens;
    int64_t begin = (int64_t)blockIdx.z * count;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, blockIdx.z);
    if (a.pads && row < 0) {
#pragma unroll 1
        for (int t = 0; t < count; t++)
            from_float(output_of(a, begin + t, head), 0.0f);
        return;
    }
    raw_state raw;
    load_state(raw, a.initial, row, head);
    prefetch_state<STATE>(a, AHEAD, VALUES);
    load_tokens(x, a, begin, head);
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
    __syncthreads();
    if (threadIdx.x % 32 < 16)
        solve(x, a, begin, head);
    __syncwarp();
    walk_tokens(raw, x, a);
}
