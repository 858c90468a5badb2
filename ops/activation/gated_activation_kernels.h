/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that the gated activations share. */
#ifndef GATED_ACTIVATION_KERNELS_H
#define GATED_ACTIVATION_KERNELS_H

#include "flashinfer/activation.h"
#include "harness/reference.h"
#include "op/op.h"

enum activation { ACTIVATION_SILU = 0, ACTIVATION_GELU = 1, ACTIVATION_GELU_TANH = 2 };

/* What the ops are seen as. */
struct gated_activation_view {
    const DLTensor *out, *input;
    flashinfer_number scale;
    enum activation activation;
};

extern const struct op_kernel gated_activation_kernels[];

void gated_activation_reference(const struct reference *r);

#endif
