/* SPDX-License-Identifier: Apache-2.0 */
/* The op gelu_and_mul. Its kernels are shared by the gated activations: gated_activation_kernels.c. */
#include "ops/activation/gated_activation_kernels.h"

#define OP gelu_and_mul
DIMS(rows, intermediate);

static const struct op_arg args[] = {
    GATED_ACTIVATION_ARGUMENTS,
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_gelu_and_mul *a = from;
    *(struct gated_activation_view *)to =
        (struct gated_activation_view){.out = a->out, .input = a->input, .scale = a->scale, .activation = ACTIVATION_GELU};
}

DEFINE_OP("activation", "out = gelu(first half of input) * second half, over the last dimension",
          .kernels = gated_activation_kernels, .view = view, .ranges = gated_activation_ranges, .shapes = gated_activation_shapes,
          .reference = gated_activation_reference);
