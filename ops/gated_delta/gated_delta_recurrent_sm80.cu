/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule token by token, for decoding, where the state's bytes are what costs, and for what no other kernel takes.
 * A block has VALUES values of one state in registers.
 *
 *   T              f16, bf16
 *   INITIAL, FINAL dtypes of states
 *   HEAD_DIM       64, 128, 256
 *   VALUES_LAST    0: states are values by keys; 8 lanes share a value. 1: keys by values; 16 pieces of 8 lanes share them
 *   GATES          GATES_GIVEN, GATES_FROM_LOGITS, GATES_PER_KEY, GATES_PER_KEY_FROM_LOGITS
 *   ACCESS         elements of an access: 4, 8 of 16-bit states with keys last, or 1 where addresses are odd
 *   MANY           1: any number of tokens. 0: one of each sequence, and no states on the way; more blocks run at once
 * Grid: HEAD_DIM / 32, num_heads, num_sequences; 128 threads. */
#include "pdl.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "gated_delta_token.cuh"

enum { D = HEAD_DIM, VALUES = 32, PIECE = ACCESS == 8 ? 8 : 4, PIECE_LANES = 8 };
/* Elements of the state that a thread has: OWN_VALUES x OWN_KEYS, in pieces along the contiguous axis. */
#if VALUES_LAST
enum { OWN_VALUES = PIECE, OWN_KEYS = D / 16 };
#else
enum { OWN_VALUES = 2, OWN_KEYS = D / PIECE_LANES };
#endif

struct token {
    float q[OWN_KEYS], k[OWN_KEYS], v[OWN_VALUES];
    float alpha, beta; /* alpha: with PER_KEY, of key threadIdx.x % D */
};

enum { FETCHED = ACCESS * sizeof(INITIAL) >= 16 /* states that bulk copies can take */ };
enum { FOUR_BLOCKS = FETCHED && HEAD_DIM == 128 && __CUDA_ARCH__ == 900 /* ptxas takes more registers from sm_100 on */ };

/* The token ahead. With gates by key q and k of f16 stay as loaded until their step: four blocks have no registers for more.
 * bf16, which is widened by fewer instructions, needs more of them so. */
enum { PACKED = PER_KEY && differ<T, bf16>::value };
template <int packed> struct ahead : token {};
template <> struct ahead<1> {
    vec<T, PIECE> q[OWN_KEYS / PIECE], k[OWN_KEYS / PIECE];
    float v[OWN_VALUES], alpha, beta;
};

/* Of a thread: its i-th value and key. Lines 4 w + lane / 8 and 16 more with keys last; the line of keys 16 i + 4 w + lane / 8
 * else. */
DEVICE int group()
{
    return threadIdx.x / PIECE_LANES;
}
DEVICE int lane8()
{
    return threadIdx.x % PIECE_LANES;
}
DEVICE int value_of(int i)
{
    return blockIdx.x * VALUES + (VALUES_LAST ? PIECE * lane8() + i : 16 * i + group());
}
DEVICE int key_of(int i)
{
    return VALUES_LAST ? 16 * i + group() : i / PIECE * (PIECE * PIECE_LANES) + PIECE * lane8() + i % PIECE;
}

/* The thread's keys of a row of q or k. */
DEVICE void load_keys(float (&x)[OWN_KEYS], const struct head_rows &rows, int64_t token, int head)
{
    const T *row = (const T *)rows.data + blockIdx.z * rows.sequence + token * rows.token + head * rows.head;
#if VALUES_LAST
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++)
        x[i] = to_float(row[key_of(i)]);
#else
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i += PIECE) {
        float piece[PIECE];
        widen(piece, load_vec_by<PIECE, ACCESS>(row + key_of(i)));
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            x[i + j] = piece[j];
    }
#endif
}

DEVICE void load_keys(vec<T, PIECE> (&x)[OWN_KEYS / PIECE], const struct head_rows &rows, int64_t token, int head)
{
    const T *row = (const T *)rows.data + blockIdx.z * rows.sequence + token * rows.token + head * rows.head;
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i += PIECE)
        x[i / PIECE] = load_vec_by<PIECE, ACCESS>(row + key_of(i));
}

