/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a row are rounded to CODE under a scale each.
 *
 * A thread has RUNS runs of RUN columns of a row, blockDim.x runs apart; BLOCK / RUN neighbouring lanes have a block. Block
 * (x, y, z) has rows x * blockDim.y on of group z, and the y-th stretch of RUNS * blockDim.x runs, padding included. Columns past
 * the last are 0, and so is their scale. If COLLECTS, with scales in tiles of 128 rows, blockDim.y is TILE_ROWS, and the
 * rows are those whose scales are neighbours: one store of 16 bytes takes as long as one of 4.
 *
 *   T       f16, bf16, f32, e4m3
 *   CODE    e2m1x2, e4m3, i8
 *   SCALE   0 to 3, see block_quantize_args.h
 *   BLOCK   16, 32, 64, 128, 256, 512
 *   LARGEST value of CODE
 *   GATED   1: a column is silu(gate) * up, rounded to T
 *   RUN     8, 16
 *   RUNS    1, 2, 3
 *   LAYOUT  of byte scales, see block_scale.h
 *   REHEARSES 1: few columns, see pdl.cuh
 *   GROUPED 0: there is one group, and no mask
 *   ALIGNED 1: 16-byte accesses, columns a multiple of 16; 0: element by element */
#include "pdl.cuh"
#include "vec.cuh"
#include "activation.cuh"
#include "block_scale.h"
#include "fp4.cuh"
#include "block_quantize_args.h"

enum { VEC = ALIGNED ? 16 / sizeof(T) : 1, CODE_ELEMENTS = elements_of(CODE()), MAX_THREADS = 256 };
enum { TILE_ROWS = 4, BYTE_SCALES = SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0 };
/* Scales of tiles are collected. A gated kernel waits for its arithmetic, so that it makes no difference there. */
enum { COLLECTS = BYTE_SCALES && LAYOUT == SCALES_128X4 && CODE_ELEMENTS == 2 && !GATED };

/* Of out and scales, and how much of them is there. scales: in the launch argument's layout, or a byte for each block. */
struct row {
    CODE *out;
    void *scales;
    uint32_t scale_step; /* of four blocks */
    uint32_t out_columns, blocks;
    float global_scale;
};

DEVICE vec<T, RUN> load_run(const T *from, int columns)
{
    vec_elements<T, RUN> run = {};
#if ALIGNED
    if (columns > 0)
        run.all = load_vec_by<RUN, VEC>(from);
#else
#pragma unroll
    for (int i = 0; i < RUN; i++)
        if (i < columns)
            run.at[i] = from[i];
#endif
    return run.all;
}

/* T(silu(gate) * up) */
DEVICE vec<T, RUN> gate_run(vec<T, RUN> gate, vec<T, RUN> up)
{
    float x[RUN], factor[RUN];
    widen(x, gate);
    silu_of<T>(x, largest(gate));
    widen(factor, up);
#pragma unroll
    for (int i = 0; i < RUN; i++)
        x[i] *= factor[i];
    narrow(gate, x);
    return gate;
}

/* e4m3 elements are codes of a tensor whose scale is global_scale: they become f16 values up to 6 * 448 / global_scale. */
template <class Element> DEVICE vec<Element, RUN> scale_input(vec<Element, RUN> run, float)
{
    return run;
}
DEVICE vec<f16, RUN> scale_input(vec<e4m3, RUN> run, float global_scale)
{
    float x[RUN], factor = 6.0f / global_scale;
    vec<f16, RUN> y;
    widen(x, run);
#pragma unroll
    for (int i = 0; i < RUN; i++)
        x[i] = __fmul_rn(x[i], factor);
    narrow(y, x);
    return y;
}

template <class Code, class Element> DEVICE void store_codes(Code *to, vec<Element, RUN> run, float multiplier)
{
    float x[RUN];
    widen(x, run);
#pragma unroll
    for (int i = 0; i < RUN; i++)
        x[i] = __fmul_rn(x[i], multiplier);
#if ALIGNED
    store(to, x);
#else
    for (int i = 0; i < RUN; i++)
        from_float(to + i, x[i]);
#endif
}

template <class Element> DEVICE void store_codes(e2m1x2 *to, vec<Element, RUN> y, float multiplier)
{
    uint32_t word[RUN / 8];
    e2m1_pack(word, y, multiplier);
#if ALIGNED
    vec_elements<uint32_t, RUN / 8> words;
#pragma unroll
    for (int i = 0; i < RUN / 8; i++)
        words.at[i] = word[i];
    store_vec((uint32_t *)to, words.all);
#else
    for (int i = 0; i < RUN / 2; i++)
        to[i].bits = (uint8_t)(word[i / 4] >> i % 4 * 8);
#endif
}

