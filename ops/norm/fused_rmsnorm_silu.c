/* SPDX-License-Identifier: Apache-2.0 */
/* The op fused_rmsnorm_silu. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP fused_rmsnorm_silu
DIMS(rows, hidden);

static const struct op_arg args[] = {
    OUT(out, LIKE_OR(input, E4M3), "... hidden"),
    IN(input, F16 | BF16, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_fused_rmsnorm_silu *a = from;
    *(struct norm_view *)to = (struct norm_view){
        .out = a->out,
        .input = a->input,
        .weight = a->weight,
        .scale = FLASHINFER_FLOAT(1),
        .eps = a->eps,
        .silu = true,
    };
}

static const struct op_shape shapes[] = {
    {"wan_vae", "rows=3600 hidden=320 dtype=bf16"},
    {"wan_vae_fp8", "rows=3600 hidden=640 dtype=bf16 out:dtype=e4m3"},
    {"odd", "rows=7 hidden=111 dtype=f16"},
    {"odd_fp8", "rows=7 hidden=333 dtype=f16 out:dtype=e4m3"},
    {"large", "rows=8192 hidden=4096 dtype=bf16"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {0},
};

DEFINE_OP("norm", "out = silu(rmsnorm(input) * weight)", .rules = norm_rules, .kernels = norm_kernels, .view = view,
          .ranges = norm_ranges, .shapes = shapes, .reference = norm_reference, .cost = norm_cost);
