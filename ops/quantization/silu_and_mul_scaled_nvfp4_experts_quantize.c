/* SPDX-License-Identifier: Apache-2.0 */
/* The op silu_and_mul_scaled_nvfp4_experts_quantize. Its kernels are shared by all that quantize blocks:
 * block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP silu_and_mul_scaled_nvfp4_experts_quantize
DIMS(batch, rows, columns);

static const struct op_arg args[] = {
    INOUT(out, E2M1X2 | U8, "batch rows columns//2"),
    INOUT(out_scale, U8 | E4M3, "batch ceil(rows/128)*128 ceil((columns//16)/4)*4", .flags = DENSE),
    IN(a, F16 | BF16, "batch rows 2*columns", .fill = NORMAL_WITH_ALL),
    IN(mask, I32, "batch", .fill = LENGTHS(-1, "rows")),
    NUMBER(a_global_sf, .value = 1, .min = 1e-10, .dtype.set = F32, .shape = "batch", .fill = UNIFORM(0.01, 900)),
    {0},
};

static const char *const rules[] = {"columns % 16 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_silu_and_mul_scaled_nvfp4_experts_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){.out = a->out,
                                                                     .scales = a->out_scale,
                                                                     .gated = true,
                                                                     .input = a->a,
                                                                     .mask = a->mask,
                                                                     .global_scale = a->a_global_sf,
                                                                     .grouped = true,
                                                                     .scale_kind = SCALE_E4M3,
                                                                     .block = 16,
                                                                     .layout = SCALES_128X4};
}

static const struct op_range ranges[] = {{"batch", 0, 9, 0}, {"rows", 0, 140, 0}, {"columns", 16, 1000, 16}, {0}};

static const struct op_shape shapes[] = {
    {"deepseek_v3_experts", "batch=8 rows=128 columns=7168 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"odd", "batch=3 rows=7 columns=96 dtype=f16 out:dtype=u8 out_scale:dtype=e4m3"},
    {"one_token", "batch=16 rows=1 columns=2048 dtype=bf16 out:dtype=u8 out_scale:dtype=u8"},
    {"large", "batch=32 rows=512 columns=4096 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"qwen3_experts", "batch=128 rows=32 columns=2048 dtype=f16 out:dtype=e2m1x2 out_scale:dtype=e4m3"},
    {0},
};

DEFINE_OP("quantization",
          "out, out_scale = silu and mul of the first rows of each matrix of a in blocks of e2m1 with e4m3 scales",
          .rules = rules, .kernels = block_quantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .verify = block_quantize_verify);
