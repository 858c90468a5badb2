/* SPDX-License-Identifier: Apache-2.0 */
/* The op rmsnorm_quant. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP rmsnorm_quant
DIMS(rows, hidden);

static const struct op_arg args[] = {
    OUT(out, E4M3 | E5M2, "... hidden"),
    IN(input, F16 | BF16, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(scale, .value = 1, .min = 1e-30, .dtype.set = F32),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_rmsnorm_quant *a = from;
    *(struct norm_view *)to = (struct norm_view){
        .out = a->out,
        .input = a->input,
        .weight = a->weight,
        .scale = a->scale,
        .eps = a->eps,
    };
}

DEFINE_OP("norm", "out = rmsnorm(input) * weight / scale in 8 bits", .rules = norm_rules,
          .kernels = norm_kernels, .view = view, .ranges = norm_ranges, .shapes = norm_quant_shapes, .reference = norm_reference,
          .cost = norm_cost);
