/* SPDX-License-Identifier: Apache-2.0 */
/* Gated activations: the first half of each row, activated, times the second half. Arithmetic is in float32, with one rounding at
 * the end; e4m3 and e5m2 saturate. An activation of -infinity is NaN. A product beyond float32 is infinite whatever the scale. */
#ifndef FLASHINFER_ACTIVATION_H
#define FLASHINFER_ACTIVATION_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[..., i] = silu(input[..., i]) * input[..., intermediate + i] / scale, silu(x) = x / (1 + exp(-x)), which is
 * -0 below -104, where exp(x) leaves float32. */
struct flashinfer_silu_and_mul {
    size_t size;
    DLTensor *out;           /* [..., intermediate], dtype of input, e4m3 or e5m2; rows may be strided */
    const DLTensor *input;   /* [..., 2 * intermediate] f16 or bf16; rows may be strided */
    flashinfer_number scale; /* of a quantized out: 1e-10 to 1e10, or f32 [1]; absent: 1 */
};
FLASHINFER_DECLARE_OP(silu_and_mul);

/* The same with gelu(x) = x / 2 * (1 + erf(x / sqrt(2))), -0 below -14.5. */
struct flashinfer_gelu_and_mul {
    size_t size;
    DLTensor *out;           /* these three as in silu_and_mul */
    const DLTensor *input;
    flashinfer_number scale;
};
FLASHINFER_DECLARE_OP(gelu_and_mul);

/* The same with gelu_tanh(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). (Upstream's documentation differs from what
 * it computes, which is this.) */
struct flashinfer_gelu_tanh_and_mul {
    size_t size;
    DLTensor *out;           /* these three as in silu_and_mul */
    const DLTensor *input;
    flashinfer_number scale;
};
FLASHINFER_DECLARE_OP(gelu_tanh_and_mul);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_ACTIVATION_H */
