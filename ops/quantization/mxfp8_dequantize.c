/* SPDX-License-Identifier: Apache-2.0 */
/* The op mxfp8_dequantize. Its kernels are shared by all that dequantize blocks: block_dequantize_kernels.c. */
#include "ops/quantization/block_dequantize_kernels.h"

#define OP mxfp8_dequantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, F32 | F16 | BF16, "... columns"),
    IN(input, E4M3, "... columns", .fill = MASK),
    IN(scale, U8, SCALE_SHAPE("", "rows", "columns//32") "... columns//32", .by = "sf_layout", .flags = DENSE, .fill = MASK),
    ENUM(sf_layout, SCALE_LAYOUTS),
    {0},
};

static const char *const rules[] = {"columns % 32 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_mxfp8_dequantize *a = from;
    *(struct block_dequantize_view *)to = (struct block_dequantize_view){
        .out = a->out, .codes = a->input, .scales = a->scale, .e8m0 = true, .block = 32, .layout = a->sf_layout};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 32, 4000, 32}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "rows=7 columns=96 sf_layout=SCALES_LINEAR out:dtype=f32"},
    {"gpt_oss_expert", "rows=5760 columns=2880 out:dtype=bf16 sf_layout=SCALES_LINEAR"},
    {"llama_70b", "rows=128 columns=8192 out:dtype=f16 sf_layout=SCALES_8X4"},
    {"deepseek_v3", "rows=4096 columns=7168 out:dtype=bf16"},
    {"one", "rows=1 columns=32 out:dtype=f32"},
    {0},
};

DEFINE_OP("quantization", "out = blocks of 32 e4m3 with e8m0 scales as numbers", .rules = rules,
          .kernels = block_dequantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_dequantize_reference);
