/* SPDX-License-Identifier: Apache-2.0 */
/* The op gemma_rmsnorm. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP gemma_rmsnorm
DIMS(rows, hidden);

static const struct op_arg args[] = {
    OUT(out, LIKE(input), "... hidden", MAY_ALIAS(input)),
    IN(input, F16 | BF16 | F32, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_gemma_rmsnorm *a = from;
    *(struct norm_view *)to =
        (struct norm_view){.out = a->out, .input = a->input, .weight = a->weight, .weight_bias = 1, .eps = a->eps};
}

DEFINE_OP("norm", "out = input / rms(input) * (weight + 1) over the last dimension", .rules = norm_rules, .kernels = norm_kernels,
          .view = view, .ranges = norm_ranges, .shapes = norm_shapes, .reference = norm_reference, .cost = norm_cost);