DEVICE void widen_keys(float (&to)[OWN_KEYS], vec<T, PIECE> (&from)[OWN_KEYS / PIECE])
{
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i += PIECE) {
        float piece[PIECE];
        forget(from[i / PIECE]);
        widen(piece, from[i / PIECE]);
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            to[i + j] = piece[j];
    }
}

template <class Token> DEVICE void load_token(Token &x, const struct gated_delta_args &a, int64_t token, int head)
{
    load_keys(x.q, a.q, token, head_of(head, a.q_group));
    load_keys(x.k, a.k, token, head_of(head, a.k_group));
    const T *v = (const T *)a.v.data + blockIdx.z * a.v.sequence + token * a.v.token + head_of(head, a.v_group) * a.v.head;
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
        x.v[i] = to_float(v[value_of(i)]);
    load_gates(x.alpha, x.beta, a, token, head);
}

DEVICE void take_token(struct token &x, const struct ahead<0> &next) { x = next; }
DEVICE void take_token(struct token &x, struct ahead<1> &next)
{
    widen_keys(x.q, next.q);
    widen_keys(x.k, next.k);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
        x.v[i] = next.v[i];
    x.alpha = next.alpha;
    x.beta = next.beta;
}

/* Sums over the threads that share the values. */
DEVICE void sum_over_keys(float (&x)[OWN_VALUES], float (*scratch)[VALUES])
{
#if VALUES_LAST
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        x[i] += __shfl_xor_sync(0xffffffffu, x[i], 8);
        x[i] += __shfl_xor_sync(0xffffffffu, x[i], 16);
    }
    __syncthreads();
    if (threadIdx.x % 32 < PIECE_LANES)
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++)
            scratch[threadIdx.x / 32][PIECE * lane8() + i] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        int at = PIECE * lane8() + i;
        x[i] = (scratch[0][at] + scratch[1][at]) + (scratch[2][at] + scratch[3][at]);
    }
#else
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
        x[i] = lanes_sum(x[i], PIECE_LANES);
#endif
}

/* 1 / sqrt(sum of squares + 1e-6). */
DEVICE float inverse_norm(const float (&x)[OWN_KEYS], float (*scratch)[VALUES])
{
    float sum[OWN_VALUES] = {};
#pragma unroll
    for (int i = 0; i < OWN_KEYS; i++)
        sum[0] += x[i] * x[i];
    sum_over_keys(sum, scratch);
    return rsqrtf(sum[0] + 1e-6f);
}

/* The thread's elements of a state: pieces in memory. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, int head, int value, int key)
{
    return row * pool.row + head * pool.head + (VALUES_LAST ? key * pool.line + value : value * pool.line + key);
}

#define AT(s, i, j) (VALUES_LAST ? s[j][i] : s[i][j])
DEVICE void load_state(float (&s)[OWN_VALUES][OWN_KEYS], const struct state_pool &pool, int64_t row, int head)
{
    enum { LINES = VALUES_LAST ? OWN_KEYS : OWN_VALUES, PIECES = OWN_VALUES * OWN_KEYS / PIECE / LINES };
    vec<INITIAL, PIECE> raw[LINES][PIECES];
#pragma unroll
    for (int i = 0; i < LINES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            raw[i][j] =
                load_vec_by<PIECE, ACCESS>((const INITIAL *)pool.data + place(pool, row, head, value_of(VALUES_LAST ? 0 : i),
                                                                              key_of(VALUES_LAST ? i : PIECE * j)));
#pragma unroll
    for (int i = 0; i < LINES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++) {
            float piece[PIECE];
            widen(piece, raw[i][j]);
#pragma unroll
            for (int n = 0; n < PIECE; n++)
                AT(s, i, PIECE * j + n) = piece[n];
        }
}

DEVICE void store_state(const float (&s)[OWN_VALUES][OWN_KEYS], const struct state_pool &pool, int64_t row, int head)
{
    enum { LINES = VALUES_LAST ? OWN_KEYS : OWN_VALUES, PIECES = OWN_VALUES * OWN_KEYS / PIECE / LINES };
#pragma unroll
    for (int i = 0; i < LINES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++) {
            float piece[PIECE];
#pragma unroll
            for (int n = 0; n < PIECE; n++)
                piece[n] = AT(s, i, PIECE * j + n);
            store_by<ACCESS>((FINAL *)pool.data +
                                 place(pool, row, head, value_of(VALUES_LAST ? 0 : i), key_of(VALUES_LAST ? i : PIECE * j)),
                             piece);
        }
}

/* Those threads write that are the first of the ones that share a value. */
DEVICE void write_output(const struct gated_delta_args &a, int64_t token, int head, const float (&x)[OWN_VALUES])
{
    T *to = (T *)a.output.data + blockIdx.z * a.output.sequence + token * a.output.token + head * a.output.head;
    if (VALUES_LAST ? threadIdx.x < PIECE_LANES : lane8() == 0)
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++)
            from_float(&to[value_of(i)], x[i]);
}

