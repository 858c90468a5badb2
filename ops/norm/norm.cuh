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
 *   WANTS_Y      with BLOCK_SIZE and ADD_RESIDUAL, 1: y is stored, too
 *   SCALES       with BLOCK_SIZE, 1: linear ones are stored, 2: those in tiles, 3: both
 *   GROUPED      0: there is one group, a row is found without a product of 64 bits
 *   VEC          1, 2, 4, 8; 16 with BLOCK_SIZE; divides hidden
 *   ACCESS       1, 2, 4, 8, 16, at most VEC: elements that one access may load or store, as the tensors lie
 *
 * What a kernel makes of its own constants it defines before it includes this; absent is 0:
 *   SPLIT        1: halves of a piece lie 32 halves apart, those of a warp's pieces side by side. Where a thread's 32 bytes are
 *                neighbours, each access of 16 touches twice as many lines as it needs.
 *   HIDDEN       elements of a row, if the kernel knows them
 *   STEP         elements from one piece of a thread to the next, if it knows them. If these are no multiple of four blocks,
 *                scales in tiles are not equally far apart.
 *   EARLY        1: rows' places are worked out before pdl_wait, and not, as compilers do, where they are used
 *   PREPARED     1: so are the thread's places in them, and its weights are converted */
#ifndef NORM_CUH
#define NORM_CUH

#ifndef SPLIT
#define SPLIT 0
#endif
#ifndef HIDDEN
#define HIDDEN 0
#endif
#ifndef STEP
#define STEP 0
#endif
#ifndef EARLY
#define EARLY 0
#endif
#ifndef PREPARED
#define PREPARED 0
#endif

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

/* To e2m1 a sum with the residual counts as it is stored. */
#define SUMS_ROUNDED (BLOCK_SIZE && ADD_RESIDUAL)

/* Threads of a block; e2m1 takes more than 64 registers. */
#define MAX_THREADS (BLOCK_SIZE ? 512 : 1024)

enum { PARTS = SPLIT ? 2 : 1, PART = VEC / PARTS, PART_ACCESS = SPLIT ? PART : ACCESS, PARTS_APART = 32 * PART };

struct norm_row {
    const T *input;
    R *residual;
    OUT *out;
#if BLOCK_SIZE
    T *y;
    uint8_t *linear_scales, *swizzled_scales;
    uint32_t first_block; /* the thread's first one; swizzled_scales begin with it if STEADY, else with the row's */
#endif
};

struct piece {
    vec<T, VEC> input;
    vec<R, VEC> residual;
};

#if PREPARED
typedef float kept_weight;
#else
typedef W kept_weight;
#endif

struct weights {
    vec<kept_weight, VEC> weight;
    vec<W, VEC> beta;
};

/* Of all groups. */
DEVICE int64_t rows_of(const struct norm_args &a) { return GROUPED ? a.rows * a.groups : a.rows; }

DEVICE uint32_t hidden_of(const struct norm_args &a) { return HIDDEN ? HIDDEN : (uint32_t)a.hidden; }

DEVICE int64_t row_at(int64_t row, int64_t group, const int64_t (&stride)[2], uint32_t first)
{
    int64_t at = row * stride[0] + group * stride[1] + first;
    if (EARLY)
        forget(at);
    return at;
}

#if BLOCK_SIZE
DEVICE uint32_t scale_in_row(uint32_t block) { return block / 4 * block_scale_step(SCALES_128X4) + block % 4; }
#endif

/* From its element `first` on. The number of rows is at most 2^31 - 1. The quotient of index and groups is the upper half of a
 * product. */
DEVICE struct norm_row norm_row(const struct norm_args &a, int64_t index, uint32_t first = 0)
{
    uint64_t next = (uint32_t)index + 1, low = (uint32_t)a.groups_inverse * next;
    int64_t row = index, group = 0;
    if (GROUPED) {
        row = (int64_t)(((a.groups_inverse >> 32) * next + (low >> 32)) >> 32);
        group = index - row * a.groups;
    }
    struct norm_row r;
    r.input = (const T *)a.input + row_at(row, group, a.input_stride, first);
    r.residual = (R *)a.residual + row_at(row, group, a.residual_stride, first);
    r.out = (OUT *)a.out + row_at(row, group, a.out_stride, BLOCK_SIZE ? first / 2 : first);
#if BLOCK_SIZE
    r.y = (T *)a.y + row_at(row, group, a.y_stride, first);
    r.linear_scales = a.linear_scales + row_at(row, group, a.scale_stride, first / BLOCK_SIZE);
#if PREPARED
    int64_t scale = block_scale_row(SCALES_128X4, (uint32_t)index, hidden_of(a) / BLOCK_SIZE) + scale_in_row(first / BLOCK_SIZE);
    forget(scale);
    r.swizzled_scales = a.swizzled_scales + scale;
#else
    r.swizzled_scales = a.swizzled_scales + block_scale_row(SCALES_128X4, (uint32_t)index, hidden_of(a) / BLOCK_SIZE);
#endif
#endif
    return r;
}

