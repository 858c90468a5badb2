/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of 16 packed rows, which one warp holds in registers, over tiles of keys and values in shared memory: what
 * batch_prefill_sm80 is made of.
 *
 * A tile is tokens by elements, row by row. The 16-byte chunk c of a row lies at place c ^ (row % 8), so that neither copies nor
 * ldmatrix have bank conflicts; where chunks are no multiple of 8, at c, and rows are 16 bytes longer. Fragments are those of
 * mma.cuh: a lane holds parts of rows g = lane / 4 and g + 8, columns 2t, 2t + 1 with t = lane % 4 of each 8.
 *
 *   T        f16, bf16
 *   HEAD_DIM, HEAD_DIM_VO multiples of 16, up to 256 or 512
 *   ALIGNED  1: q, k, v and out, and their strides, are multiples of 16 bytes; 0: of one element */
#ifndef ATTENTION_TILE_CUH
#define ATTENTION_TILE_CUH

#include "attention_rules.cuh"
#include "mma.cuh"
#include "vec.cuh"

#ifndef HEAD_DIM_VO
#define HEAD_DIM_VO HEAD_DIM
#endif

enum { CHUNKS = HEAD_DIM / 8, ROW_BYTES = ATTENTION_ROW_BYTES(HEAD_DIM) };
/* Of a block's values. */
enum { COLUMNS = ATTENTION_PREFILL_COLUMNS(HEAD_DIM_VO), VALUE_ROW_BYTES = ATTENTION_ROW_BYTES(COLUMNS) };
/* From sm_100 on ptxas computes so many addresses of 256 columns ahead of the loop that registers spill. */
enum { SPARES_REGISTERS = __CUDA_ARCH__ >= 1000 && COLUMNS >= 256 };
#define HEADROOM 6.0f /* of weights, which are summed in float32: a power of two */
#define SIGNS 0x80008000u /* of two elements */
enum { COPIES_AT_ONCE = ALIGNED && !SPARES_REGISTERS ? 8 : 1 }; /* of a thread, to unroll loops by */

/* The state of 16 rows; index 0 is row g, 1 is row g + 8. Logits are in base 2. */
struct rows {
    float top[2];            /* of the logits so far, none is above it by more than HEADROOM */
    float sum[2];            /* of exp2(logit - top), over this lane's columns */
    float o[COLUMNS / 8][4]; /* values weighted alike: columns 8i + 2t, of row g, then of g + 8 */
};

/* Where a chunk lies in a row of DIM elements, in bytes. */
template <int DIM> DEVICE int place(int row, int chunk) { return (DIM % 64 ? chunk : chunk ^ (row & 7)) << 4; }

template <int DIM = HEAD_DIM> DEVICE uint32_t chunk_address(uint32_t tile, int row, int chunk)
{
    return tile + row * ATTENTION_ROW_BYTES(DIM) + place<DIM>(row, chunk);
}

/* The address of a chunk `chunks` (an even number) further along a row than the one at `address`, which is its first or
 * second. */
template <int DIM = HEAD_DIM> DEVICE uint32_t further(uint32_t address, int chunks)
{
    return DIM % 64 ? address + (chunks << 4) : (address ^ (chunks & 7) << 4) + (chunks >> 3 << 7);
}

/* Eight elements to shared memory. */
DEVICE void copy_chunk(uint32_t to, const T *from)
{
#if ALIGNED
    cp_async_16(to, from, 16);
#else
    uint32_t x[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = from[2 * i].bits | (uint32_t)from[2 * i + 1].bits << 16;
    *(uint4 *)__cvta_shared_to_generic(to) = make_uint4(x[0], x[1], x[2], x[3]);
#endif
}

/* Queries of rows g and g + 8, NULL for rows that do not exist, as fragments. */
DEVICE void load_queries(uint32_t (&q)[HEAD_DIM / 16][4], const T *low, const T *high, uint32_t signs)
{
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; i++, column += 16) {
        q[i][0] = low ? load_pair<ALIGNED>(low + column) : 0;
        q[i][1] = high ? load_pair<ALIGNED>(high + column) : 0;
        q[i][2] = low ? load_pair<ALIGNED>(low + column + 8) : 0;
        q[i][3] = high ? load_pair<ALIGNED>(high + column + 8) : 0;
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[i][j] ^= signs;
    }
}

/* Fragments of the warp's queries in shared memory: 16 columns, those of chunks 2k and 2k + 1. */
template <int BANDS> DEVICE void load_step(uint32_t (&q)[BANDS][4], uint32_t queries, int k)
{
    int lane = threadIdx.x % 32;
    uint32_t first = chunk_address(queries, threadIdx.x / 32 * 16 * BANDS + lane % 16, lane / 16);
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        ldmatrix_x4(q[b], further(first, 2 * k) + 16 * b * ROW_BYTES);
}

DEVICE void clear(struct rows &r)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        r.top[h] = -INFINITY;
        r.sum[h] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            r.o[i][j] = 0.0f;
}

/* s[b][i] += products of 16 columns, those of chunks 2k and 2k + 1, of the queries of band b and of the tokens 8i to 8i + 7 of a
 * tile. What is loaded serves all bands of 16 rows. */
template <int BANDS, int N>
DEVICE void multiply_keys(float (&s)[BANDS][N][4], const uint32_t (&q)[BANDS][4], uint32_t keys, int k)
{
    int lane = threadIdx.x % 32;
    uint32_t first = chunk_address<HEAD_DIM>(keys, lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, further<HEAD_DIM>(first, 2 * k) + 8 * i * ROW_BYTES);
#pragma unroll
        for (int b = 0; b < BANDS; b++)
            mma_m16n16k16(&s[b][i], q[b], r, T());
    }
}