/* added: what the values gain along k. scratch: for sums, or the alphas of all keys. */
DEVICE void step(float (&s)[OWN_VALUES][OWN_KEYS], float (&added)[OWN_VALUES], struct token &x, const struct gated_delta_args &a,
                 int64_t token, int head, float (*scratch)[VALUES])
{
#if PER_KEY
    __syncthreads();
    ((float *)scratch)[threadIdx.x % D] = x.alpha;
    __syncthreads();
#endif
    float k_norm = a.l2norm ? inverse_norm(x.k, scratch) : 1.0f,
          scale = a.l2norm ? a.scale * inverse_norm(x.q, scratch) : a.scale;
    float known[OWN_VALUES] = {}, out[OWN_VALUES] = {};
#pragma unroll
    for (int j = 0; j < OWN_KEYS; j++) {
        x.k[j] *= k_norm;
        float alpha = x.alpha;
#if PER_KEY
        float4 four = *(const float4 *)((const float *)scratch + key_of(j / 4 * 4));
        alpha = j % 4 == 0 ? four.x : j % 4 == 1 ? four.y : j % 4 == 2 ? four.z : four.w;
#endif
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++) {
            s[i][j] *= alpha;
            known[i] += s[i][j] * x.k[j];
        }
    }
    sum_over_keys(known, scratch);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        added[i] = x.beta * (x.v[i] - known[i]);
#pragma unroll
        for (int j = 0; j < OWN_KEYS; j++) {
            s[i][j] += added[i] * x.k[j];
            out[i] += s[i][j] * x.q[j];
        }
    }
    sum_over_keys(out, scratch);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
        out[i] *= scale;
    write_output(a, token, head, out);
}

#if MANY && PER_KEY
DEVICE int64_t slot(const struct token_pool &pool, int64_t row, int head, int64_t n)
{
    return row * pool.row + head * pool.head + n * pool.step;
}

/* What a later kernel does the n-th token again from, from 0 on. */
DEVICE void keep_token(const struct gated_delta_args &a, const float (&added)[OWN_VALUES], int64_t row, int64_t token, int64_t n,
                       int head)
{
    if (a.added.data && n < a.added.steps && lane8() == 0)
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++)
            ((float *)a.added.data)[slot(a.added, row, head, n) + value_of(i)] = added[i];
    if (a.given.data && n < a.given.steps && threadIdx.x < 2 * VALUES) {
        int key = blockIdx.x * VALUES + threadIdx.x % VALUES;
        const struct head_rows &k = a.k;
        const T *from = (const T *)k.data + blockIdx.z * k.sequence + token * k.token + head / a.k_group * k.head;
        if (threadIdx.x >= VALUES)
            from = (const T *)a.alpha + blockIdx.z * a.alpha_sequence + token * a.alpha_token + head * a.alpha_head;
        ((T *)a.given.data)[slot(a.given, row, head, n) + threadIdx.x / VALUES * D + key] = from[key];
    }
}
#else
DEVICE void keep_token(const struct gated_delta_args &, const float (&)[OWN_VALUES], int64_t, int64_t, int64_t, int) {}
#endif

