/* SPDX-License-Identifier: Apache-2.0 */
/* Gated activations: the first half of each row, activated, times the second half. Arithmetic is in float32, with one rounding at
 * the end. */
#ifndef FLASHINFER_ACTIVATION_H
#define FLASHINFER_ACTIVATION_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[..., i] = silu(input[..., i]) * input[..., intermediate + i], silu(x) = x / (1 + exp(-x)), which is
 * -0 below -104, where exp(x) leaves float32, and NaN at -infinity. */
struct flashinfer_silu_and_mul {
    size_t size;
    DLTensor *out;         /* [..., intermediate], dtype of input; rows may be strided */
    const DLTensor *input; /* [..., 2 * intermediate] f16 or bf16; rows may be strided */
};
FLASHINFER_DECLARE_OP(silu_and_mul);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_ACTIVATION_H */
