/* SPDX-License-Identifier: Apache-2.0 */
/* What gated_delta_tokens_sm80 needs of the tokens of a sequence, loaded and multiplied with each other. Constants: see there. */
#ifndef GATED_DELTA_TOKENS_CUH
#define GATED_DELTA_TOKENS_CUH

#include "gated_delta_decode.cuh"
#include "reduce.cuh"

enum { THREADS = 2 * VALUES, OWN_VALUES = 2, PIECE = 16 / sizeof(STATE), PIECES = D / 4 / PIECE };
enum { ROW = D + (PIECE == 8 ? 32 : 16), DECAYED_ROW = D + (PIECE == 8 ? 4 : 16) /* padded for the banks */ };
/* k and q by gates are two parts of T each; not of f16, whose range they leave, nor where the states of 8 tokens are kept, which
 * leaves no registers. So is what the last state gains. */
enum { PARTS = PER_KEY && !MIXED && !differ<STATE, bf16>::value && !(KEPT && TOKENS == 8), GAIN_PARTS = PARTS && !KEPT };
/* As measured: where the state is most of what is loaded it is asked for before tokens; and the row of the last state alone, with
 * one gate, is known before. */
enum { STATE_FIRST = PER_KEY && sizeof(STATE) == 4 && !KEPT, ROW_FIRST = !PER_KEY && !KEPT && D == 128 };

typedef piece<STATE, PIECE> raw_state[OWN_VALUES][PIECES];

/* Rows of k, then of q, are operands of one product or two. */
enum { ROWS = 2 * TOKENS, TILES = ROWS / 8 };
enum { SUMS = 3 - TILES /* of each product, that no product waits for the one before */ };

/* What a block needs of the tokens. With a gate for each key gates are in all products, and alpha is 1. */
struct tokens {
#if PER_KEY
    float gates[TOKENS][D], all_gates[D];
    float decayed[PARTS ? 1 : ROWS][DECAYED_ROW]; /* k and q by gates up to a token's, */
    T part[2][PARTS ? ROWS : 1][ROW];             /* or both rounded, and what rounding left */
#endif
    T kq[ROWS][ROW];
    /* k as in the state after a token; or, with a gate for each key, as in the last one, where its parts are pairs of tokens. */
    uint32_t pairs[GAIN_PARTS ? TILES : 1][GAIN_PARTS ? D / 4 : 1][4][4];
    float wide_k[GAIN_PARTS ? 1 : TOKENS][D + 16];
    float v[TOKENS][VALUES + 8];      /* then what values gain along k */
    float own[TOKENS][ROWS];          /* products of k with k and q */
    float of_state[VALUES][ROWS + 4]; /* of the state with both */
    __align__(16) float beta[TOKENS], k_norm[TOKENS] /* 1 / the norm */, scale[TOKENS], alpha[TOKENS];
    float decay[TOKENS], after[TOKENS]; /* of the state before it, for the last state that before all, and of what it adds */
    STATE *kept[TOKENS], *last;         /* the block's part of a state, or NULL */
};

DEVICE int key_of(int piece)
{
    return PIECE * (4 * piece + lane4());
}

DEVICE const T *row_of(const struct head_rows &rows, uint32_t token, uint32_t head)
{
    return (const T *)rows.data + blockIdx.z * rows.sequence + token * rows.token + head * rows.head;
}

/* The block's part of a state. */
DEVICE int64_t place(const struct state_pool &pool, uint32_t row, uint32_t head)
{
    return row * pool.row + head * pool.head + blockIdx.x * VALUES * pool.line;
}

/* In it, a thread's part of a piece. */
DEVICE int64_t place_of(int i, int piece, int64_t line)
{
    return (16 * warp() + 8 * i + group()) * line + key_of(piece);
}

DEVICE T *output_of(const struct gated_delta_args &a, uint32_t token, uint32_t head)
{
    return (T *)a.output.data + blockIdx.z * a.output.sequence + token * a.output.token + head * a.output.head +
           blockIdx.x * VALUES + 16 * warp() + threadIdx.x % 16;
}