/* Half of the states that an H200 has at work. One token: 50 is 1 % slower, 198 11 %, and narrow states gain only where alpha is
 * one for each key. */
enum { AHEAD = FETCHED && MANY ? 66 : FETCHED && (PER_KEY || sizeof(INITIAL) == 4) ? 99 : 0 };

#if MANY
DEVICE void walk_tokens(float (&s)[OWN_VALUES][OWN_KEYS], const struct gated_delta_args &a, int64_t row, int head,
                        float (*scratch)[VALUES])
{
    int64_t sequence = blockIdx.z, begin = sequence_begin(&a, sequence), end = sequence_begin(&a, sequence + 1);
    struct token x;
    struct ahead<PACKED> next;
    float added[OWN_VALUES];
    if (begin < end)
        load_token(x, a, begin, head);
    if (a.initial.data && row >= 0)
        load_state(s, a.initial, row, head);
    if (AHEAD && a.initial.data)
        prefetch_state<INITIAL>(a, AHEAD, VALUES);
#if PER_KEY
    int64_t first = a.kept_first ? kept_row(&a, sequence, 0) : -1;
    if (first >= 0)
        store_state(s, a.kept, first, head);
#endif
#pragma unroll 1
    for (int64_t token = begin; token < end; token++) {
        load_token(next, a, token + 1 < end ? token + 1 : token, head);
        step(s, added, x, a, token, head, scratch);
        keep_token(a, added, row, token, token - begin, head);
        int64_t kept = kept_row(&a, sequence, token - begin + 1);
        if (kept >= 0)
            store_state(s, a.kept, kept, head);
        take_token(x, next);
    }
}
#else
DEVICE void walk_tokens(float (&s)[OWN_VALUES][OWN_KEYS], const struct gated_delta_args &a, int64_t row, int head,
                        float (*scratch)[VALUES])
{
    struct token x;
    float added[OWN_VALUES];
    load_state(s, a.initial, row, head);
    if (AHEAD)
        prefetch_state<INITIAL>(a, AHEAD, VALUES);
    load_token(x, a, blockIdx.z, head);
    step(s, added, x, a, blockIdx.z, head, scratch);
}
#endif

/* Of a multiprocessor: as many as there are registers for. */
enum { HALF_BY_LOGITS = PACKED && GATES == GATES_PER_KEY_FROM_LOGITS && sizeof(INITIAL) == 2 };
enum { MANY_BLOCKS = FOUR_BLOCKS && !HALF_BY_LOGITS ? 4 : 3 };
enum { ONE_BLOCKS = __CUDA_ARCH__ >= 1000 || (PER_KEY && sizeof(INITIAL) == 4) ? 5 : 6 };
enum { BLOCKS = HEAD_DIM == 64 ? 4 : MANY ? MANY_BLOCKS : ONE_BLOCKS };

extern "C" __global__ void __launch_bounds__(128, BLOCKS)
    gated_delta_recurrent_sm80(const __grid_constant__ struct gated_delta_args a)
{
    __shared__ __align__(16) float scratch[4][VALUES];
    int head = blockIdx.y;
    int64_t sequence = blockIdx.z;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, sequence);
    float s[OWN_VALUES][OWN_KEYS] = {};
    if (a.pads && row < 0) {
        float zero[OWN_VALUES] = {};
        for (int64_t token = sequence_begin(&a, sequence); token < sequence_begin(&a, sequence + 1); token++)
            write_output(a, token, head, zero);
        return;
    }
    walk_tokens(s, a, row, head, scratch);
    row = state_row(a.final_rows, sequence);
    if (a.final.data && row >= 0)
        store_state(s, a.final, row, head);
}
