/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule for one token of each sequence, with states of 16 bits, values by keys: see gated_delta_decode.cuh. A warp
 * has 16 values.
 *
 * Operand a is a piece of a state as it was loaded: rows g are pairs 0 and 2 of its keys, rows g + 8 pairs 1 and 3 of the same
 * value. In operands b even columns are k and odd ones q, and columns 2 and 3 of 4 are those of the keys of rows g + 8. With a
 * gate for each key, or where q is of another dtype, columns are alpha k and alpha q (or k and q), rounded to the dtype of
 * states, and what rounding left; f16 ones times powers of two, since gates may be next to 0.
 *
 *   T        f16, bf16
 *   STATE    dtype of states: f16, bf16
 *   HEAD_DIM 64, 128
 *   GATES    as gated_delta_recurrent_sm80
 * Grid: HEAD_DIM / 64, num_heads, num_sequences; 128 threads. */
#include "gated_delta_decode.cuh"

/* A thread has PIECES pieces of 8 keys of two values; with the other threads of the same values it works out their output. */
enum { THREADS = 128, PIECES = D / 32, OWN_VALUES = 2 };
/* PARTS: k and q are two parts each. NARROW_RANGE: states are f16, which holds the second part times LOW. SPLITS_LAST: they are
 * divided when powers of two are known, or loads of both rows are on their way. */
enum { PARTS = PER_KEY || MIXED, NARROW_RANGE = !differ<STATE, f16>::value, LOW = NARROW_RANGE ? 2048 : 1 };
enum { SPLITS_LAST = NARROW_RANGE || MIXED };
enum { BLOCKS = PER_KEY && D == 64 && __CUDA_ARCH__ == 900 ? 8 : 5 /* of a multiprocessor; as measured */ };
enum { AHEAD = PER_KEY ? 198 : 165 * (128 / D) * (128 / D) /* states: half of those that an H200 has at work, or some more */ };

struct token {
    piece<T> k[PIECES], factor[PIECES]; /* factor: k in lanes whose group is even, q in the others */
    float v[OWN_VALUES], alpha, beta;
};

DEVICE int value_of(int i)
{
    return blockIdx.x * VALUES + 16 * warp() + 8 * i + group();
}
DEVICE int key_of(int piece)
{
    return 32 * piece + 8 * lane4();
}

DEVICE void load_token(struct token &x, const struct gated_delta_args &a, int head)
{
    const T *k = row_of(a.k, head_of(head, a.k_group)), *q = row_of(a.q, head_of(head, a.q_group)),
            *v = row_of(a.v, head_of(head, a.v_group)), *factor = group() % 2 ? q : k;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        x.k[i].all = load_vec<8>(k + key_of(i));
        x.factor[i].all = load_vec<8>(factor + key_of(i));
    }
    for (int i = 0; i < OWN_VALUES; i++)
        x.v[i] = to_float(v[value_of(i)]);
    load_gates(x.alpha, x.beta, a, blockIdx.z, head);
}

/* The thread's part of a state. */
DEVICE int64_t place(const struct state_pool &pool, int64_t row, int head)
{
    return row * pool.row + head * pool.head + value_of(0) * pool.line + key_of(0);
}

DEVICE int64_t step(const struct state_pool &pool, int value, int piece)
{
    return 8 * value * pool.line + 32 * piece;
}

DEVICE void load_state(piece<STATE> (&s)[OWN_VALUES][PIECES], const struct state_pool &pool, int64_t row, int head)
{
    const STATE *from = (const STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++)
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            s[i][j].all = load_vec<8>(from + step(pool, i, j));
}

/* Of the thread's values with k and q, and of k and q with each other. */
struct products {
    float k[OWN_VALUES], q[OWN_VALUES];
    float kk, kq, qq;
};

/* k and q, with PER_KEY times alpha, each as a sum of two that are rounded, the second one times LOW; and alpha. */
struct decayed {
    uint16_t part[4][D + 32]; /* k, q, and what is left of both; padded for the banks */
    float alpha[D];
    uint32_t largest[2][THREADS / 32]; /* bits of what each warp has of k and of q */
};

