/* SPDX-License-Identifier: Apache-2.0 */
/* What gated_delta_tokens_sm80 needs of the tokens of a sequence, loaded and multiplied with each other. Constants: see there. */
#ifndef GATED_DELTA_TOKENS_CUH
#define GATED_DELTA_TOKENS_CUH

#define GATES_APPROX (sizeof(STATE) == 2)
#include "gated_delta_decode.cuh"
#include "reduce.cuh"

enum { TOKENS = 8, THREADS = 128, PIECE = 16 / sizeof(STATE), PIECES = D / 4 / PIECE };
enum { ROW = D + (PIECE == 8 ? 32 : 16), DECAYED_ROW = D + (PIECE == 8 ? 4 : 16) /* padded for the banks */ };

/* What a block needs of the tokens. With a gate for each key gates are in all products, and alpha
 * is 1. */
struct tokens {
#if PER_KEY
    float gates[TOKENS][D], decayed_k[TOKENS][DECAYED_ROW], decayed_q[TOKENS][DECAYED_ROW]; /* by gates up to this token's */
    float all_gates[D];
#endif
    T k[TOKENS][ROW], q[TOKENS][ROW];
    float wide_k[TOKENS][D + 16]; /* as in the state after a token; or, with a gate for each key, as in the last one */
    float v[TOKENS][VALUES + 8];  /* then what values gain along k */
    float kk[TOKENS][TOKENS], kq[TOKENS][TOKENS];             /* products of k with k and with q */
    float of_k[VALUES][TOKENS + 4], of_q[VALUES][TOKENS + 4]; /* of the state */
    float alpha[TOKENS], beta[TOKENS], k_norm[TOKENS] /* 1 / the norm */, scale[TOKENS];
    float decay[TOKENS], after[TOKENS]; /* of the state before it, for the last state that before all, and of what it adds */
    STATE *kept[TOKENS], *last;         /* the block's part of a state, or NULL */
};

DEVICE int key_of(int piece)
{
    return PIECE * (4 * piece + lane4());
}

DEVICE const T *row_of(const struct head_rows &rows, int64_t token, int head)
{
    return (const T *)rows.data + blockIdx.z * rows.sequence + token * rows.token + head * rows.head;
}

/* The block's part of a state. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, int head)
{
    return row * pool.row + head * pool.head + blockIdx.x * VALUES * pool.line;
}

/* In it, a thread's part of a piece. */
DEVICE int64_t place_of(int i, int piece, int64_t line)
{
    return (16 * warp() + 8 * i + group()) * line + key_of(piece);
}

DEVICE T *output_of(const struct gated_delta_args &a, int64_t token, int head)
{
    return (T *)a.output.data + blockIdx.z * a.output.sequence + token * a.output.token + head * a.output.head +
           blockIdx.x * VALUES + 16 * warp() + threadIdx.x % 16;
}

/* By one warp, a lane for each token. */
DEVICE void load_scalars(struct tokens &x, const struct gated_delta_args &a, int64_t begin, int head)
{
    int t = threadIdx.x % 32;
    float alpha = 1.0f, after = 1.0f;
#if !PER_KEY
    if (t < a.num_tokens)
        load_gates(alpha, x.beta[t], a, begin + t, head);
#endif
#pragma unroll
    for (int u = 1; u < TOKENS && !KEPT; u++) {
        float later = __shfl_sync(0xffffffffu, alpha, u);
        after *= t < u ? later : 1.0f;
    }
    if (t >= a.num_tokens)
        return;
    x.alpha[t] = alpha;
    x.after[t] = after;
    x.decay[t] = alpha * after;
    int64_t row = KEPT && t < a.kept_step ? state_row(a.kept_rows, blockIdx.z * a.kept_step + t) : -1;
    x.kept[t] = row < 0 ? NULL : (STATE *)a.kept.data + place(a.kept, row, head);
    if (t)
        return;
    row = a.final.data ? state_row(a.final_rows, blockIdx.z) : -1;
    x.last = row < 0 ? NULL : (STATE *)a.final.data + place(a.final, row, head);
}