template <int N> DEVICE void clear_logits(float (&s)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[i][j] = 0.0f;
}

template <int N> DEVICE void cap_logits(float (&s)[N][4], struct logit_rule rule)
{
    if (rule.cap > 0.0f) {
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[i][j] = rule.cap * tanh_exp2(s[i][j]);
    }
}

/* s[i] = products of queries and the tokens 8i to 8i + 7 of a tile of 8 * N keys. */
template <int N> DEVICE void multiply_queries(float (&s)[N][4], const uint32_t (&q)[HEAD_DIM / 16][4], uint32_t keys)
{
    clear_logits(s);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++)
        multiply_keys((float (&)[1][N][4])s, (const uint32_t (&)[1][4])q[k], keys, k);
}

template <int N> DEVICE void scale_logits(float (&s)[N][4], struct logit_rule rule)
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[i][j] *= rule.factor;
    cap_logits(s, rule);
}

template <int N> DEVICE void compute_logits(float (&s)[N][4], const uint32_t (&q)[HEAD_DIM / 16][4], uint32_t keys,
                                            struct logit_rule rule)
{
    multiply_queries(s, q, keys);
    scale_logits(s, rule);
}

/* Hides logits of each row before the column limit[h], or from it on; `first` is the column of s[0]. */
template <int N> DEVICE void mask_logits(float (&s)[N][4], int first, const int (&limit)[2], bool behind)
{
    int column = first + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[i][j] = (8 * i + j % 2 >= limit[j / 2] - column) == behind ? -INFINITY : s[i][j];
}

/* Weights become relative to the rows' largest logits, of which this lane's share in a tile is `top`. */
DEVICE void raise_top(struct rows &r, const float (&top)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most = fmaxf(r.top[h], top[h]);
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        float shrink = most == -INFINITY ? 1.0f : exp2_approx(r.top[h] - most);
        r.top[h] = most;
        r.sum[h] *= shrink;
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i++) {
            r.o[i][2 * h] *= shrink;
            r.o[i][2 * h + 1] *= shrink;
        }
    }
}

/* This lane's largest logits of a tile, which are s * unit with unit > 0, and whether a weight of the 16 rows would exceed
 * 2^HEADROOM. */
template <int N> DEVICE bool find_top(float (&top)[2], const struct rows &r, const float (&s)[N][4], float unit)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
        for (int i = 1; i < N; i++)
            top[h] = fmaxf(top[h], fmaxf(s[i][2 * h], s[i][2 * h + 1]));
        top[h] *= unit;
    }
    return __any_sync(0xffffffffu, top[0] > r.top[0] + HEADROOM || top[1] > r.top[1] + HEADROOM);
}

/* Turns logits of each band into weights relative to a bound of the rows' largest logits. The bound follows only once a weight of
 * the 16 rows would exceed 2^HEADROOM: most tiles leave the sums as they are. */
template <int BANDS, int N> DEVICE void weigh(struct rows (&r)[BANDS], float (&s)[BANDS][N][4], float unit)
{
    float top[BANDS][2];
    bool rises[BANDS], any = false;
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        any |= rises[b] = find_top(top[b], r[b], s[b], unit);
    if (any) {
#pragma unroll
        for (int b = 0; b < BANDS; b++)
            if (rises[b])
                raise_top(r[b], top[b]);
    }
#pragma unroll
    for (int b = 0; b < BANDS; b++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            /* nothing seen yet: all weights are 0, not NaN */
            float base = r[b].top[h] == -INFINITY ? 0.0f : r[b].top[h], sum = 0.0f;
#pragma unroll
            for (int i = 0; i < N; i++)
#pragma unroll
                for (int j = 2 * h; j < 2 * h + 2; j++) {
                    s[b][i][j] = exp2_approx(fmaf(s[b][i][j], unit, -base));
                    sum += s[b][i][j];
                }
            r[b].sum[h] += sum;
        }
}

/* o += weights times a tile of 8 * N values, of each band. */
template <int BANDS, int N> DEVICE void accumulate(struct rows (&r)[BANDS], const float (&s)[BANDS][N][4], uint32_t values)
{
    int lane = threadIdx.x % 32;
    uint32_t first = chunk_address<COLUMNS>(values, lane % 16, lane / 16);
    if (SPARES_REGISTERS || (PARTS > 1 && __CUDA_ARCH__ >= 1000))
        forget(lane);
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        uint32_t weights[BANDS][4];
#pragma unroll
        for (int b = 0; b < BANDS; b++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                weights[b][j] = pack2(T(), s[b][k + j / 2][j % 2 * 2], s[b][k + j / 2][j % 2 * 2 + 1]);
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i += 2) {
            uint32_t x[4];
            ldmatrix_x4_trans(x, further<COLUMNS>(first, i) + 8 * k * VALUE_ROW_BYTES);
#pragma unroll
            for (int b = 0; b < BANDS; b++)
                mma_m16n16k16(&r[b].o[i], weights[b], x, T());
        }
    }
}

template <int N> DEVICE void accumulate(struct rows &r, const float (&s)[N][4], uint32_t values)
{
    accumulate((struct rows (&)[1])r, (const float (&)[1][N][4])s, values);
}

/* Sums over the lanes that share a row. */
DEVICE void complete_sums(struct rows &r)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        r.sum[h] += __shfl_xor_sync(0xffffffffu, r.sum[h], 1);
        r.sum[h] += __shfl_xor_sync(0xffffffffu, r.sum[h], 2);
    }
}

#endif
