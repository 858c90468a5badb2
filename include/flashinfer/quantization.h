/* SPDX-License-Identifier: Apache-2.0 */
/* Quantization: bits packed into bytes, and elements of 4 or 8 bits that share a scale in blocks of a row, and back.
 *
 * Formats are those of the OCP specifications (8-bit floating point 1.0, microscaling 1.0): e4m3 (to 448, no infinity), e5m2, e2m1
 * (0, 0.5, 1, 1.5, 2, 3, 4, 6; two to a byte, element 2i in the low half) and the scale e8m0, 2^(code - 127). Values are rounded to
 * nearest, ties to even, and saturate. NaN becomes NaN (0x7f), and 6 in e2m1, which has no NaN; it does not count for its block's
 * scale.
 *
 * The scale of a block whose largest magnitude is amax, in float32 with each operation rounded:
 *
 *     e4m3   scale = e4m3(global_scale * (amax / 6))       element = e2m1(x * (global_scale / scale)), 0 where scale is 0
 *     e8m0   the least 2^e >= amax / largest, e >= -127    element = e2m1 or e4m3(x / 2^e); largest is 6 or 448
 *
 * global_scale is the encoding scale, 448 * 6 / (largest magnitude of the tensor): a value is code * scale / global_scale. These are
 * the formulas of FlashInfer (of its exact mode: it approximates the divisions otherwise) and of TransformerEngine. An infinite
 * amax gives the largest scale. All of it is exact or correctly rounded, so CPUs and GPUs write the same bits.
 *
 * Scale bytes lie row-major (linear) or in tiles of 128 or 8 rows by 4 blocks, rows and blocks padded to whole tiles; with
 * tiles = ceil(blocks / 4) a row, the scale of (row, block) is at byte
 *
 *     linear  row * blocks + block
 *     128x4   (row / 128 * tiles + block / 4) * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4
 *     8x4     (row / 8 * tiles + block / 4) * 32 + row % 8 * 4 + block % 4
 *
 * and bytes of the padding are written as 0. */
#ifndef FLASHINFER_QUANTIZATION_H
#define FLASHINFER_QUANTIZATION_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Layout of scale bytes. */
enum {
    FLASHINFER_SCALES_128X4 = 0,
    FLASHINFER_SCALES_8X4 = 1,
    FLASHINFER_SCALES_LINEAR = 2
};

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_QUANTIZATION_H */
