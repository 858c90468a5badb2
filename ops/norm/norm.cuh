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
 *   ACCESS       1, 2, 4, 8, 16, at most VEC: elements that one access may load or store, as the tensors lie */
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

/* To e2m1 a sum with the residual counts as it is stored. */
#define SUMS_ROUNDED (BLOCK_SIZE && ADD_RESIDUAL)

/* Threads of a block; e2m1 takes more than 64 registers. */
#define MAX_THREADS (BLOCK_SIZE ? 512 : 1024)

/* Halves of a piece lie 32 halves apart, those of a warp's pieces side by side. Where a thread's 32 bytes are neighbours, each
 * access of 16 touches twice as many lines as it needs. */
#ifndef SPLIT
#define SPLIT 0
#endif
enum { PARTS = SPLIT ? 2 : 1, PART = VEC / PARTS, PART_ACCESS = SPLIT ? PART : ACCESS, PARTS_APART = 32 * PART };

/* Elements of a row, if the kernel knows them. */
#ifndef HIDDEN
#define HIDDEN 0
#endif

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

struct weights {
    vec<W, VEC> weight, beta;
};

/* Of all groups. */
DEVICE int64_t rows_of(const struct norm_args &a) { return GROUPED ? a.rows * a.groups : a.rows; }

DEVICE uint32_t hidden_of(const struct norm_args &a) { return HIDDEN ? HIDDEN : (uint32_t)a.hidden; }

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
    r.swizzled_scales = a.swizzled_scales + block_scale_row(SCALES_128X4, (uint32_t)index, hidden_of(a) / BLOCK_SIZE);
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
    w.weight = load_elements<CONSTANT>((const W *)a.weight + at);
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
DEVICE uint32_t scale_in_row(uint32_t block) { return block / 4 * block_scale_step(SCALES_128X4) + block % 4; }

/* Elements from one piece of a thread to the next. If these are no multiple of four blocks, scales in tiles are not equally far
 * apart. */
#ifndef STEP
#define STEP 0
#endif
enum { STEADY = STEP % (4 * BLOCK_SIZE) == 0 };

/* The row from a thread's first element on: its pieces have constant places then. */
DEVICE struct norm_row row_from(struct norm_row r, uint32_t first)
{
    r.input += first;
    r.residual += first;
    r.out += first / 2;
    r.y += first;
    r.linear_scales += first / BLOCK_SIZE;
    r.first_block = first / BLOCK_SIZE;
    if (STEADY)
        r.swizzled_scales += scale_in_row(r.first_block);
    return r;
}

/* Writes the zeros that pad the swizzled scales of a row: behind its blocks, or all if it lies behind the last row. After
 * pdl_wait. */
DEVICE void pad_scales(const struct norm_args &a, const struct norm_row &row, bool exists, int thread, int threads)
{
    uint32_t blocks = hidden_of(a) / BLOCK_SIZE;
#pragma unroll 1
    for (uint32_t i = (exists ? blocks : 0) + thread; i < (blocks + 3) / 4 * 4; i += threads)
        row.swizzled_scales[scale_in_row(i)] = 0;
}

/* By a block that has the row blockIdx.x alone, after pdl_wait. False if that lies behind the last row, so that all is done. */
DEVICE bool pad_row_of_block(const struct norm_args &a, const struct norm_row &row)
{
    if (!(SCALES & 2) || !a.pads)
        return true;
    bool exists = blockIdx.x < rows_of(a);
    pad_scales(a, row, exists, threadIdx.x, blockDim.x);
    return exists;
}

/* The largest magnitudes of a piece's parts become what the parts are multiplied with; one thread of each block stores the scale.
 * Of two parts neighbours have halves of two blocks: each speaks for one. */
