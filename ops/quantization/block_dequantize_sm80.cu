/* SPDX-License-Identifier: Apache-2.0 */
/* out = code * scale of its block * global_scale, the last product rounded to float32 first.
 *
 * A thread does PIECES pieces of VEC columns of a row, blockDim.x pieces apart. Block (x, y) has rows x * blockDim.y on.
 *
 *   T     f32, f16, bf16
 *   CODE  e2m1x2, e4m3
 *   E8M0  1: scales are e8m0, 0: e4m3
 *   BLOCK 16, 32
 *   VEC   1, 2, 4, 8; out and codes are aligned to it */
#include "pdl.cuh"
#include "vec.cuh"
#include "block_scale.h"
#include "fp4.cuh"
#include "block_dequantize_args.h"

enum { PIECES = 4, CODE_ELEMENTS = elements_of(CODE()), CODES = (VEC + CODE_ELEMENTS - 1) / CODE_ELEMENTS };

template <int N> DEVICE void widen_codes(float (&x)[N], vec<e4m3, N> codes, uint32_t)
{
    widen(x, codes);
}

template <int N> DEVICE void widen_codes(float (&x)[VEC], vec<e2m1x2, N> codes, uint32_t column)
{
#if VEC == 8
    e2m1_values(x, codes.bits);
#else
    uint32_t word = codes.bits;
    if (VEC == 1)
        word >>= column % 2 * 4;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        x[i] = e2m1_value(word >> i * 4);
#endif
}

DEVICE float scale_value(uint8_t code)
{
#if E8M0
    return code == 255 ? __uint_as_float(0x7fffffffu) : e8m0_scale_value(code);
#else
    return to_float(e4m3{code});
#endif
}

extern "C" __global__ void __launch_bounds__(256) block_dequantize_sm80(const __grid_constant__ struct block_dequantize_args a)
{
    uint32_t row = blockIdx.x * blockDim.y + threadIdx.y, step = blockDim.x * VEC;
    uint32_t first = (blockIdx.y * PIECES * blockDim.x + threadIdx.x) * VEC;
    const CODE *from = (const CODE *)a.codes + row * a.code_stride;
    T *out = (T *)a.out + row * a.out_stride;
    vec<CODE, CODES> codes[PIECES];
    uint8_t scales[PIECES];

    if (row >= a.rows)
        return;
    pdl_launch();
    pdl_wait();
    float global_scale = a.global_scale ? *a.global_scale : a.global_value;
    const uint8_t *row_scales = a.scales + block_scale_row(a.layout, row, a.blocks);
    uint32_t scale_step = block_scale_step(a.layout);
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        uint32_t column = first + i * step, block = column / BLOCK;
        if (column < (uint32_t)a.columns) {
            codes[i] = load_vec<CODES>(from + column / CODE_ELEMENTS);
            scales[i] = row_scales[block / 4 * scale_step + block % 4];
        }
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        uint32_t column = first + i * step;
        if (column >= (uint32_t)a.columns)
            return;
        float x[VEC], scale = scale_value(scales[i]);
        widen_codes(x, codes[i], column);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] = x[j] * scale * global_scale;
        store(out + column, x);
    }
}
