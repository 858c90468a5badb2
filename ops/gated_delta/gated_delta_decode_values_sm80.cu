/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule for one token of each sequence, with states of 16 bits, keys by values: see gated_delta_decode.cuh. A warp
 * has 32 keys, and a thread 8 of them, of 8 values each.
 *
 * Operand a is a piece of a state as it was loaded: rows g are even pairs of its values, rows g + 8 odd ones, and the two columns
 * of a register are the two values of a pair. So operand b has k or q in one half of a register and 0 in the other: columns 0 and
 * 1 of 4 are k for even and for odd values, 2 and 3 are q.
 *
 *   T        f16, bf16
 *   STATE    dtype of states: f16, bf16
 *   HEAD_DIM 64, 128
 *   GATES    GATES_GIVEN, GATES_FROM_LOGITS
 * Grid: HEAD_DIM / 64, num_heads, num_sequences; HEAD_DIM threads. */
#include "gated_delta_decode.cuh"

enum { AHEAD = 198 * (128 / D) * (128 / D) /* states: half of those that an H200 has at work */ };
enum { KEYS = 8, TILES = 2, OWN_VALUES = 2, THREADS = D, WARPS = THREADS / 32 };
enum { ROUNDED = MIXED && differ<STATE, f16>::value }; /* bf16 is exact in f16 */

/* A thread works out OWN_VALUES outputs and gains of each group. */
struct token {
    piece<T> factor; /* of the thread's keys: k, or q in every second pair of groups */
    float v[OWN_VALUES], alpha, beta;
};

/* Of a warp's keys: the block's values with k and with q, and k and q with each other. */
struct products {
    float k[VALUES], q[VALUES];
    float kk, kq, qq, padding;
};

DEVICE int value_of(int i)
{
    return 8 * group() + OWN_VALUES * lane4() + i;
}

DEVICE void load_token(struct token &x, const struct gated_delta_args &a, int head)
{
    const T *k = row_of(a.k, head_of(head, a.k_group)), *q = row_of(a.q, head_of(head, a.q_group)),
            *v = row_of(a.v, head_of(head, a.v_group)) + blockIdx.x * VALUES;
    x.factor.all = load_vec<8>((group() / 2 % 2 ? q : k) + 32 * warp() + KEYS * lane4());
    for (int i = 0; i < OWN_VALUES; i++)
        x.v[i] = to_float(v[value_of(i)]);
    load_gates(x.alpha, x.beta, a, blockIdx.z, head);
}