DEVICE void find_powers(float (&power)[2], struct decayed &all, const float (&x)[2])
{
    for (int i = 0; i < 2; i++)
        all.largest[i][warp()] = __reduce_max_sync(0xffffffffu, __float_as_uint(fabsf(x[i])));
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        uint4 of = *(const uint4 *)all.largest[i];
        power[i] = power_for(max(max(of.x, of.y), max(of.z, of.w)));
    }
}

DEVICE void split(struct decayed &all, int i, float x)
{
    STATE high, low;
    from_float(&high, x);
    from_float(&low, LOW * (x - to_float(high)));
    all.part[i][threadIdx.x] = high.bits;
    all.part[2 + i][threadIdx.x] = low.bits;
}

/* decay: what products with k and with q are to be multiplied by. Powers of two cost a barrier, and are for what f16 has no room
 * for: seldom anything if q is f16, too. */
DEVICE void split_token(struct decayed &all, float (&decay)[2], const struct gated_delta_args &a, float alpha, int head)
{
    float x[2] = {}, power[2] = {1.0f, 1.0f};
    bool own = SPLITS_LAST && D == THREADS ? true : threadIdx.x < D;
    if (own) {
        const T *row[2] = {row_of(a.k, head_of(head, a.k_group)), row_of(a.q, head_of(head, a.q_group))};
        all.alpha[threadIdx.x] = alpha;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            x[i] = (PER_KEY ? alpha : 1.0f) * to_float(row[i][threadIdx.x]);
            if (!SPLITS_LAST)
                split(all, i, x[i]);
        }
    }
    if (NARROW_RANGE && MIXED)
        find_powers(power, all, x);
    for (int i = 0; SPLITS_LAST && own && i < 2; i++)
        split(all, i, power[i] * x[i]);
    if (!NARROW_RANGE || MIXED) {
        __syncthreads();
    } else if (__syncthreads_or(fmaxf(fabsf(x[0]), fabsf(x[1])) > 32768.0f)) {
        find_powers(power, all, x);
        for (int i = 0; own && i < 2; i++)
            split(all, i, power[i] * x[i]);
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        decay[i] = (PER_KEY ? 1.0f : alpha) * inverse_of_power(power[i]);
}

/* Operand b: of a piece of k or q, the keys of rows g, or of rows g + 8. */
template <class Element> DEVICE void columns_of(uint32_t (&b)[2], const piece<Element> &x)
{
    bool second = group() / 2 % 2;
    b[0] = second ? x.pair[1] : x.pair[0];
    b[1] = second ? x.pair[3] : x.pair[2];
}

/* Of both kinds of rows. */
DEVICE float joined(float first, float second)
{
    float x = lane4() % 2 ? second : first;
    return x + __shfl_xor_sync(0xffffffffu, x, 1);
}

/* Of what this warp has. */
DEVICE void multiply(float (&sums)[OWN_VALUES][4], float (&own)[4], const piece<STATE> (&s)[OWN_VALUES][PIECES],
                     const struct token &x, const struct decayed *all)
{
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        uint32_t b[2];
        columns_of(b, x.factor[j]);
        mma_m16n8k16(own, x.factor[j].pair, b, T());
        if (PARTS) {
            piece<STATE> part;
            part.all = load_vec<8>((const STATE *)all->part[group() / 4 * 2 + group() % 2] + key_of(j));
            columns_of(b, part);
        }
#pragma unroll
        for (int tile = 0; tile < OWN_VALUES; tile++)
            mma_m16n8k16(sums[tile], s[tile][j].pair, b, STATE());
    }
}

