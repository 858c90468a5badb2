/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that all ops share that quantize blocks of a row. */
#ifndef BLOCK_QUANTIZE_KERNELS_H
#define BLOCK_QUANTIZE_KERNELS_H

#include "block_scale.h"
#include "flashinfer/quantization.h"
#include "harness/reference.h"
#include "op/op.h"
#include "ops/quantization/block_quantize_args.h"

/* What the ops are seen as. */
struct block_quantize_view {
    const DLTensor *out, *scales, *input; /* [..., columns]; with `grouped`, [groups, rows, columns] */
    const DLTensor *mask;                 /* NULL: all rows count */
    flashinfer_number global_scale;       /* absent: 1; a tensor has one element, or one for each row or group */
    bool grouped, inverse;
    bool gated; /* input is [..., 2 * columns]: silu of the first half times the second, in its dtype, is quantized */
    int32_t scale_kind, block, layout;
    double least_amax;
};

extern const struct op_kernel block_quantize_kernels[];

void block_quantize_reference(const struct reference *r);

/* For gated ops, whose inputs to the rounding are known within a bound only: judges scales, and codes under the scales
 * written. */
const char *block_quantize_verify(const struct reference *r);

/* Of the ops on a batch of matrices. */
extern const struct op_range block_quantize_batch_ranges[];
extern const struct op_shape block_quantize_batch_shapes[];

/* A row of scales has whole tiles of 4 blocks, groups of rows whole tiles of 128 or 8. */
#define SCALE_LAYOUTS "SCALES_128X4 SCALES_8X4 SCALES_LINEAR"
#define SCALE_SHAPE(leading, rows, blocks)                                                  \
    "SCALES_128X4: " leading "ceil(" rows "/128)*128 ceil((" blocks ")/4)*4 | "             \
    "SCALES_8X4: " leading "ceil(" rows "/8)*8 ceil((" blocks ")/4)*4 | SCALES_LINEAR: "

#endif