/* The thread's part of a state. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, int head)
{
    return row * pool.row + head * pool.head + (32 * warp() + KEYS * lane4()) * pool.line + blockIdx.x * VALUES + 8 * group();
}

DEVICE void load_state(piece<STATE> (&s)[KEYS], const struct state_pool &pool, int64_t row, int head)
{
    const STATE *from = (const STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int i = 0; i < KEYS; i++)
        s[i].all = load_vec<8>(from + i * pool.line);
}

/* part: of the thread's k or q. */
DEVICE void multiply(float (&sums)[TILES][4], const piece<STATE> (&s)[KEYS], const piece<STATE> &part)
{
    bool odd = group() % 2;
    uint32_t first = odd ? 0x1044 : 0x4410, second = odd ? 0x3244 : 0x4432; /* a key in one half of a register */
#pragma unroll
    for (int i = 0; i < KEYS; i += 2) {
        uint32_t pair = part.pair[i / 2], b[2] = {byte_permute(pair, 0, first), byte_permute(pair, 0, second)};
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            uint32_t values[4] = {s[i].pair[2 * j], s[i].pair[2 * j + 1], s[i + 1].pair[2 * j], s[i + 1].pair[2 * j + 1]};
            mma_m16n8k16(sums[j], values, b, STATE());
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
DEVICE void multiply_mixed(float (&sums)[TILES][4], const piece<STATE> (&s)[KEYS], const piece<T> &factor)
{
    float x[KEYS], undo;
    widen(x, factor.all);
    float power = find_power(undo, x, STATE());
    for (int i = 0; i < KEYS; i++)
        x[i] *= power;
    piece<STATE> part;
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

DEVICE void find_products(struct products &y, const piece<STATE> (&s)[KEYS], const piece<T> &factor)
{
    bool odd = group() % 2;
    uint32_t columns[2] = {odd ? factor.pair[1] : factor.pair[0], odd ? factor.pair[3] : factor.pair[2]};
    float own[4] = {}, sums[TILES][4] = {};
    mma_m16n8k16(own, factor.pair, columns, T());
    if (MIXED) {
        multiply_mixed(sums, s, factor);
    } else {
        piece<STATE> same = {{factor.all.bits}};
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

DEVICE void write_output(const struct gated_delta_args &a, int head, float first, float second)
{
    T *to = (T *)a.output.data + blockIdx.z * (a.output.sequence + a.output.token) + head * a.output.head + blockIdx.x * VALUES;
    const float two[OWN_VALUES] = {first, second};
    if (warp() == 0)
        store(to + value_of(0), two);
}

/* The gains of the thread's values; their outputs are written. */
DEVICE void finish(float (&gain)[OWN_VALUES], const struct products (&parts)[WARPS], const struct gated_delta_args &a, int head,
                   const struct token &x)
{
    float k[OWN_VALUES] = {}, q[OWN_VALUES] = {}, out[OWN_VALUES], kk = 0.0f, kq = 0.0f, qq = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float2 of_k = *(const float2 *)&parts[w].k[value_of(0)], of_q = *(const float2 *)&parts[w].q[value_of(0)];
        float4 own = *(const float4 *)&parts[w].kk;
        k[0] += of_k.x, k[1] += of_k.y, q[0] += of_q.x, q[1] += of_q.y;
        kk += own.x, kq += own.y, qq += own.z;
    }
    float k_norm = a.l2norm ? rsqrt_approx(kk + 1e-6f) : 1.0f, scale = a.l2norm ? a.scale * rsqrt_approx(qq + 1e-6f) : a.scale;
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        gain[i] = x.beta * (x.v[i] - x.alpha * k_norm * k[i]) * k_norm;
        out[i] = scale * (x.alpha * q[i] + gain[i] * kq);
    }
    write_output(a, head, out[0], out[1]);
}

/* The state after the token. */
DEVICE void store_state(const piece<STATE> (&s)[KEYS], const struct state_pool &pool, int64_t row, int head,
                        const struct token &x, const float (&own)[OWN_VALUES])
{
    STATE *to = (STATE *)pool.data + place(pool, row, head);
    float gain[8], k[KEYS];
    piece<T> keys;
#pragma unroll
    for (int i = 0; i < 8; i++)
        gain[i] = __shfl_sync(0xffffffffu, own[i % 2], i / 2, 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
        keys.pair[i] = __shfl_sync(0xffffffffu, x.factor.pair[i], lane4());
    widen(k, keys.all);
#pragma unroll
    for (int i = 0; i < KEYS; i++) {
        float y[8];
        widen(y, s[i].all);
#pragma unroll
        for (int n = 0; n < 8; n++)
            y[n] = x.alpha * y[n] + gain[n] * k[i];
        vec<STATE, 8> narrowed;
        narrow(narrowed, y);
        store_global_by<8>(to + i * pool.line, narrowed);
    }
}

/* Of a multiprocessor; elsewhere ptxas takes more registers. */
enum { BLOCKS = (__CUDA_ARCH__ == 900 && !MIXED ? 768 : 640) / THREADS };

extern "C" __global__ void TOGETHER __launch_bounds__(THREADS, BLOCKS)
    gated_delta_decode_values_sm80(const __grid_constant__ struct gated_delta_args a)
{
    __shared__ __align__(16) struct products parts[WARPS];
    int head = blockIdx.y;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, blockIdx.z);
    if (a.pads && row < 0) {
        write_output(a, head, 0.0f, 0.0f);
        return;
    }
    piece<STATE> s[KEYS];
    load_state(s, a.initial, row, head);
    prefetch_state<STATE>(a, AHEAD, VALUES);
    struct token x;
    load_token(x, a, head);
    row = state_row(a.final_rows, blockIdx.z);
    find_products(parts[warp()], s, x.factor);
    __syncthreads();
    float gain[OWN_VALUES];
    finish(gain, parts, a, head, x);
    if (a.final.data && row >= 0)
        store_state(s, a.final, row, head, x, gain);
}
