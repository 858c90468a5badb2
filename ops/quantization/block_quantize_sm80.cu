/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a row are rounded to CODE under a scale each.
 *
 * A thread has 16 columns of a row, BLOCK / 16 neighbouring lanes have a block. Block (x, y, z) has rows x * blockDim.y on of group
 * z, and the y-th run of blockDim.x * 16 columns, padding included. Columns past the last are 0, and so is their scale.
 *
 *   T       f16, bf16, f32, e4m3
 *   CODE    e2m1x2, e4m3, i8
 *   SCALE   0 to 3, see block_quantize_args.h
 *   BLOCK   16, 32, 64, 128, 256, 512
 *   LARGEST value of CODE
 *   GATED   1: a column is silu(gate) * up, rounded to T
 *   ALIGNED 1: 16-byte accesses, columns a multiple of 16; 0: element by element */
#include "pdl.cuh"
#include "vec.cuh"
#include "activation.cuh"
#include "block_scale.h"
#include "fp4.cuh"
#include "block_quantize_args.h"

enum { RUN = 16, VEC = ALIGNED ? 16 / sizeof(T) : 1, CODE_ELEMENTS = elements_of(CODE()) };

DEVICE void load_run(float (&x)[RUN], const T *from, int64_t columns)
{
#pragma unroll
    for (int i = 0; i < RUN / VEC; i++) {
        float part[VEC] = {};
        if (i * VEC < columns)
            load(part, from + i * VEC);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[i * VEC + j] = part[j];
    }
}

/* T(silu(x) * up) */
DEVICE void gate_run(float (&x)[RUN], const float (&up)[RUN])
{
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        T rounded;
        from_float(&rounded, silu(x[i]) * up[i]);
        x[i] = to_float(rounded);
    }
}

/* e4m3 elements are codes of a tensor whose scale global_scale is: they become f16 values up to 6 * 448 / global_scale. */
template <class Element> DEVICE void scale_input(Element, float (&)[RUN], float) {}
DEVICE void scale_input(e4m3, float (&x)[RUN], float global_scale)
{
    float factor = 6.0f / global_scale;
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        f16 half;
        from_float(&half, __fmul_rn(x[i], factor));
        x[i] = to_float(half);
    }
}

template <class Code> DEVICE void store_run(Code *to, float (&x)[RUN], float multiplier)
{
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

DEVICE void store_run(e2m1x2 *to, float (&x)[RUN], float multiplier)
{
    uint32_t word[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float y[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            y[i] = x[8 * half + i];
        word[half] = e2m1_pack(y, multiplier);
    }
#if ALIGNED
    *(uint2 *)to = make_uint2(word[0], word[1]);
#else
    for (int i = 0; i < 8; i++)
        to[i].bits = (uint8_t)(word[i / 4] >> i % 4 * 8);
#endif
}

DEVICE float block_amax(const float (&x)[RUN])
{
    float amax = 0.0f;
#pragma unroll
    for (int i = 0; i < RUN; i++)
        amax = fmaxf(amax, fabsf(x[i]));
#pragma unroll
    for (int step = BLOCK / RUN / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    return amax;
}

extern "C" __global__ void __launch_bounds__(256) block_quantize_sm80(const __grid_constant__ struct block_quantize_args a)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, group = blockIdx.z;
    int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * RUN, block = column / BLOCK;
    float x[RUN] = {}, global_scale = a.global_value;

    pdl_launch();
    pdl_wait();
    if (row < a.rows) {
        const T *input = (const T *)a.input + group * a.input_stride[0] + row * a.input_stride[1] + column;
        load_run(x, input, a.columns - column);
#if GATED
        float up[RUN];
        load_run(up, input + a.columns, a.columns - column);
        gate_run(x, up);
#endif
        if (a.global_scale)
            global_scale = a.global_scale[group * a.global_stride[0] + row * a.global_stride[1]];
    }
    if (a.inverse)
        global_scale = 1.0f / global_scale;
    scale_input(T(), x, global_scale);
    float amax = block_amax(x);
    if (a.mask && (row >= a.rows || row >= a.mask[group]))
        return;
    bool first = column % BLOCK == 0;
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    struct block_scale scale = SCALE == SCALE_E4M3 ? block_scale_e4m3(amax, global_scale) : block_scale_e8m0(amax, LARGEST);
    float multiplier = scale.multiplier;
    if (first && row < block_scale_rows(a.layout, a.rows) && block < block_scale_blocks(a.layout, a.blocks))
        ((uint8_t *)a.scales)[group * a.scale_stride[0] + block_scale_offset(a.layout, row, block, a.blocks)] = (uint8_t)scale.code;
#else
    float scale = fmaxf(amax, a.least_amax) / LARGEST;
    if (SCALE == SCALE_POWER)
        scale = e8m0_scale_value(block_scale_e8m0(fmaxf(amax, a.least_amax), LARGEST).code);
    float multiplier = 1.0f / scale;
    if (first && row < a.rows && column < a.out_columns)
        ((float *)a.scales)[row * a.scale_stride[0] + block * a.scale_stride[1]] = scale;
#endif
    if (row < a.rows && column < a.out_columns)
        store_run((CODE *)a.out + group * a.out_stride[0] + row * a.out_stride[1] + column / CODE_ELEMENTS,
                  x, multiplier);
}
