/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that all ops share that dequantize blocks of a row. */
#ifndef BLOCK_DEQUANTIZE_KERNELS_H
#define BLOCK_DEQUANTIZE_KERNELS_H

#include "block_scale.h"
#include "flashinfer/quantization.h"
#include "harness/reference.h"
#include "op/op.h"
#include "ops/quantization/block_quantize_kernels.h"

/* What the ops are seen as. */
struct block_dequantize_view {
    const DLTensor *out, *codes, *scales;
    flashinfer_number global_scale; /* absent: 1 */
    bool e8m0;
    int32_t block, layout;
};

extern const struct op_kernel block_dequantize_kernels[];

void block_dequantize_reference(const struct reference *r);

#endif
