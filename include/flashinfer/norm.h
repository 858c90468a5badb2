/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation over the last dimension. Arithmetic is in float32, with one rounding at the end unless an op says otherwise.
 *
 * Each row stands alone. A row that holds NaN becomes NaN. Where the sum of a row's squares exceeds float32's range (3.4e38), or
 * an element is infinite, the row becomes 0, and NaN at the infinite elements; layernorm makes all of a row with an infinite
 * element NaN, and of one whose sums exceed float32's range either NaN or beta. With FLASHINFER_PDL, kernels that are still
 * running must not write weights: they are read before those end. */
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
    const DLTensor *input;  /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(rmsnorm);

/* out = input / sqrt(mean(input^2) + eps) * (weight + 1). */
struct flashinfer_gemma_rmsnorm {
    size_t size;
    DLTensor *out;          /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input;  /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(gemma_rmsnorm);

/* residual = input + residual, rounded to its dtype; then input = rmsnorm of that sum as it was before it was rounded. */
struct flashinfer_fused_add_rmsnorm {
    size_t size;
    DLTensor *input;        /* [..., hidden] f16, bf16 or f32; read, then overwritten with the normalised sum */
    DLTensor *residual;     /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_add_rmsnorm);

/* The same with weight + 1. */
struct flashinfer_gemma_fused_add_rmsnorm {
    size_t size;
    DLTensor *input;        /* [..., hidden] f16, bf16 or f32; read, then overwritten with the normalised sum */
    DLTensor *residual;     /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(gemma_fused_add_rmsnorm);

/* out = rmsnorm(input) / scale: a product with the float32 reciprocal of scale, saturated to the largest number of out's dtype. NaN
 * stays NaN. */
struct flashinfer_rmsnorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    const DLTensor *input;   /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *weight;  /* [hidden], dtype of input */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(rmsnorm_quant);

/* residual = input + residual, rounded to its dtype; out = rmsnorm of that sum as it was before it was rounded, over scale as in
 * rmsnorm_quant. (The documentation of FlashInfer says that the result goes to input; there as here, input stays as it is.) */
struct flashinfer_fused_add_rmsnorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    DLTensor *residual;      /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *input;   /* [..., hidden] f16 or bf16 */
    const DLTensor *weight;  /* [hidden], dtype of input */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_add_rmsnorm_quant);

/* out = (input - mean(input)) / sqrt(mean((input - mean(input))^2) + eps) * gemma + beta. */
struct flashinfer_layernorm {
    size_t size;
    DLTensor *out;         /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input; /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *gemma; /* [hidden] f32: the weight, under FlashInfer's name */
    const DLTensor *beta;  /* [hidden] f32 */
    double eps;            /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(layernorm);

/* out = layernorm(input), rounded to the dtype of input, over scale as in rmsnorm_quant. */
struct flashinfer_layernorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    const DLTensor *input;   /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *gemma;   /* [hidden] f32: the weight, under FlashInfer's name */
    const DLTensor *beta;    /* [hidden] f32 */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(layernorm_quant);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_NORM_H */
