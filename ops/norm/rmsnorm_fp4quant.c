/* SPDX-License-Identifier: Apache-2.0 */
/* The op rmsnorm_fp4quant. What the family shares: norm_kernels.h. */
#include "flashinfer/norm.h"
#include "ops/norm/norm_kernels.h"

#define OP rmsnorm_fp4quant
DIMS(rows, hidden, block_size);

static const struct op_arg args[] = {
    OUT(y_fp4, E2M1X2 | U8, "... hidden//2"),
    OUT(block_scale, U8 | E4M3 | E8M0, NORM_SCALE_SHAPE, .by = "is_sf_swizzled_layout"),
    IN(input, F16 | BF16, "... hidden", .fill = NORMAL_WITH_ALL),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(global_scale, .value = 1, .min = 1e-30, .dtype.set = F32),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    INT(block_size, .value = 16, .min = 16, .max = 32),
    ENUM(scale_format, "AUTO E4M3 UE8M0"),
    ENUM(is_sf_swizzled_layout, "LINEAR SWIZZLED"),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_rmsnorm_fp4quant *a = from;
    *(struct norm_view *)to = (struct norm_view){
        .out = a->y_fp4,
        .input = a->input,
        .weight = a->weight,
        .linear_scales = a->is_sf_swizzled_layout ? NULL : a->block_scale,
        .swizzled_scales = a->is_sf_swizzled_layout ? a->block_scale : NULL,
        .scale = a->global_scale,
        .eps = a->eps,
        .block_size = a->block_size,
        .e8m0 = norm_scales_are_e8m0(a->scale_format, a->block_size),
    };
}

static const struct op_shape shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=f16"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16 is_sf_swizzled_layout=SWIZZLED"},
    {"llama_70b_prefill", "rows=8192 hidden=8192 dtype=bf16 is_sf_swizzled_layout=SWIZZLED"},
    {"deepseek_v3", "rows=16 hidden=7168 dtype=f16 is_sf_swizzled_layout=SWIZZLED block_size=32 block_scale:dtype=u8"},
    {"narrow", "rows=130 hidden=64 dtype=bf16 block_size=32 scale_format=E4M3"},
    {"padded", "rows=5 hidden=720 dtype=bf16 scale_format=UE8M0 is_sf_swizzled_layout=SWIZZLED block_scale:dtype=e8m0"},
    {"thirds_of_warps", "rows=130 hidden=320 dtype=bf16 is_sf_swizzled_layout=SWIZZLED"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {0},
};

DEFINE_OP("norm", "y_fp4, block_scale = e2m1(input / rms(input) * weight)", .rules = norm_fp4_rules, .kernels = norm_kernels,
          .view = view, .ranges = norm_fp4_ranges, .shapes = shapes, .verify = norm_fp4_verify, .cost = norm_cost);