DEVICE void load_tokens(struct tokens &x, const struct gated_delta_args &a, int64_t begin, int head)
{
    enum { K_ROW = D / 8, V_ROW = VALUES / 8 };
    int t = threadIdx.x / K_ROW, key = threadIdx.x % K_ROW * 8, v_t = threadIdx.x / V_ROW, value = threadIdx.x % V_ROW * 8;
    vec<T, 8> k = {}, q = {}, v = {};
    if (t < a.num_tokens) {
        k = load_vec<8>(row_of(a.k, begin + t, head_of(head, a.k_group)) + key);
        q = load_vec<8>(row_of(a.q, begin + t, head_of(head, a.q_group)) + key);
    }
    if (v_t < a.num_tokens)
        v = load_vec<8>(row_of(a.v, begin + v_t, head_of(head, a.v_group)) + blockIdx.x * VALUES + value);
#if PER_KEY
#pragma unroll 4
    for (int i = 0; i < a.num_tokens; i++) {
        float alpha, beta;
        load_gates(alpha, beta, a, begin + i, head);
        if (threadIdx.x < D)
            x.gates[i][threadIdx.x] = alpha;
        if (threadIdx.x == 0)
            x.beta[i] = beta;
    }
#endif
    if (warp() == THREADS / 32 - 1)
        load_scalars(x, a, begin, head);
    float wide[8];
    if (t < TOKENS) {
        store_vec(&x.k[t][key], k);
        store_vec(&x.q[t][key], q);
        widen(wide, k);
        if (KEPT)
            store_by<4>(&x.wide_k[t][key], wide);
    }
    if (v_t < TOKENS) {
        widen(wide, v);
        store_by<4>(&x.v[v_t][value], wide);
    }
}

/* Operands b, of all tokens. */
DEVICE void load_operands(piece<T, PIECE> &k, piece<T, PIECE> &q, const struct tokens &x, int piece)
{
    k.all = load_vec<PIECE>(&x.k[group()][key_of(piece)]);
    q.all = load_vec<PIECE>(&x.q[group()][key_of(piece)]);
}

/* Products of rows g and g + 8 with k and q of all tokens. */
template <class Element>
DEVICE void multiply(float (&of_k)[4], float (&of_q)[4], const piece<Element, PIECE> &low, const piece<Element, PIECE> &high,
                     const piece<T, PIECE> &k, const piece<T, PIECE> &q)
{
#pragma unroll
    for (int i = 0; i < PIECE / 2; i += 2) {
        uint32_t a[4] = {low.pair[i], high.pair[i], low.pair[i + 1], high.pair[i + 1]};
        uint32_t b_k[2] = {k.pair[i], k.pair[i + 1]}, b_q[2] = {q.pair[i], q.pair[i + 1]};
        mma_m16n8k16(of_k, a, b_k, T());
        mma_m16n8k16(of_q, a, b_q, T());
    }
}

/* What tf32 leaves of a float. */
DEVICE float rest_of(float x)
{
    return x - __uint_as_float(__float_as_uint(x) & 0xffffe000);
}

