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

extern const struct op_range gated_activation_ranges[];
extern const struct op_shape gated_activation_shapes[];

#define GATED_ACTIVATION_ARGUMENTS                                                  \
    OUT(out, LIKE_OR(input, E4M3 | E5M2), "... intermediate"),                      \
    IN(input, F16 | BF16, "... 2*intermediate", .fill = NORMAL_WITH_ALL),           \
    NUMBER(scale, .value = 1, .min = 1e-10, .max = 1e10, .dtype.set = F32, .fill = UNIFORM(0.01, 10))

#endif
