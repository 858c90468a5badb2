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

enum { PIECES = 4 };

DEVICE void load_codes(float (&x)[VEC], const e4m3 *codes, int64_t column) { load(x, codes + column); }

DEVICE void load_codes(float (&x)[VEC], const e2m1x2 *codes, int64_t column)
{
    uint32_t word = load_vec<(VEC + 1) / 2>((const uint8_t *)codes + column / 2).bits;
    if (VEC == 1)
        word >>= column % 2 * 4;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        x[i] = e2m1_value(word >> i * 4);
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
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    int64_t first = ((int64_t)blockIdx.y * PIECES * blockDim.x + threadIdx.x) * VEC;
    if (row >= a.rows)
        return;
    pdl_launch();
    pdl_wait();
    float global_scale = a.global_scale ? *a.global_scale : a.global_value;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int64_t column = first + (int64_t)i * blockDim.x * VEC;
        if (column >= a.columns)
            return;
        float x[VEC], scale = scale_value(a.scales[block_scale_offset(a.layout, row, column / BLOCK, a.blocks)]);
        load_codes(x, (const CODE *)a.codes + row * a.code_stride, column);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] = x[j] * scale * global_scale;
        store((T *)a.out + row * a.out_stride + column, x);
    }
}
