/* SPDX-License-Identifier: Apache-2.0 */
/* What the norm kernels share: a row's place in each tensor, its pieces of VEC elements as loaded, and what becomes of a piece
 * once the row's statistics are known.
 *
 *   T            dtype of input: f16, bf16
 *   W            dtype of weight and beta: T or f32
 *   R            dtype of the residual: T or f32
 *   OUT          dtype of the output: T, e4m3, e5m2; u8 with BLOCK_SIZE
 *   ADD_RESIDUAL 0, 1: x = input, or input + residual, which is stored, rounded
 *   LAYERNORM    0: x / rms(x) * (weight + weight_bias); 1: (x - mean(x)) / deviation(x) * (weight + weight_bias) + beta
 *   SILU         0, 1: then silu of that
 *   BLOCK_SIZE   0; 16, 32: the output is e2m1 with a scale for so many elements
 *   E8M0         the scales are 0: e4m3, 1: e8m0
 *   BIASED       0: weight_bias is 0
 *   VEC          1, 2, 4, 8; 16 with BLOCK_SIZE; divides hidden
 *   ACCESS       1, 2, 4, 8, at most VEC: elements that one access may load or store, as the tensors lie */
#ifndef NORM_CUH
#define NORM_CUH

#include "activation.cuh"
#include "block_scale.h"
#include "fp4.cuh"
#include "pdl.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "norm_args.h"

/* Weights are constant: they can be fetched while the previous kernel still writes the input. Several pieces of 32 bits would
 * take too many registers; beside silu, whose code is longer from sm_100 on, those of 16 there, too. */
#define WEIGHTS_FIRST(pieces) ((sizeof(W) == 2 && !(SILU && __CUDA_ARCH__ >= 1000)) || (pieces) == 1)

/* Elements are multiplied with their weights first, and rounded. */
#define WEIGHED (BLOCK_SIZE && !SILU && !ADD_RESIDUAL)

/* Threads of a block; e2m1 takes more than 64 registers. */
#define MAX_THREADS (BLOCK_SIZE ? 512 : 1024)

/* Halves of a piece lie 128 elements apart, those of a warp's pieces side by side. Where a thread's 8 elements of 32 bits are
 * neighbours, each access of 16 bytes touches twice as many lines as it needs. */
#ifndef SPLIT
#define SPLIT 0
#endif
enum { PART = SPLIT ? VEC / 2 : VEC, PART_ACCESS = SPLIT ? PART : ACCESS, PARTS_APART = 32 * PART };

/* 0: there is one group. */
#ifndef GROUPED
#define GROUPED 1
#endif

struct norm_row {
    const T *input;
    R *residual;
    OUT *out;
#if BLOCK_SIZE
    T *y;
    uint8_t *linear_scales;
    int64_t index;
#endif
};

struct piece {
    vec<T, VEC> input;
    vec<R, VEC> residual;
};

struct weights {
    vec<W, VEC> weight, beta;
};

/* Of all groups. */
DEVICE int64_t rows_of(const struct norm_args &a) { return GROUPED ? a.rows * a.groups : a.rows; }

/* The number of rows is at most 2^31 - 1. The quotient of index and groups is the upper half of a product. */
DEVICE struct norm_row norm_row(const struct norm_args &a, int64_t index)
{
    uint64_t next = (uint32_t)index + 1, low = (uint32_t)a.groups_inverse * next;
    int64_t row = index, group = 0;
    if (GROUPED) {
        row = (int64_t)(((a.groups_inverse >> 32) * next + (low >> 32)) >> 32);
        group = index - row * a.groups;
    }
    struct norm_row r;
    r.input = (const T *)a.input + row * a.input_stride[0] + group * a.input_stride[1];
    r.residual = (R *)a.residual + row * a.residual_stride[0] + group * a.residual_stride[1];
    r.out = (OUT *)a.out + row * a.out_stride[0] + group * a.out_stride[1];
#if BLOCK_SIZE
    r.y = (T *)a.y + row * a.y_stride[0] + group * a.y_stride[1];
    r.linear_scales = a.linear_scales + row * a.scale_stride[0] + group * a.scale_stride[1];
    r.index = index;
#endif
    return r;
}

template <class E> DEVICE vec<E, VEC> load_elements(const E *from)
{
    vec_accesses<E, VEC, PART> v;
#pragma unroll
    for (int i = 0; i < VEC / PART; i++)
        v.at[i] = load_vec_by<PART, PART_ACCESS>(from + i * PARTS_APART);
    return v.all;
}

template <class E> DEVICE void store_elements(E *to, const float (&x)[VEC])
{
    vec_accesses<E, VEC, PART> v;
    narrow(v.all, x);
#pragma unroll
    for (int i = 0; i < VEC / PART; i++)
#ifdef LANES
        store_global_by<PART_ACCESS>(to + i * PARTS_APART, v.at[i]);
#else
        store_vec_by<PART_ACCESS>(to + i * PARTS_APART, v.at[i]);
#endif
}

DEVICE void load_piece(struct piece &p, const struct norm_row &row, int64_t at)
{
    p.input = load_elements(row.input + at);
#if ADD_RESIDUAL
    p.residual = load_elements(row.residual + at);
#endif
}

DEVICE void load_weights(struct weights &w, const struct norm_args &a, int64_t at)
{
    w.weight = load_elements((const W *)a.weight + at);
#if LAYERNORM
    w.beta = load_elements((const W *)a.beta + at);
#endif
}