/* Codes and scale of a run that begins at a column of a row. Lanes that share a block come together, those past the end too. */
template <class Element>
DEVICE void quantize_run(const struct block_quantize_args &a, const struct row &row, vec<Element, RUN> run, uint32_t column)
{
    uint32_t block = column / BLOCK;
    float amax = largest(run);
#pragma unroll
    for (int step = BLOCK / RUN / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    bool stores_scale = column % BLOCK == 0 && block < row.blocks;
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    struct block_scale scale = SCALE == SCALE_E4M3 ? block_scale_e4m3(amax, row.global_scale) : block_scale_e8m0(amax, LARGEST);
    float multiplier = scale.multiplier;
    if (stores_scale)
        ((uint8_t *)row.scales)[block / 4 * row.scale_step + block % 4] = (uint8_t)scale.code;
#else
    float scale = fmaxf(amax, a.least_amax) / LARGEST;
    if (SCALE == SCALE_POWER)
        scale = e8m0_scale_value(block_scale_e8m0(fmaxf(amax, a.least_amax), LARGEST).code);
    float multiplier = 1.0f / scale;
    if (stores_scale)
        ((float *)row.scales)[block * a.scale_stride[1]] = scale;
#endif
    if (column < row.out_columns) {
        CODE *out = row.out + column / CODE_ELEMENTS;
        if (CODE_ELEMENTS == 2)
            multiplier = e2m1_part(run, multiplier, GATED);
        store_codes(out, run, multiplier);
    }
}

/* Of few rows, most blocks have no row: they write nothing but padding of scales. */
enum { PADS = GATED && RUN == 8 && BYTE_SCALES && LAYOUT != SCALES_LINEAR && !GROUPED };

DEVICE void pad_scales(const struct block_quantize_args &a, uint32_t index, uint32_t first)
{
    pdl_launch();
    pdl_wait();
    if (first % BLOCK == 0 && first / BLOCK < (uint32_t)a.scale_blocks && index < (uint32_t)a.scale_rows)
        ((uint8_t *)a.scales)[block_scale_offset(LAYOUT, index, first / BLOCK, (uint32_t)a.blocks)] = 0;
}

/* Codes of a block's scales, before they are stored together. */
typedef uint8_t scale_codes[TILE_ROWS][MAX_THREADS / TILE_ROWS * RUNS];

/* The block's part; rehearsed if it is not real, see pdl.cuh. */
DEVICE void quantize_block(const struct block_quantize_args &a, scale_codes &codes, bool real)
{
    const int32_t *mask = GROUPED ? a.mask : nullptr;
    bool collects = COLLECTS && !mask && (uint64_t)a.scales % 16 == 0;
    uint32_t index = blockIdx.x * blockDim.y + threadIdx.y, group = GROUPED ? blockIdx.z : 0, step = blockDim.x * RUN;
    if (COLLECTS)
        index = blockIdx.x / 32 * 128 + threadIdx.y * 32 + blockIdx.x % 32;
    uint32_t first = (blockIdx.y * RUNS * blockDim.x + threadIdx.x) * RUN;
    const T *input = (const T *)a.input + group * a.input_stride[0] + index * a.input_stride[1];

    if (PADS && blockIdx.x * blockDim.y >= (uint32_t)a.rows)
        return pad_scales(a, index, first);
    pdl_launch();
    if (real)
        pdl_wait();
    bool is_row = real && index < (uint32_t)a.rows, counts = !mask || (is_row && (int64_t)index < mask[group]);
    int columns = is_row && counts ? (int)a.columns : 0;
    vec<T, RUN> run[RUNS];
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        run[i] = load_run(input + first + i * step, columns - (int)(first + i * step));
#if GATED
    vec<T, RUN> up[RUNS];
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        up[i] = load_run(input + a.columns + first + i * step, columns - (int)(first + i * step));
#endif
    struct row row;
    row.out = (CODE *)a.out + group * a.out_stride[0] + index * a.out_stride[1];
    row.out_columns = is_row && counts ? (uint32_t)a.out_columns : 0;
    row.blocks = real && counts && index < (uint32_t)a.scale_rows ? (uint32_t)a.scale_blocks : 0;
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    uint32_t first_block = blockIdx.y * RUNS * step / BLOCK;
    uint8_t *scales = (uint8_t *)a.scales + group * a.scale_stride[0];
    row.scales = collects ? codes[threadIdx.y] - first_block : scales + block_scale_row(LAYOUT, index, (uint32_t)a.blocks);
    row.scale_step = collects ? 4 : block_scale_step(LAYOUT);
#else
    row.scales = (float *)a.scales + index * a.scale_stride[0];
#endif
    row.global_scale = a.global_value;
    if (a.global_scale && is_row)
        row.global_scale = a.global_scale[group * a.global_stride[0] + index * (uint32_t)a.global_stride[1]];
    if (a.inverse)
        row.global_scale = 1.0f / row.global_scale;
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
#if GATED
        run[i] = gate_run(run[i], up[i]);
#endif
        quantize_run(a, row, scale_input(run[i], row.global_scale), first + i * step);
    }
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    if (!collects)
        return;
    __syncthreads();
    uint32_t count = real ? min(RUNS * step / BLOCK, (uint32_t)a.scale_blocks - first_block) / 4 : 0;
    scales += block_scale_offset(SCALES_128X4, index - threadIdx.y * 32, first_block, (uint32_t)a.blocks);
    for (uint32_t i = threadIdx.y * blockDim.x + threadIdx.x; i < count; i += blockDim.x * blockDim.y) {
        vec_elements<uint32_t, TILE_ROWS> of_rows;
#pragma unroll
        for (int r = 0; r < TILE_ROWS; r++)
            of_rows.at[r] = *(const uint32_t *)&codes[r][i * 4];
        store_vec((uint32_t *)(scales + i * block_scale_step(SCALES_128X4)), of_rows.all);
    }
#endif
}

/* Gated, warps that load are needed beside those that work: registers suffice for four blocks. */
#if GATED
#define BOUNDS __launch_bounds__(MAX_THREADS, 4)
#else
#define BOUNDS __launch_bounds__(MAX_THREADS)
#endif

extern "C" __global__ void BOUNDS block_quantize_sm80(const __grid_constant__ struct block_quantize_args a)
{
    __shared__ __align__(4) scale_codes codes;
#if REHEARSES
    /* Gated, many blocks share a multiprocessor, and one brings the code for all. */
    bool skips = GATED && blockIdx.y * gridDim.x + blockIdx.x >= multiprocessors();
#pragma unroll 1
    for (int pass = skips; pass < 2; pass++)
        quantize_block(a, codes, pass);
#else
    quantize_block(a, codes, true);
#endif
}
