/* SPDX-License-Identifier: Apache-2.0 */
/* The op add_rmsnorm_fp4quant. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP add_rmsnorm_fp4quant
DIMS(rows, hidden, block_size);

static const struct op_arg args[] = {
    OUT(y_fp4, E2M1X2 | U8, "... hidden//2"),
    OUT(block_scale, U8 | E4M3 | E8M0, NORM_SCALE_SHAPE, .by = "is_sf_swizzled_layout"),
    OUT(block_scale_unswizzled, LIKE(block_scale), "... hidden//block_size", .flags = OPTIONAL,
        .required_if = "output_both_sf_layouts == 1"),
    OUT(y_out, LIKE(input), "... hidden", .flags = OPTIONAL),
    INOUT(residual, LIKE_OR(input, F32), "... hidden", .fill = NORMAL_WITH_ALL),
    IN(input, F16 | BF16, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(global_scale, .value = 1, .min = 1e-30, .dtype.set = F32),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    INT(block_size, .value = 16, .min = 16, .max = 32),
    ENUM(scale_format, "AUTO E4M3 UE8M0"),
    ENUM(is_sf_swizzled_layout, "LINEAR SWIZZLED"),
    FLAG(output_both_sf_layouts),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_add_rmsnorm_fp4quant *a = from;
    *(struct norm_view *)to = (struct norm_view){
        .out = a->y_fp4,
        .input = a->input,
        .residual = a->residual,
        .weight = a->weight,
        .y = a->y_out,
        .linear_scales = a->is_sf_swizzled_layout ? a->block_scale_unswizzled : a->block_scale,
        .swizzled_scales = a->is_sf_swizzled_layout ? a->block_scale : NULL,
        .surplus_scales = a->is_sf_swizzled_layout ? NULL : a->block_scale_unswizzled,
        .scale = a->global_scale,
        .eps = a->eps,
        .block_size = a->block_size,
        .e8m0 = norm_scales_are_e8m0(a->scale_format, a->block_size),
    };
}

static const char *const rules[] = {
    "hidden >= 64",
    "block_size == 16 or block_size == 32",
    "hidden % block_size == 0",
    "output_both_sf_layouts == 0 or is_sf_swizzled_layout == 1",
    NULL,
};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=f16 -block_scale_unswizzled"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16 -block_scale_unswizzled"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16 is_sf_swizzled_layout=SWIZZLED"},
    {"deepseek_v3", "rows=16 hidden=7168 dtype=f16 is_sf_swizzled_layout=SWIZZLED block_size=32 block_scale:dtype=u8"},
    {"narrow", "rows=130 hidden=64 dtype=bf16 block_size=32 scale_format=E4M3 -block_scale_unswizzled -y_out"},
    {"padded", "rows=5 hidden=720 dtype=bf16 scale_format=UE8M0 is_sf_swizzled_layout=SWIZZLED block_scale:dtype=e8m0"},
    {"thirds_of_warps", "rows=130 hidden=320 dtype=bf16 is_sf_swizzled_layout=SWIZZLED"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16 -block_scale_unswizzled"},
    {"f32_residual", "rows=128 hidden=576 dtype=bf16 residual:dtype=f32 is_sf_swizzled_layout=SWIZZLED -y_out"},
    {0},
};

DEFINE_OP("norm", "residual += input; y_fp4, block_scale = e2m1(rmsnorm(residual) * weight)", .rules = rules,
          .kernels = norm_kernels,
          .view = view, .ranges = norm_fp4_ranges, .shapes = shapes, .verify = norm_fp4_verify, .cost = norm_cost);
