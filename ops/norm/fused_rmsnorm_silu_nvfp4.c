/* SPDX-License-Identifier: Apache-2.0 */
/* The op fused_rmsnorm_silu_nvfp4. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP fused_rmsnorm_silu_nvfp4
DIMS(rows, hidden);

static const struct op_arg args[] = {
    OUT(out, E2M1X2 | U8, "... hidden//2"),
    OUT(block_scale, U8 | E4M3, "... hidden//16"),
    IN(input, F16 | BF16, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_fused_rmsnorm_silu_nvfp4 *a = from;
    *(struct norm_view *)to = (struct norm_view){
        .out = a->out,
        .input = a->input,
        .weight = a->weight,
        .linear_scales = a->block_scale,
        .scale = FLASHINFER_FLOAT(1),
        .eps = a->eps,
        .block_size = 16,
        .silu = true,
    };
}

static const char *const rules[] = {"hidden >= 64", "hidden % 16 == 0", NULL};

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"hidden", 16, 4096, 16}, {0}};

static const struct op_shape shapes[] = {
    {"wan_vae", "rows=3600 hidden=320 dtype=bf16"},
    {"odd", "rows=7 hidden=1104 dtype=f16"},
    {"large", "rows=8192 hidden=4096 dtype=bf16"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {0},
};

DEFINE_OP("norm", "out, block_scale = e2m1(silu(rmsnorm(input) * weight))", .rules = rules, .kernels = norm_kernels,
          .view = view, .ranges = ranges, .shapes = shapes, .verify = norm_fp4_verify, .cost = norm_cost);