/* By one warp, a lane for each token. */
DEVICE void load_scalars(struct tokens &x, const struct gated_delta_args &a, uint32_t begin, uint32_t head)
{
    uint32_t t = threadIdx.x % 32, count = (uint32_t)a.num_tokens;
    int64_t row = KEPT && t < a.kept_step ? state_row(a.kept_rows, blockIdx.z * a.kept_step + t) : -1;
    int64_t last = t == 0 && a.final.data ? state_row(a.final_rows, blockIdx.z) : -1;
#if !PER_KEY
    float alpha = 1.0f, after = 1.0f;
    if (t < count)
        load_gates(alpha, x.beta[t], a, begin + t, head);
#pragma unroll
    for (int u = 1; u < TOKENS && !KEPT; u++) {
        float later = __shfl_sync(0xffffffffu, alpha, u);
        after *= t < u ? later : 1.0f;
    }
    if (t < count) {
        x.alpha[t] = alpha;
        x.after[t] = after;
        x.decay[t] = alpha * after;
    }
#endif
    if (KEPT && t < count)
        x.kept[t] = row < 0 ? NULL : (STATE *)a.kept.data + place(a.kept, row, head);
    if (t == 0)
        x.last = last < 0 ? NULL : (STATE *)a.final.data + place(a.final, last, head);
}

DEVICE void load_state(raw_state &s, const struct state_pool &pool, int64_t row, uint32_t head)
{
    const STATE *from = (const STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            s[i][j].all = load_vec<PIECE>(from + place_of(i, j, pool.line));
}

/* Whether there is a state. Tokens, which come from DRAM, are asked for before it, which is in L2; rows and gates by different
 * warps, as far as there are some. */
DEVICE bool load_all(raw_state &raw, struct tokens &x, const struct gated_delta_args &a, int64_t row, uint32_t head, int ahead)
{
    enum { LANES = D / 8, V_LANES = VALUES / 8, WARPS = THREADS / 32, KEYS = D / 32, OWN = TOKENS < WARPS ? 1 : TOKENS / WARPS };
    enum { STEP = THREADS / LANES, PIECES_OF_ROWS = ROWS < STEP ? 1 : ROWS / STEP };
    uint32_t count = (uint32_t)a.num_tokens, begin = blockIdx.z * count, key = threadIdx.x % LANES * 8;
    uint32_t of_v = (threadIdx.x + THREADS - 32) % THREADS, v_t = of_v / V_LANES, value = of_v % V_LANES * 8;
    vec<T, 8> kq[PIECES_OF_ROWS] = {}, v = {};
    if (ROW_FIRST && row < 0)
        return false;
    if (STATE_FIRST && row >= 0)
        load_state(raw, a.initial, row, head);
#pragma unroll
    for (int i = 0; i < PIECES_OF_ROWS; i++) {
        uint32_t at = threadIdx.x / LANES + i * STEP, t = at % TOKENS;
        bool of_k = STEP <= TOKENS ? i * STEP < TOKENS : at < TOKENS;
        if (at < ROWS && t < count)
            kq[i] = load_vec<8>(row_of(of_k ? a.k : a.q, begin + t, head_of(head, of_k ? a.k_group : a.q_group)) + key);
    }
    if (v_t < count)
        v = load_vec<8>(row_of(a.v, begin + v_t, head_of(head, a.v_group)) + blockIdx.x * VALUES + value);
#if PER_KEY
    struct key_gates<KEYS> gates[OWN];
    int first = threadIdx.x % 32 * KEYS;
#pragma unroll
    for (int i = 0; i < OWN; i++)
        ask_gates(gates[i], a, begin + min((uint32_t)(warp() + i * WARPS), count - 1), head, first);
#endif
    if (!ROW_FIRST && row < 0)
        return false;
    if (!STATE_FIRST)
        load_state(raw, a.initial, row, head);
    prefetch_state<STATE>(a, ahead, VALUES, THREADS / 2);
    if (warp() == WARPS - 1)
        load_scalars(x, a, begin, head);
#if PER_KEY
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int own = warp() + i * WARPS;
        float alpha[KEYS], beta;
        work_out_gates(alpha, beta, gates[i], a, head, first);
        if (own < TOKENS)
            store(&x.gates[own][first], alpha);
        if (own < TOKENS && first == 0)
            x.beta[own] = beta;
    }
#endif
    float wide[8];
#pragma unroll
    for (int i = 0; i < PIECES_OF_ROWS; i++) {
        int row = threadIdx.x / LANES + i * STEP;
        if (row < ROWS)
            store_vec(&x.kq[row][key], kq[i]);
        widen(wide, kq[i]);
        if (KEPT && row < TOKENS)
            store_by<4>(&x.wide_k[row][key], wide);
    }
    if (v_t < TOKENS) {
        widen(wide, v);
        store_by<4>(&x.v[v_t][value], wide);
    }
    return true;
}