/* The same in tf32, which holds 16 bits as they are; anything else is two parts. */
DEVICE void multiply_wide(float (&of_k)[4], float (&of_q)[4], const piece<STATE, PIECE> &low, const piece<STATE, PIECE> &high,
                          const float (&k)[PIECE], const float (&q)[PIECE])
{
    float rows[2][PIECE];
    widen(rows[0], low.all);
    widen(rows[1], high.all);
#pragma unroll
    for (int i = 0; i < PIECE; i += 2) {
        float a[4] = {rows[0][i], rows[1][i], rows[0][i + 1], rows[1][i + 1]};
        float b_k[2] = {k[i], k[i + 1]}, b_q[2] = {q[i], q[i + 1]};
        mma_m16n8k8(of_k, a, b_k);
        mma_m16n8k8(of_q, a, b_q);
        if (PER_KEY) {
            float rest_k[2] = {rest_of(k[i]), rest_of(k[i + 1])}, rest_q[2] = {rest_of(q[i]), rest_of(q[i + 1])};
            mma_m16n8k8(of_k, a, rest_k);
            mma_m16n8k8(of_q, a, rest_q);
        }
        if (sizeof(STATE) == 4) {
            float rest[4] = {rest_of(a[0]), rest_of(a[1]), rest_of(a[2]), rest_of(a[3])};
            mma_m16n8k8(of_k, rest, b_k);
            mma_m16n8k8(of_q, rest, b_q);
        }
    }
}

DEVICE void set_norms(struct tokens &x, const struct gated_delta_args &a, int t, float kk, float qq)
{
    x.k_norm[t] = a.l2norm ? rsqrtf(kk + 1e-6f) : 1.0f;
    x.scale[t] = a.l2norm ? a.scale * rsqrtf(qq + 1e-6f) : a.scale;
}

/* In wide_k, of the last state: even keys of a piece, then odd ones. */
DEVICE int place_of_key(int key)
{
    return key / PIECE * PIECE + key % 2 * (PIECE / 2) + key % PIECE / 2;
}

#if PER_KEY
/* k of each token as the last state has it, and the gates of all. */
DEVICE void decay_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    int key = threadIdx.x;
    if (KEPT || key >= D)
        return;
    float gates = 1.0f;
#pragma unroll
    for (int t = TOKENS - 1; t >= 0; t--) {
        x.wide_k[t][place_of_key(key)] = gates * to_float(x.k[t][key]);
        gates *= t < a.num_tokens ? x.gates[t][key] : 1.0f;
    }
    x.all_gates[key] = gates;
}

/* Products of tokens with each other, and what the state is multiplied with; a warp has every fourth token. */
DEVICE void multiply_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    enum { KEYS = D / 32 };
    int lane = threadIdx.x % 32, key = lane * KEYS;
#pragma unroll 1
    for (int t = warp(); t < TOKENS; t += THREADS / 32) {
        float k[KEYS], q[KEYS], before[KEYS], gates[KEYS], qq = 0.0f;
        load(k, &x.k[t][key]);
        load(q, &x.q[t][key]);
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            qq += q[i] * q[i];
        qq = warp_sum(qq);
#pragma unroll 1
        for (int j = t < a.num_tokens ? t : -1; j >= 0; j--) {
            float sums[2] = {}; /* with k and with q */
            load(before, &x.k[j][key]);
            load(gates, &x.gates[j][key]);
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                sums[0] += before[i] * k[i];
                sums[1] += before[i] * q[i];
                k[i] *= gates[i];
                q[i] *= gates[i];
            }
            float sum = warp_sums<2>(sums);
            if (lane % 16 == 0)
                (lane ? x.kq : x.kk)[j][t] = sum;
            if (lane == 0 && j == t)
                set_norms(x, a, t, sum, qq);
        }
        store(&x.decayed_k[t][key], k);
        store(&x.decayed_q[t][key], q);
    }
}
#else
/* Of tokens with each other, by one warp. */
DEVICE void multiply_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    float of_k[4] = {}, of_q[4] = {};
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        piece<T, PIECE> k, q;
        load_operands(k, q, x, j);
        multiply(of_k, of_q, k, q, k, q);
    }
    *(float2 *)&x.kk[group()][2 * lane4()] = make_float2(of_k[0], of_k[1]);
    *(float2 *)&x.kq[group()][2 * lane4()] = make_float2(of_q[0], of_q[1]);
    if (group() / 2 == lane4()) {
        int odd = group() % 2;
        set_norms(x, a, group(), odd ? of_k[1] : of_k[0], odd ? of_q[3] : of_q[2]);
    }
}
#endif

#endif