DEVICE void widen_piece(float (&x)[VEC], const struct piece &p)
{
    widen(x, p.input);
#if ADD_RESIDUAL
    float r[VEC];
    widen(r, p.residual);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] += r[j];
#endif
}

/* A piece waits for its row's statistics as it was loaded: in half the registers or less, and converted once more. */
DEVICE void keep_piece(struct piece &p)
{
#if VEC >= 4
    forget(p.input);
#if ADD_RESIDUAL
    forget(p.residual);
#endif
#endif
}

/* What a statistic sums: of x, or of its squares. */
DEVICE float piece_sum(const float (&x)[VEC])
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        sum += x[j];
    return sum;
}

DEVICE float piece_squares(const float (&x)[VEC])
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        sum += x[j] * x[j];
    return sum;
}

/* x becomes x - mean; the sum of its squares. */
DEVICE float center_piece(float (&x)[VEC], float mean)
{
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] -= mean;
    return piece_squares(x);
}

#if BLOCK_SIZE
/* Writes the zeros that pad the swizzled scales: behind a row's blocks, or all of a row behind the last. After pdl_wait. */
DEVICE void pad_scales(const struct norm_args &a, int64_t index, int thread, int threads)
{
    int64_t blocks = a.hidden / BLOCK_SIZE, rows = rows_of(a);
    if (!a.swizzled_scales || index >= block_scale_rows(SCALES_128X4, rows))
        return;
    uint8_t *scales = a.swizzled_scales + block_scale_row(SCALES_128X4, index, blocks);
#pragma unroll 1
    for (int64_t i = (index < rows ? blocks : 0) + thread; i < block_scale_blocks(SCALES_128X4, blocks); i += threads)
        scales[i / 4 * block_scale_step(SCALES_128X4) + i % 4] = 0;
}

/* Codes of a piece of y, and from one thread of each block the scale. */
DEVICE void store_fp4(const float (&y)[VEC], const struct norm_args &a, const struct norm_row &row, int64_t at, float global_scale)
{
    vec_elements<uint32_t, VEC / 8> codes;
    vec<uint8_t, VEC / 2> bytes;
    float amax = 0.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        amax = fmaxf(amax, fabsf(y[j]));
    amax = lanes_max(amax, BLOCK_SIZE / VEC);
    struct block_scale s = E8M0 ? block_scale_e8m0(amax, 6.0f) : block_scale_e4m3(amax, global_scale);
#pragma unroll
    for (int i = 0; i < VEC / 8; i++) {
        float eight[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            eight[j] = y[i * 8 + j];
        codes.at[i] = e2m1_pack(eight, s.multiplier);
    }
    bytes.bits = codes.all.bits;
    store_vec_by<(ACCESS > 1 ? ACCESS / 2 : 1)>((uint8_t *)row.out + at / 2, bytes);
    if (at % BLOCK_SIZE == 0) {
        int64_t block = at / BLOCK_SIZE;
        if (a.linear_scales)
            row.linear_scales[block] = (uint8_t)s.code;
        if (a.swizzled_scales)
            a.swizzled_scales[block_scale_offset(SCALES_128X4, row.index, block, a.hidden / BLOCK_SIZE)] = (uint8_t)s.code;
    }
}
#endif

/* What the elements of a quantised output are multiplied with; with BLOCK_SIZE the global scale. After pdl_wait. */
DEVICE float output_multiplier(const struct norm_args &a)
{
    float scale = a.scale ? *a.scale : a.scale_value;
    return BLOCK_SIZE ? scale : sizeof(OUT) == 1 ? 1.0f / scale : 1.0f;
}

/* Where x stays in registers, as soon as it is known: it is written while the threads wait for each other. */
DEVICE void store_residual(const float (&x)[VEC], const struct norm_row &row, int64_t at)
{
#if ADD_RESIDUAL
    store_elements(row.residual + at, x);
#endif
}

#if WEIGHED
/* x * weight, rounded to T, two at a time. W is T. */
DEVICE void weigh_piece(float (&x)[VEC], const vec<T, VEC> &input, const vec<T, VEC> &weight)
{
    vec_elements<uint32_t, VEC / 2> pairs, factors;
    vec<T, VEC> y;
    pairs.all.bits = input.bits;
    factors.all.bits = weight.bits;
#pragma unroll
    for (int i = 0; i < VEC / 2; i++)
        pairs.at[i] = mul2(T(), pairs.at[i], factors.at[i]);
    y.bits = pairs.all.bits;
    widen(x, y);
}
#endif

/* x: of mean 0 with LAYERNORM, weighed with WEIGHED. deviation: the reciprocal of the root mean square, or of the standard
 * deviation. */
DEVICE void finish_piece(float (&x)[VEC], const struct norm_args &a, const struct norm_row &row, int64_t at,
                         const struct weights &w, float deviation, float multiplier)
{
    float factor[VEC];
    widen(factor, w.weight);
#if BLOCK_SIZE && ADD_RESIDUAL
    round_to<R>(x);
#endif
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = x[j] * deviation * (WEIGHED ? 1.0f : BIASED ? factor[j] + a.weight_bias : factor[j]);
#if LAYERNORM
    widen(factor, w.beta);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] += factor[j];
#endif
#if SILU
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = silu(x[j]);
#endif
#if BLOCK_SIZE
    if (a.y)
        store_elements(row.y + at, x);
    store_fp4(x, a, row, at, multiplier);
#else
    if (sizeof(OUT) == 1) {
#if LAYERNORM
        round_to<T>(x);
#endif
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] *= multiplier;
    }
    store_elements(row.out + at, x);
#endif
}

#endif