/* Operands b, of all tokens. */
DEVICE void load_operands(piece<T, PIECE> (&b)[TILES], const T (*rows)[ROW], int piece)
{
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
        b[tile].all = load_vec<PIECE>(&rows[8 * tile + group()][key_of(piece)]);
}

/* Products of rows g and g + 8 with k and q of all tokens, which are so many parts. */
template <int N, class Element>
DEVICE void multiply(float (&of)[SUMS][TILES][4], const piece<Element, PIECE> &low, const piece<Element, PIECE> &high,
                     const piece<T, PIECE> (&b)[N][TILES])
{
#pragma unroll
    for (int i = 0; i < PIECE / 2; i += 2) {
        uint32_t a[4] = {low.pair[i], high.pair[i], low.pair[i + 1], high.pair[i + 1]};
#pragma unroll
        for (int n = 0; n < N * TILES; n++) {
            int part = n / TILES, tile = n % TILES;
            uint32_t two[2] = {b[part][tile].pair[i], b[part][tile].pair[i + 1]};
            mma_m16n8k16(of[(N == 2 ? part : i / 2) % SUMS][tile], a, two, T());
        }
    }
}

DEVICE void add_sums(float (&of)[TILES][4], const float (&sums)[SUMS][TILES][4])
{
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            of[tile][i] = SUMS == 2 ? sums[0][tile][i] + sums[SUMS - 1][tile][i] : sums[0][tile][i];
}

/* What tf32 leaves of a float. */
DEVICE float rest_of(float x)
{
    return x - __uint_as_float(__float_as_uint(x) & 0xffffe000);
}

