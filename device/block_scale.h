/* SPDX-License-Identifier: Apache-2.0 */
/* Block scales: runs of 16 or 32 elements of a row share a scale byte. Where that byte lies, and its value from the largest
 * magnitude of the block: the same text, and with IEEE arithmetic only the same bits, on the host, on CPUs and on GPUs. */
#ifndef BLOCK_SCALE_H
#define BLOCK_SCALE_H

#include "narrow.h"

/* Values as FLASHINFER_SCALES_*. */
enum { SCALES_128X4 = 0, SCALES_8X4 = 1, SCALES_LINEAR = 2 };

/* Rows and blocks with the padding that the layout stores. */
ANYWHERE int64_t block_scale_rows(int layout, int64_t rows)
{
    return layout == SCALES_LINEAR ? rows : layout == SCALES_128X4 ? (rows + 127) & ~127 : (rows + 7) & ~7;
}

ANYWHERE int64_t block_scale_blocks(int layout, int64_t blocks)
{
    return layout == SCALES_LINEAR ? blocks : (blocks + 3) & ~3;
}

ANYWHERE int64_t block_scale_bytes(int layout, int64_t rows, int64_t blocks)
{
    return block_scale_rows(layout, rows) * block_scale_blocks(layout, blocks);
}

/* Where the scale of a row and block lies, in a matrix of `blocks` blocks a row. The swizzled layouts are tiles of 128 (8)
 * rows by 4 blocks, row after row of tiles; in a tile of 128 rows, rows 32 apart are neighbours. In all layouts four blocks
 * are neighbours: a row has a first byte, and each further four blocks are a step on. */
ANYWHERE int64_t block_scale_row(int layout, uint32_t row, uint32_t blocks)
{
    uint64_t tiles = (blocks + 3) / 4;
    if (layout == SCALES_LINEAR)
        return (int64_t)((uint64_t)row * blocks);
    if (layout == SCALES_8X4)
        return (int64_t)(row / 8 * tiles * 32 + row % 8 * 4);
    return (int64_t)(row / 128 * tiles * 512) + (row % 32 * 16 + row % 128 / 32 * 4);
}

ANYWHERE uint32_t block_scale_step(int layout) { return layout == SCALES_LINEAR ? 4 : layout == SCALES_8X4 ? 32 : 512; }

ANYWHERE int64_t block_scale_offset(int layout, uint32_t row, uint32_t block, uint32_t blocks)
{
    return block_scale_row(layout, row, blocks) + (int64_t)block / 4 * block_scale_step(layout) + block % 4;
}

/* The i-th row, where rows are taken so that sixteen of them, from a multiple of sixteen on, have all bytes of the lines that
 * their scales lie in. */
ANYWHERE int64_t block_scale_nth_row(int layout, int64_t i)
{
    return layout == SCALES_128X4 ? (i & ~(int64_t)127) + i / 16 % 8 * 4 + i / 4 % 4 * 32 + i % 4 : i;
}

/* A scale byte, and what the elements are multiplied with before they are rounded. */
struct block_scale {
    uint32_t code;
    float multiplier;
};

ANYWHERE float e4m3_scale_value(uint32_t code) /* not for negative codes and NaN */
{
#if defined __CUDACC_RTC__ && __CUDA_ARCH__ >= 890
    return unpack2(e4m3(), code).x;
#elif defined __CUDACC_RTC__
    return __fmul_rn(bits_float(code << 20), bits_float(247u << 23)); /* 2^120; never are subnormals flushed */
#else
    return code < 8 ? (float)code * 0.001953125f : bits_float((code + (120 << 3)) << 20);
#endif
}

ANYWHERE float e8m0_scale_value(uint32_t code) /* 2^(code - 127); not for 255, NaN */
{
    return bits_float(code ? code << 23 : 0x400000u);
}

/* e2m1 elements under an e4m3 scale: scale = e4m3(global_scale * (amax / 6)), multiplier = global_scale / scale, each operation
 * rounded to float32; a scale of 0 has the multiplier 0. */
SELDOM struct block_scale block_scale_e4m3_of_any(float amax, float global_scale)
{
    struct block_scale s;
    s.code = e4m3_bits(product(global_scale, amax / 6.0f));
    s.multiplier = s.code ? global_scale / e4m3_scale_value(s.code) : 0.0f;
    return s;
}

/* The same; sooner under a usual global_scale. */
ANYWHERE struct block_scale block_scale_e4m3(float amax, float global_scale)
{
#ifdef __CUDACC_RTC__
    struct block_scale s;
    /* A quotient from the rounded reciprocal, corrected by its remainder, is the rounded one: tried for all mantissas. That of an
     * amax below 2^-100 is not, but its scale is 0. */
    if (float_bits(global_scale) - (67u << 23) < 120u << 23) {
        const float sixth = 1.0f / 6.0f;
        amax = fminf(amax, bits_float(0x7f7fffffu));
        float quotient = __fmul_rn(amax, sixth);
        quotient = __fmaf_rn(__fmaf_rn(-6.0f, quotient, amax), sixth, quotient);
        s.code = e4m3x2_bits(__fmul_rn(global_scale, quotient), 0.0f);
        float value = e4m3_scale_value(s.code), reciprocal;
        asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(value));
        reciprocal = __fmaf_rn(reciprocal, __fmaf_rn(-value, reciprocal, 1.0f), reciprocal);
        quotient = __fmul_rn(global_scale, reciprocal);
        quotient = __fmaf_rn(__fmaf_rn(-value, quotient, global_scale), reciprocal, quotient);
        s.multiplier = value > 0.0f ? quotient : 0.0f;
        return s;
    }
#endif
    return block_scale_e4m3_of_any(amax, global_scale);
}

/* Elements up to `largest` under an e8m0 scale: the least power of two, 2^-127 or more, with amax <= largest * scale; an infinite
 * amax is taken for 2^128. No scale exceeds 2^126, so the multiplier, 1 / scale, is never subnormal. */
ANYWHERE struct block_scale block_scale_e8m0(float amax, float largest)
{
    uint32_t mantissa = float_bits(largest) & 0x7fffffu;
    int32_t code = (int32_t)((float_bits(amax) + (0x7fffffu - mantissa)) >> 23) - ((int32_t)(float_bits(largest) >> 23) - 127);
    struct block_scale s;
    s.code = code < 0 ? 0u : (uint32_t)code;
    s.multiplier = bits_float((254 - s.code) << 23);
    return s;
}

#endif
