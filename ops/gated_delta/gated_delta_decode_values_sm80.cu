/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule for one token of each sequence, keys by values: see gated_delta_decode.cuh. A block has 128 bytes of each
 * key, a warp 32 keys, and a thread 16 bytes of 8 of them.
 *
 * Of 16 bits, operand a is a piece of a state as it was loaded: rows g are even pairs of its values, rows g + 8 odd ones, and the
 * two columns of a register are the two values of a pair. So operand b has k or q in one half of a register and 0 in the other:
 * columns 0 and 1 of 4 are k for even and for odd values, 2 and 3 are q.
 *
 *   T        f16, bf16
 *   STATE    dtype of states: f32, f16, bf16
 *   HEAD_DIM 64, 128
 *   GATES    GATES_GIVEN, GATES_FROM_LOGITS
 * Grid: HEAD_DIM * sizeof(STATE) / 128, num_heads, num_sequences; HEAD_DIM threads. */
#define VALUES (128 / (int)sizeof(STATE))
#include "gated_delta_decode.cuh"

enum { WIDE = sizeof(STATE) == 4 };
enum { AHEAD = (WIDE ? 99 : 198) * (128 / D) * (128 / D) /* states: half of those that an H200 has at work */ };
enum { KEYS = 8, PIECE = 16 / sizeof(STATE), TILES = 2, OWN_VALUES = PIECE / 4, THREADS = D, WARPS = THREADS / 32 };
enum { ROUNDED = MIXED && differ<STATE, f16>::value }; /* bf16 is exact in f16 */

typedef piece<STATE, PIECE> raw_state[KEYS];

/* A thread works out OWN_VALUES outputs and gains of each group. */
struct token {
    piece<T> factor[1 + WIDE]; /* of the thread's keys: k and, if WIDE, q; else q instead of k in every second pair of groups */
    float v[OWN_VALUES], alpha, beta;
};

/* Of a warp's keys: the block's values with k and with q, and k and q with each other. */
struct products {
    float k[VALUES], q[VALUES];
    float kk, kq, qq, padding;
};

DEVICE int value_of(int i)
{
    return PIECE * group() + OWN_VALUES * lane4() + i;
}

DEVICE void load_token(struct token &x, const struct gated_delta_args &a, int head)
{
    int key = 32 * warp() + KEYS * lane4();
    const T *k = row_of(a.k, head_of(head, a.k_group)), *q = row_of(a.q, head_of(head, a.q_group)),
            *v = row_of(a.v, head_of(head, a.v_group)) + blockIdx.x * VALUES;
    x.factor[0].all = load_vec<8>((!WIDE && group() / 2 % 2 ? q : k) + key);
    if (WIDE)
        x.factor[WIDE].all = load_vec<8>(q + key);
    for (int i = 0; i < OWN_VALUES; i++)
        x.v[i] = to_float(v[value_of(i)]);
    load_gates(x.alpha, x.beta, a, blockIdx.z, head);
}

/* The thread's part of a state. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, int head)
{
    return row * pool.row + head * pool.head + (32 * warp() + KEYS * lane4()) * pool.line + blockIdx.x * VALUES + PIECE * group();
}

DEVICE void load_state(raw_state &s, const struct state_pool &pool, int64_t row, int head)
{
    const STATE *from = (const STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int i = 0; i < KEYS; i++)
        s[i].all = load_vec<PIECE>(from + i * pool.line);
}

/* part: of the thread's k or q. */
template <class State> DEVICE void multiply(float (&sums)[TILES][4], const piece<State> (&s)[KEYS], const piece<State> &part)
{
    bool odd = group() % 2;
    uint32_t first = odd ? 0x1044 : 0x4410, second = odd ? 0x3244 : 0x4432; /* a key in one half of a register */
#pragma unroll
    for (int i = 0; i < KEYS; i += 2) {
        uint32_t pair = part.pair[i / 2], b[2] = {byte_permute(pair, 0, first), byte_permute(pair, 0, second)};
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            uint32_t values[4] = {s[i].pair[2 * j], s[i].pair[2 * j + 1], s[i + 1].pair[2 * j], s[i + 1].pair[2 * j + 1]};
            mma_m16n8k16(sums[j], values, b, State());
        }
    }
}

