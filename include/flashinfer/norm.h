/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation over the last dimension. Arithmetic is in float32, with one rounding at the end.
 *
 * Each row stands alone. A row that holds NaN becomes NaN. Where the sum of a row's squares exceeds float32's range (3.4e38), or
 * an element is infinite, the row becomes 0, and NaN at the infinite elements. With FLASHINFER_PDL, kernels that are still
 * running must not write the weight: it is read before they end. */
#ifndef FLASHINFER_NORM_H
#define FLASHINFER_NORM_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = input / sqrt(mean(input^2) + eps) * weight. */
struct flashinfer_rmsnorm {
    size_t size;
    DLTensor *out;          /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input;  /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(rmsnorm);

/* residual = input + residual, rounded to its dtype; then input = rmsnorm of that sum as it was before it was rounded. */
struct flashinfer_fused_add_rmsnorm {
    size_t size;
    DLTensor *input;        /* [..., hidden] f16 or bf16; read, then overwritten with the normalised sum */
    DLTensor *residual;     /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_add_rmsnorm);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_NORM_H */
