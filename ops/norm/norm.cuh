/* SPDX-License-Identifier: Apache-2.0 */
/* What the norm kernels share: a row's place in each tensor, its pieces of VEC elements as loaded, and what becomes of a piece
 * once the row's statistics are known.
 *
 *   T            dtype of input: f16, bf16
 *   W            dtype of weight and beta: T or f32
 *   R            dtype of the residual: T or f32
 *   OUT          dtype of the output: T, e4m3, e5m2
 *   ADD_RESIDUAL 0, 1: x = input, or input + residual, which is stored, rounded
 *   LAYERNORM    0: x / rms(x) * (weight + weight_bias); 1: (x - mean(x)) / deviation(x) * (weight + weight_bias) + beta
 *   SILU         0, 1: then silu of that
 *   VEC          1, 2, 4, 8; divides hidden
 *   ACCESS       1, 2, 4, 8, at most VEC: elements that one access may load or store, as the tensors lie */
#ifndef NORM_CUH
#define NORM_CUH

#include "activation.cuh"
#include "pdl.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "norm_args.h"

/* Weights are constant: they can be fetched while the previous kernel still writes the input. Those of 32 bits would take too many
 * registers. */
#define WEIGHTS_FIRST (sizeof(W) == 2)

struct norm_row {
    const T *input;
    R *residual;
    OUT *out;
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
    struct norm_row r = {(const T *)a.input + row * a.input_stride[0] + group * a.input_stride[1],
                         (R *)a.residual + row * a.residual_stride[0] + group * a.residual_stride[1],
                         (OUT *)a.out + row * a.out_stride[0] + group * a.out_stride[1]};
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

/* What a quantised output is multiplied with. After pdl_wait. */
DEVICE float output_multiplier(const struct norm_args &a)
{
    return sizeof(OUT) == 1 ? 1.0f / (a.scale ? *a.scale : a.scale_value) : 1.0f;
}

/* deviation: the reciprocal of the root mean square, or of the standard deviation. */
DEVICE void finish_piece(float (&x)[VEC], const struct norm_args &a, const struct norm_row &row, int64_t at,
                         const struct weights &w, float mean, float deviation, float multiplier)
{
    float factor[VEC];
#if ADD_RESIDUAL
    store_by<ACCESS>(row.residual + at, x);
#endif
    widen(factor, w.weight);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = (x[j] - mean) * deviation * (factor[j] + a.weight_bias);
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
    if (sizeof(OUT) == 1) {
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] = (LAYERNORM ? round_to<T>(x[j]) : x[j]) * multiplier;
    }
    store_by<ACCESS>(row.out + at, x);
}

#endif