/* The power of two that the warp's k or q goes with; undo: of the products of lane4 0 with k, and of 1 with q. */
DEVICE float find_power(float &undo, const float (&x)[KEYS], f16)
{
    uint32_t largest = 0;
    for (int i = 0; i < KEYS; i++)
        largest = max(largest, __float_as_uint(fabsf(x[i])));
    bool is_q = group() / 2 % 2;
    float of_k = power_for(__reduce_max_sync(0xffffffffu, is_q ? 0 : largest)),
          of_q = power_for(__reduce_max_sync(0xffffffffu, is_q ? largest : 0));
    undo = inverse_of_power(lane4() ? of_q : of_k);
    return is_q ? of_q : of_k;
}

DEVICE float find_power(float &undo, const float (&)[KEYS], bf16)
{
    undo = 1.0f;
    return 1.0f;
}

/* Where q is of another dtype: bf16 times a power of two; f16 rounded to bf16, and what rounding left in columns 4 to 7, which
 * else are as columns 0 to 3. */
template <class State>
DEVICE void multiply_mixed(float (&sums)[TILES][4], const piece<State> (&s)[KEYS], const piece<T> &factor)
{
    float x[KEYS], undo;
    widen(x, factor.all);
    float power = find_power(undo, x, State());
    for (int i = 0; i < KEYS; i++)
        x[i] *= power;
    piece<State> part;
    narrow(part.all, x);
    if (ROUNDED) {
        float high[KEYS];
        widen(high, part.all);
        for (int i = 0; i < KEYS; i++)
            x[i] -= group() < 4 ? 0.0f : high[i];
        narrow(part.all, x);
    }
    multiply(sums, s, part);
    for (int i = 0; i < TILES; i++)
        for (int j = 0; j < 4; j++)
            sums[i][j] = ROUNDED ? sums[i][j] + __shfl_xor_sync(0xffffffffu, sums[i][j], 2) : undo * sums[i][j];
}

template <class State> DEVICE void find_products(struct products &y, const piece<State> (&s)[KEYS], const struct token &x)
{
    const piece<T> &factor = x.factor[0];
    bool odd = group() % 2;
    uint32_t columns[2] = {odd ? factor.pair[1] : factor.pair[0], odd ? factor.pair[3] : factor.pair[2]};
    float own[4] = {}, sums[TILES][4] = {};
    mma_m16n8k16(own, factor.pair, columns, T());
    if (MIXED) {
        multiply_mixed(sums, s, factor);
    } else {
        piece<State> same = {{factor.all.bits}};
        multiply(sums, s, same);
    }
    if (lane4() < 2) {
        float *to = (lane4() ? y.q : y.k) + 8 * group();
        *(float4 *)to = make_float4(sums[0][0], sums[0][1], sums[0][2], sums[0][3]);
        *(float4 *)(to + 4) = make_float4(sums[1][0], sums[1][1], sums[1][2], sums[1][3]);
    }
    /* Of own, row and column 0 are k, 2 are q, and the others of the same halves of a piece. */
    float dot = own[0] + own[3];
    int lane = threadIdx.x % 32;
    if (lane < 2)
        *(lane ? &y.kq : &y.kk) = dot;
    else if (lane == 9)
        y.qq = dot;
}

/* Of states of 32 bits. Of lane4 ^ 2 and lane4 ^ 1 a lane takes what they have of the sums that it keeps. */
DEVICE void find_products(struct products &y, const piece<f32, 4> (&s)[KEYS], const struct token &x)
{
    float k[KEYS], q[KEYS], of_k[4] = {}, of_q[4] = {}, own[3] = {};
    widen(k, x.factor[0].all);
    widen(q, x.factor[WIDE].all);
#pragma unroll
    for (int i = 0; i < KEYS; i++) {
        float values[4];
        widen(values, s[i].all);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            of_k[n] += values[n] * k[i];
            of_q[n] += values[n] * q[i];
        }
        own[0] += k[i] * k[i], own[1] += k[i] * q[i], own[2] += q[i] * q[i];
    }
    bool is_q = lane4() & 2, second = lane4() & 1;
    float half[4], two[2];
#pragma unroll
    for (int n = 0; n < 4; n++)
        half[n] = (is_q ? of_q[n] : of_k[n]) + __shfl_xor_sync(0xffffffffu, is_q ? of_k[n] : of_q[n], 2);
#pragma unroll
    for (int n = 0; n < 2; n++)
        two[n] = half[2 * second + n] + __shfl_xor_sync(0xffffffffu, half[2 - 2 * second + n], 1);
    store((is_q ? y.q : y.k) + 4 * group() + 2 * second, two);
    float dot = group() == 0 ? own[0] : group() == 1 ? own[1] : own[2];
    dot += __shfl_xor_sync(0xffffffffu, dot, 1);
    dot += __shfl_xor_sync(0xffffffffu, dot, 2);
    if (lane4() == 0 && group() < 3)
        (&y.kk)[group()] = dot;
}

