/* SPDX-License-Identifier: Apache-2.0 */
/* The op per_token_group_quant_8bit. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP per_token_group_quant_8bit
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(x_q, E4M3 | I8, "... columns"),
    OUT(x_s, F32, "... columns//group_size", .flags = STRIDED | COLUMN_MAJOR),
    IN(x, F16 | BF16 | F32, "... columns", .fill = NORMAL_WITH_ALL),
    INT(group_size, .value = 128, .min = 16, .max = 512),
    NUMBER(eps, .value = 1e-10, .min = 1e-30),
    FLAG(scale_ue8m0),
    {0},
};

static const char *const rules[] = {
    "group_size == 16 or group_size == 32 or group_size == 64 or group_size == 128 or group_size == 256 or group_size == 512",
    "columns % group_size == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_per_token_group_quant_8bit *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){.out = a->x_q,
                                                                     .scales = a->x_s,
                                                                     .input = a->x,
                                                                     .scale_kind = a->scale_ue8m0 ? SCALE_POWER : SCALE_F32,
                                                                     .block = a->group_size,
                                                                     .layout = SCALES_LINEAR,
                                                                     .least_amax = a->eps};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 16, 6000, 16}, {"group_size", 16, 512, 16}, {0}};

static const struct op_shape shapes[] = {
    {"deepseek_v3_decode", "rows=1 columns=7168 dtype=bf16 x_q:dtype=e4m3"},
    {"odd", "rows=7 columns=96 group_size=32 dtype=f16 x_q:dtype=i8"},
    {"deepseek_v3_batch", "rows=128 columns=7168 dtype=bf16 x_q:dtype=e4m3 scale_ue8m0=1"},
    {"deepseek_v3_prefill", "rows=4096 columns=7168 dtype=bf16 x_q:dtype=e4m3"},
    {"qwen3_i8", "rows=4096 columns=4096 dtype=f16 x_q:dtype=i8"},
    {"f32", "rows=64 columns=2048 group_size=64 dtype=f32 x_q:dtype=e4m3"},
    {0},
};

DEFINE_OP("quantization", "x_q, x_s = x in groups of columns with f32 scales", .rules = rules, .kernels = block_quantize_kernels,
          .view = view, .ranges = ranges, .shapes = shapes, .reference = block_quantize_reference);