template <bool CONSTANT = false, class E> DEVICE vec<E, VEC> load_elements(const E *from)
{
    vec_accesses<E, VEC, PART> v;
#pragma unroll
    for (int i = 0; i < VEC / PART; i++)
        v.at[i] = load_vec_by<PART, PART_ACCESS, CONSTANT>(from + i * PARTS_APART);
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

/* LATE: of a piece that is finished after others. As constants its weights are asked for before those are stored. Outputs of more
 * than a byte gain nothing by it, and one row of them loses; from sm_100 on registers would spill. */
template <bool LATE = false> DEVICE void load_weights(struct weights &w, const struct norm_args &a, int64_t at)
{
    enum { CONSTANT = LATE && sizeof(OUT) == 1 && __CUDA_ARCH__ < 1000 };
#if PREPARED
    float x[VEC];
    widen(x, load_elements<CONSTANT>((const W *)a.weight + at));
    narrow(w.weight, x);
    forget(w.weight);
#else
    w.weight = load_elements<CONSTANT>((const W *)a.weight + at);
#endif
#if LAYERNORM
    w.beta = load_elements<CONSTANT>((const W *)a.beta + at);
#endif
}

DEVICE void widen_piece(float (&x)[VEC], const struct piece &p, bool kept = false)
{
    widen(x, p.input);
#if ADD_RESIDUAL
    float r[VEC];
    widen(r, p.residual);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = SUMS_ROUNDED && kept ? r[j] : x[j] + r[j];
#endif
}

/* A piece waits for its row's statistics as it was loaded (or as the sum x that counts): in half the registers or less, and
 * converted once more. */
DEVICE void keep_piece(struct piece &p, const float (&x)[VEC])
{
#if SUMS_ROUNDED
    narrow(p.residual, x);
    forget(p.residual);
#elif VEC >= 4
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
#include "norm_fp4.cuh"
#else
DEVICE struct norm_row row_from(const struct norm_row &r, uint32_t) { return r; }
DEVICE bool pad_row_of_block(const struct norm_args &, const struct norm_row &) { return true; }
#endif

/* What the elements of a quantised output are multiplied with; with BLOCK_SIZE the global scale. After pdl_wait. */
DEVICE float output_multiplier(const struct norm_args &a)
{
    float scale = a.scale ? *a.scale : a.scale_value;
    return BLOCK_SIZE ? scale : sizeof(OUT) == 1 ? reciprocal_of_any(scale) : 1.0f;
}

/* Where x stays in registers, as soon as it is known: it is written while the threads wait for each other. */
DEVICE void store_residual(const float (&x)[VEC], const struct norm_row &row, int64_t at)
{
#if ADD_RESIDUAL
    store_elements(row.residual + at, x);
#endif
}

/* A piece waits for its row's statistic in p and, if it `weighs`, most. */
DEVICE void keep_or_weigh(const float (&x)[VEC], struct piece &p, const struct weights &w, uint32_t &most, bool weighs = true)
{
#if WEIGHED
    if (weighs)
        most = weigh_piece(p, w);
    else
        keep_piece(p, x);
#elif !LAYERNORM
    keep_piece(p, x);
#endif
}

/* x: of mean 0 with LAYERNORM. deviation: the reciprocal of the root mean square, or of the standard deviation. */
DEVICE void finish_piece(float (&x)[VEC], const struct norm_args &a, const struct norm_row &row, int64_t at,
                         const struct weights &w, float deviation, float multiplier)
{
    float factor[VEC];
    widen(factor, w.weight);
    deviation *= SILU ? -LOG2E : 1.0f;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = x[j] * deviation * (BIASED ? factor[j] + a.weight_bias : factor[j]);
#if LAYERNORM
    widen(factor, w.beta);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] += factor[j];
#endif
#if SILU
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] = silu_of_power(x[j]);
#endif
#if BLOCK_SIZE
    if (WANTS_Y)
        store_elements(row.y + at, x);
    float part[PARTS];
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        part[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < PART; j++)
            part[i] = fmaxf(part[i], fabsf(x[i * PART + j]));
    }
    scale_parts(part, multiplier, row, at);
    e2m1_parts(x, part);
    store_codes(x, part, row, at);
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

/* The same of a piece that waited; x counts with LAYERNORM only. */
DEVICE void finish_kept(float (&x)[VEC], const struct piece &p, const struct norm_args &a, const struct norm_row &row, int64_t at,
                        const struct weights &w, const uint32_t &most, float deviation, float multiplier)
{
#if WEIGHED
    finish_weighed(p, row, at, most, deviation, multiplier);
#else
    if (!LAYERNORM)
        widen_piece(x, p, true);
    finish_piece(x, a, row, at, w, deviation, multiplier);
#endif
}

#endif