DEVICE void write_output(const struct gated_delta_args &a, int head, const float (&x)[OWN_VALUES])
{
    T *to = (T *)a.output.data + blockIdx.z * (a.output.sequence + a.output.token) + head * a.output.head + blockIdx.x * VALUES;
    if (warp() == 0)
        store(to + value_of(0), x);
}

/* The gains and outputs of the thread's values. */
DEVICE void finish(float (&gain)[OWN_VALUES], float (&out)[OWN_VALUES], const struct products (&parts)[WARPS],
                   const struct gated_delta_args &a, const struct token &x)
{
    float k[OWN_VALUES] = {}, q[OWN_VALUES] = {}, kk = 0.0f, kq = 0.0f, qq = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float of_k[OWN_VALUES], of_q[OWN_VALUES];
        load(of_k, &parts[w].k[value_of(0)]);
        load(of_q, &parts[w].q[value_of(0)]);
        float4 own = *(const float4 *)&parts[w].kk;
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++)
            k[i] += of_k[i], q[i] += of_q[i];
        kk += own.x, kq += own.y, qq += own.z;
    }
    float k_norm = a.l2norm ? rsqrt_approx(kk + 1e-6f) : 1.0f, scale = a.l2norm ? a.scale * rsqrt_approx(qq + 1e-6f) : a.scale;
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        gain[i] = x.beta * (x.v[i] - x.alpha * k_norm * k[i]) * k_norm;
        out[i] = scale * (x.alpha * q[i] + gain[i] * kq);
    }
}

/* The state after the token. */
DEVICE void store_state(const raw_state &s, const struct state_pool &pool, int64_t row, int head,
                        const struct token &x, const float (&own)[OWN_VALUES])
{
    STATE *to = (STATE *)pool.data + place(pool, row, head);
    float gain[PIECE], k[KEYS];
    piece<T> keys = x.factor[0];
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        gain[i] = __shfl_sync(0xffffffffu, own[i % OWN_VALUES], i / OWN_VALUES, 4);
#pragma unroll
    for (int i = 0; !WIDE && i < 4; i++)
        keys.pair[i] = __shfl_sync(0xffffffffu, keys.pair[i], lane4());
    widen(k, keys.all);
#pragma unroll
    for (int i = 0; i < KEYS; i++) {
        float y[PIECE];
        widen(y, s[i].all);
#pragma unroll
        for (int n = 0; n < PIECE; n++)
            y[n] = x.alpha * y[n] + gain[n] * k[i];
        vec<STATE, PIECE> narrowed;
        narrow(narrowed, y);
        store_global_by<PIECE>(to + i * pool.line, narrowed);
    }
}

enum { OUTPUT_FIRST = MIXED && !WIDE /* before the state: as measured */ };
/* Threads of a multiprocessor: as measured on an H200, elsewhere as there are registers for. */
enum { HOPPER = MIXED ? 640 : 768, ELSEWHERE = !WIDE && __CUDA_ARCH__ >= 1000 ? 512 : 640 };
enum { BLOCKS = (__CUDA_ARCH__ == 900 ? HOPPER : ELSEWHERE) / THREADS };

extern "C" __global__ void TOGETHER __launch_bounds__(THREADS, BLOCKS)
    gated_delta_decode_values_sm80(const __grid_constant__ struct gated_delta_args a)
{
    __shared__ __align__(16) struct products parts[WARPS];
    int head = blockIdx.y;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, blockIdx.z);
    float out[OWN_VALUES] = {}, gain[OWN_VALUES];
    if (a.pads && row < 0) {
        write_output(a, head, out);
        return;
    }
    raw_state s;
    load_state(s, a.initial, row, head);
    prefetch_state<STATE>(a, AHEAD, VALUES);
    struct token x;
    load_token(x, a, head);
    row = state_row(a.final_rows, blockIdx.z);
    find_products(parts[warp()], s, x);
    __syncthreads();
    finish(gain, out, parts, a, x);
    if (OUTPUT_FIRST)
        write_output(a, head, out);
    if (a.final.data && row >= 0)
        store_state(s, a.final, row, head, x, gain);
    if (!OUTPUT_FIRST)
        write_output(a, head, out);
}
