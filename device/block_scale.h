/* SPDX-License-Identifier: Apache-2.0 */
/* Block scales: runs of 16 or 32 elements of a row share a scale byte. Where that byte lies, and its value from the largest
 * magnitude of the block: the same text, and with IEEE arithmetic only the same bits, on the host, on CPUs and on GPUs. */
#ifndef BLOCK_SCALE_H
#define BLOCK_SCALE_H

#include "narrow.h"

/* Values as FLASHINFER_SCALES_*. */
enum { SCALES_128X4 = 0, SCALES_8X4 = 1, SCALES_LINEAR = 2 };

ANYWHERE int64_t block_scale_padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* Rows and blocks with the padding that the layout stores. */
ANYWHERE int64_t block_scale_rows(int layout, int64_t rows)
{
    return layout == SCALES_LINEAR ? rows : block_scale_padded(rows, layout == SCALES_128X4 ? 128 : 8);
}

ANYWHERE int64_t block_scale_blocks(int layout, int64_t blocks)
{
    return layout == SCALES_LINEAR ? blocks : block_scale_padded(blocks, 4);
}

ANYWHERE int64_t block_scale_bytes(int layout, int64_t rows, int64_t blocks)
{
    return block_scale_rows(layout, rows) * block_scale_blocks(layout, blocks);
}

/* Where the scale of a row and block lies, in a matrix of `blocks` blocks a row. The swizzled layouts are tiles of 128 (8) rows by
 * 4 blocks, row after row of tiles; in a tile of 128 rows, rows 32 apart are neighbours. */
ANYWHERE int64_t block_scale_offset(int layout, int64_t row, int64_t block, int64_t blocks)
{
    int64_t tiles = (blocks + 3) / 4, in_tile = block % 4;
    if (layout == SCALES_LINEAR)
        return row * blocks + block;
    if (layout == SCALES_8X4)
        return (row / 8 * tiles + block / 4) * 32 + row % 8 * 4 + in_tile;
    return (row / 128 * tiles + block / 4) * 512 + row % 32 * 16 + row % 128 / 32 * 4 + in_tile;
}

/* A scale byte, and what the elements are multiplied with before they are rounded. */
struct block_scale {
    uint32_t code;
    float multiplier;
};

ANYWHERE float e4m3_scale_value(uint32_t code) /* not for negative codes and NaN */
{
    return code < 8 ? (float)code * 0.001953125f : bits_float((code + (120 << 3)) << 20);
}

ANYWHERE float e8m0_scale_value(uint32_t code) /* 2^(code - 127); not for 255, NaN */
{
    return bits_float(code ? code << 23 : 0x400000u);
}

/* e2m1 elements under an e4m3 scale: scale = e4m3(global_scale * (amax / 6)), multiplier = global_scale / scale, each operation
 * rounded to float32; a scale of 0 has the multiplier 0. */
ANYWHERE struct block_scale block_scale_e4m3(float amax, float global_scale)
{
    struct block_scale s;
    s.code = e4m3_bits(product(global_scale, amax / 6.0f));
    s.multiplier = s.code ? global_scale / e4m3_scale_value(s.code) : 0.0f;
    return s;
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