DEVICE void find_products(struct products &y, const piece<STATE> (&s)[OWN_VALUES][PIECES], const struct token &x,
                          const struct decayed *all)
{
    float sums[OWN_VALUES][4] = {}, own[4] = {};
    multiply(sums, own, s, x, all);
    float left = joined(own[0], own[2]), right = joined(own[1], own[3]);
    float first = __shfl_xor_sync(0xffffffffu, left, 4), second = __shfl_xor_sync(0xffffffffu, right, 4);
    bool odd = group() % 2;
    y.kk = odd ? first : left;
    y.kq = odd ? left : right;
    y.qq = odd ? right : second;
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        y.k[i] = joined(sums[i][0], sums[i][2]);
        y.q[i] = joined(sums[i][1], sums[i][3]);
        if (PARTS) {
            float part = lane4() < 2 ? 1.0f : 1.0f / LOW;
            y.k[i] *= part;
            y.q[i] *= part;
            y.k[i] += __shfl_xor_sync(0xffffffffu, y.k[i], 2);
            y.q[i] += __shfl_xor_sync(0xffffffffu, y.q[i], 2);
        }
    }
}

DEVICE void write_output(const struct gated_delta_args &a, int head, const float (&x)[OWN_VALUES])
{
    T *to = (T *)a.output.data + blockIdx.z * (a.output.sequence + a.output.token) + head * a.output.head;
    if (lane4() == 0)
        for (int i = 0; i < OWN_VALUES; i++)
            from_float(&to[value_of(i)], x[i]);
}

/* The state after the token. */
DEVICE void store_state(const piece<STATE> (&s)[OWN_VALUES][PIECES], const struct state_pool &pool, int64_t row, int head,
                        const struct token &x, const float (&gain)[OWN_VALUES], const struct decayed *all)
{
    STATE *to = (STATE *)pool.data + place(pool, row, head);
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        float k[8], alpha[8];
        widen(k, x.k[j].all);
#if PER_KEY
        load(alpha, all->alpha + key_of(j));
#else
#pragma unroll
        for (int n = 0; n < 8; n++)
            alpha[n] = x.alpha;
#endif
#pragma unroll
        for (int i = 0; i < OWN_VALUES; i++) {
            float y[8];
            widen(y, s[i][j].all);
#pragma unroll
            for (int n = 0; n < 8; n++)
                y[n] = alpha[n] * y[n] + gain[i] * k[n];
            vec<STATE, 8> narrowed;
            narrow(narrowed, y);
            store_global_by<8>(to + step(pool, i, j), narrowed);
        }
    }
}

extern "C" __global__ void TOGETHER __launch_bounds__(THREADS, BLOCKS)
    gated_delta_decode_sm80(const __grid_constant__ struct gated_delta_args a)
{
    int head = blockIdx.y;
    pdl_wait();
    pdl_launch();
    int64_t row = initial_row(&a, blockIdx.z);
    float out[OWN_VALUES] = {}, gain[OWN_VALUES];
    if (a.pads && row < 0) {
        write_output(a, head, out);
        return;
    }
    piece<STATE> s[OWN_VALUES][PIECES];
    load_state(s, a.initial, row, head);
    prefetch_state<STATE>(a, AHEAD, VALUES);
    struct token x;
    load_token(x, a, head);
    row = state_row(a.final_rows, blockIdx.z);
    const struct decayed *all = NULL;
    float decay[2] = {x.alpha, x.alpha};
    if (PARTS) {
        __shared__ __align__(16) struct decayed shared;
        split_token(shared, decay, a, x.alpha, head);
        all = &shared;
    }
    struct products y;
    find_products(y, s, x, all);
    float k_norm = a.l2norm ? rsqrtf(y.kk + 1e-6f) : 1.0f, scale = a.l2norm ? a.scale * rsqrtf(y.qq + 1e-6f) : a.scale;
#pragma unroll
    for (int i = 0; i < OWN_VALUES; i++) {
        gain[i] = x.beta * (x.v[i] - decay[0] * k_norm * y.k[i]) * k_norm;
        out[i] = scale * (decay[1] * y.q[i] + gain[i] * y.kq);
    }
    write_output(a, head, out);
    if (a.final.data && row >= 0)
        store_state(s, a.final, row, head, x, gain, all);
}