/* The same in tf32, which holds 16 bits as they are; anything else is two parts. */
DEVICE void multiply_wide(float (&of)[SUMS][TILES][4], const piece<STATE, PIECE> &low, const piece<STATE, PIECE> &high,
                          const float (&b)[TILES][PIECE])
{
    float rows[2][PIECE];
    widen(rows[0], low.all);
    widen(rows[1], high.all);
#pragma unroll
    for (int i = 0; i < PIECE; i += 2) {
        float a[4] = {rows[0][i], rows[1][i], rows[0][i + 1], rows[1][i + 1]};
        float rest[4] = {rest_of(a[0]), rest_of(a[1]), rest_of(a[2]), rest_of(a[3])};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            float two[2] = {b[tile][i], b[tile][i + 1]}, rest_two[2] = {rest_of(two[0]), rest_of(two[1])};
            mma_m16n8k8(of[0][tile], a, two);
            if (PER_KEY)
                mma_m16n8k8(of[SUMS - 1][tile], a, rest_two);
            if (sizeof(STATE) == 4)
                mma_m16n8k8(of[SUMS - 1][tile], rest, two);
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
template <int N> DEVICE void split(piece<T, N> &high, piece<T, N> &low, const float (&x)[N])
{
    float rest[N];
    narrow(high.all, x);
    widen(rest, high.all);
#pragma unroll
    for (int n = 0; n < N; n++)
        rest[n] = x[n] - rest[n];
    narrow(low.all, rest);
}

/* k of each token as the last state has it, and the gates of all. */
DEVICE void decay_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    int key = (int)threadIdx.x - (THREADS - D); /* the last threads: the first ones multiply */
    int count = (int)a.num_tokens;
    if (KEPT || key < 0)
        return;
    float gates = 1.0f, k[TOKENS];
#pragma unroll
    for (int t = TOKENS - 1; t >= 0; t--) {
        k[t] = gates * to_float(x.kq[t][key]);
        if (!GAIN_PARTS)
            x.wide_k[t][place_of_key(key)] = k[t];
        gates *= t < count ? x.gates[t][key] : 1.0f;
    }
    x.all_gates[key] = gates;
    if (!GAIN_PARTS)
        return;
    piece<T, TOKENS> part[2];
    split(part[0], part[1], k);
    int column = key / 32 * 8 + key % 32 / 8 * 2 + key % 2;
#pragma unroll
    for (int n = 0; n < TOKENS; n++)
        x.pairs[n / 4][column][n % 4][key % 8 / 2] = part[2 * n / TOKENS].pair[n % (TOKENS / 2)];
}

template <int N> DEVICE void store_decayed(struct tokens &x, int row, int key, const float (&decayed)[N])
{
    if (!PARTS) {
        store(&x.decayed[row][key], decayed);
        return;
    }
    piece<T, N> part[2];
    split(part[0], part[1], decayed);
    store_vec(&x.part[0][row][key], part[0].all);
    store_vec(&x.part[1][row][key], part[1].all);
}

/* Products of tokens with each other, and what the state is multiplied with; a warp has one token of so many, with itself and
 * those before it, EACH at once. Of eight warps the first have the most, since the last ones decay. */
DEVICE void multiply_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    enum { KEYS = D / 32, EACH = 4 };
    int lane = threadIdx.x % 32, key = lane * KEYS;
#pragma unroll 1
    for (int t = TOKENS - 1 - warp(); t >= 0; t -= THREADS / 32) {
        float k[KEYS], q[KEYS], before[KEYS], gates[KEYS], qq = 0.0f;
        load(k, &x.kq[t][key]);
        load(q, &x.kq[TOKENS + t][key]);
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            qq += q[i] * q[i];
#pragma unroll 1
        for (int last = t < (int)a.num_tokens ? t : -1; last >= 0; last -= EACH) {
            float sums[2 * EACH] = {}; /* with k and with q */
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                if (j > last)
                    break;
                load(before, &x.kq[last - j][key]);
                load(gates, &x.gates[last - j][key]);
#pragma unroll
                for (int i = 0; i < KEYS; i++) {
                    sums[j] += before[i] * k[i];
                    sums[EACH + j] += before[i] * q[i];
                    k[i] *= gates[i];
                    q[i] *= gates[i];
                }
            }
            float sum = warp_sums(sums), norm = warp_sum(qq);
            int j = last - lane / 4 % EACH;
            if (lane % 4 == 0 && j >= 0)
                x.own[j][lane / 16 * TOKENS + t] = sum;
            if (lane == 0 && j == t)
                set_norms(x, a, t, sum, norm);
        }
        store_decayed(x, t, key, k);
        store_decayed(x, TOKENS + t, key, q);
    }
}
#else
/* Of tokens with each other, by one warp. Rows of k and q are those of an operand a, too. */
DEVICE void multiply_tokens(struct tokens &x, const struct gated_delta_args &a)
{
    float sums[SUMS][TILES][4] = {}, of[TILES][4];
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        piece<T, PIECE> b[1][TILES];
        load_operands(b[0], x.kq, j);
        multiply(sums, b[0][0], b[0][TILES - 1], b);
    }
    add_sums(of, sums);
    int token = group() % TOKENS;
    bool first = group() < TOKENS;
#pragma unroll
    for (int tile = 0; first && tile < TILES; tile++)
        *(float2 *)&x.own[token][8 * tile + 2 * lane4()] = make_float2(of[tile][0], of[tile][1]);
    __syncwarp();
    /* Of q with itself: the last rows' last columns. */
    int row = TILES == 2 ? group() : group() - TOKENS, odd = row % 2, column = TILES == 2 ? row : TOKENS + row;
    if (row >= 0 && column % 8 / 2 == lane4()) {
        const float *last = &of[TILES - 1][TILES == 2 ? 2 : 0];
        set_norms(x, a, row, TILES == 1 ? x.own[row][row] : odd ? of[0][1] : of[0][0], odd ? last[1] : last[0]);
    }
}
#endif

#endif