DEVICE void scale_parts(float (&part)[PARTS], float global_scale, const struct norm_row &row, int at)
{
    bool second = PARTS > 1 && threadIdx.x % 2;
    float amax = second ? part[PARTS - 1] : part[0];
    if (PARTS > 1)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, second ? part[0] : part[PARTS - 1], 1));
    if (PARTS > 1 && BLOCK_SIZE > VEC)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
    if (PARTS == 1)
        amax = lanes_max(amax, BLOCK_SIZE / VEC);
    struct block_scale s = E8M0 ? block_scale_e8m0(amax, 6.0f) : block_scale_e4m3(amax, global_scale);
    if (threadIdx.x / PARTS % (BLOCK_SIZE / VEC) == 0) {
        uint32_t block = (uint32_t)(at + second * PARTS_APART) / BLOCK_SIZE;
        if (SCALES & 1)
            row.linear_scales[block] = (uint8_t)s.code;
        if (SCALES & 2)
            row.swizzled_scales[scale_in_row(STEADY ? block : row.first_block + block)] = (uint8_t)s.code;
    }
    part[0] = s.multiplier;
    if (PARTS > 1) {
        float other = __shfl_xor_sync(0xffffffffu, s.multiplier, 1);
        part[0] = second ? other : s.multiplier;
        part[PARTS - 1] = second ? s.multiplier : other;
    }
}

DEVICE void store_codes(const uint32_t (&words)[PART / 8], const struct norm_row &row, int at)
{
    vec_elements<uint32_t, PART / 8> codes;
    vec<uint8_t, PART / 2> bytes;
#pragma unroll
    for (int i = 0; i < PART / 8; i++)
        codes.at[i] = words[i];
    bytes.bits = codes.all.bits;
    store_vec_by<(PART_ACCESS > 1 ? PART_ACCESS / 2 : 1)>((uint8_t *)row.out + at / 2, bytes);
}

#if WEIGHED
/* y = x * weight, rounded to T, takes the place of x. waits: it is worked out where it stands, so that x and weights need no
 * registers while the row's statistics are waited for. Returns the largest magnitude of either half of the pairs. W is T. */
DEVICE uint32_t weigh_piece(struct piece &p, const struct weights &w, bool waits = true)
{
    vec_elements<uint32_t, VEC / 2> pairs, factors;
    uint32_t most;
    pairs.all.bits = p.input.bits;
    factors.all.bits = w.weight.bits;
#pragma unroll
    for (int i = 0; i < VEC / 2; i++) {
        pairs.at[i] = mul2(T(), pairs.at[i], factors.at[i]);
        most = i ? magnitude2(T(), most, pairs.at[i]) : pairs.at[0];
    }
    p.input.bits = pairs.all.bits;
    if (waits) {
        forget(p.input);
        forget(most);
    }
    return most;
}

/* Of y, times deviation; in pairs as far as that goes. What is the largest before deviation is the largest after it. Codes
 * follow from one product, y times a part of deviation * multiplier. */
DEVICE void finish_weighed(const struct piece &p, const struct norm_row &row, int at, uint32_t most, float deviation,
                           float global_scale)
{
    float x[VEC];
    uint32_t codes[VEC / 8];
    float2 two = unpack2(T(), most);
    float amax = fmaxf(fmaxf(fabsf(two.x), fabsf(two.y)) * deviation, 0.0f), multiplier[] = {amax};
    scale_parts(multiplier, global_scale, row, at);
    if (E8M0 && amax == 0.0f)
        multiplier[0] = 1.0f; /* times deviation, that of 2^127 may be infinite */
    float part = deviation * E2M1_PART * multiplier[0];
    widen(x, p.input);
    if (part < 1.17549435e-38f) { /* lacks digits, or is 0 */
        part = deviation * multiplier[0];
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] *= E2M1_PART;
    }
    e2m1_pack_up<VEC>(codes, x, part);
    store_codes(codes, row, at);
}
#endif
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
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        uint32_t codes[PART / 8];
        part[i] = e2m1_part(*(float(*)[PART])(x + i * PART), part[i]);
        e2m1_pack_up<PART>(codes, x + i * PART, part[i]);
        store_codes(codes, row, at + i * PARTS_APART);
    }
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
