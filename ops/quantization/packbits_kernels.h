/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels of packbits and segment_packbits. */
#ifndef PACKBITS_KERNELS_H
#define PACKBITS_KERNELS_H

#include "flashinfer/quantization.h"
#include "harness/reference.h"
#include "op/op.h"

/* What the ops are seen as. */
struct packbits_view {
    const DLTensor *packed, *new_indptr, *x, *indptr; /* without segments, no indptr */
    int32_t bitorder;
};

extern const struct op_kernel packbits_kernels[];

void packbits_reference(const struct reference *r);

#endif
