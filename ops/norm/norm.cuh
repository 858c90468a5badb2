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

/* Threads of a block; e2m1 takes more than 64 registers. */
#define MAX_THREADS (BLOCK_SIZE ? 512 : 1024)

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

/* The number of rows is at most 2^31 - 1. */
DEVICE struct norm_row norm_row(const struct norm_args &a, int64_t index)
{
    int64_t row = index, group = 0;
    if (a.groups > 1) {
        row = (uint32_t)index / (uint32_t)a.groups;
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

DEVICE void load_piece(struct piece &p, const struct norm_row &row, int64_t at)
{
    p.input = load_vec_by<VEC, ACCESS>(row.input + at);
#if ADD_RESIDUAL
    p.residual = load_vec_by<VEC, ACCESS>(row.residual + at);
#endif
}

DEVICE void load_weights(struct weights &w, const struct norm_args &a, int64_t at)
{
    w.weight = load_vec_by<VEC, ACCESS>((const W *)a.weight + at);
#if LAYERNORM
    w.beta = load_vec_by<VEC, ACCESS>((const W *)a.beta + at);
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

/* What a statistic sums: of x, or of (x - mean)^2. */
DEVICE float piece_sum(const float (&x)[VEC])
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        sum += x[j];
    return sum;
}

DEVICE float piece_squares(const float (&x)[VEC], float mean)
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        sum += (x[j] - mean) * (x[j] - mean);
    return sum;
}

#if BLOCK_SIZE
/* Writes the zeros that pad the swizzled scales: behind a row's blocks, or all of a row behind the last. After pdl_wait. */
DEVICE void pad_scales(const struct norm_args &a, int64_t index, int thread, int threads)
{
    int64_t blocks = a.hidden / BLOCK_SIZE, rows = a.rows * a.groups;
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
    store_by<ACCESS>(row.residual + at, x);
#endif
}

/* deviation: the reciprocal of the root mean square, or of the standard deviation. */
DEVICE void finish_piece(float (&x)[VEC], const struct norm_args &a, const struct norm_row &row, int64_t at,
                         const struct weights &w, float mean, float deviation, float multiplier)
{
    float factor[VEC];
    widen(factor, w.weight);
#if BLOCK_SIZE && ADD_RESIDUAL
    round_to<R>(x);
#elif BLOCK_SIZE && !SILU
#pragma unroll
    for (int j = 0; j < VEC; j++) {
        x[j] *= factor[j];
        factor[j] = 1.0f;
    }
    round_to<T>(x);
#endif
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = (x[j] - mean) * deviation * (BIASED ? factor[j] + a.weight_bias : factor[j]);
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
        store_by<ACCESS>(row.y + at, x);
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
    store_by<ACCESS>(row.out + at, x);
#endif
}

#endif
