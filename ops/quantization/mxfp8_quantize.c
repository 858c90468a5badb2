/* SPDX-License-Identifier: Apache-2.0 */
/* The op mxfp8_quantize. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP mxfp8_quantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, E4M3, "... ceil(columns/alignment)*alignment"),
    OUT(out_scale, U8,
        SCALE_SHAPE("", "rows", "ceil(columns/alignment)*alignment//32") "... ceil(columns/alignment)*alignment//32",
        .by = "sf_layout", .flags = DENSE),
    IN(input, F16 | BF16, "... columns", .fill = NORMAL_WITH_ALL),
    ENUM(sf_layout, SCALE_LAYOUTS),
    INT(alignment, .value = 32, .min = 32),
    {0},
};

static const char *const rules[] = {"alignment % 32 == 0", "columns > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_mxfp8_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){
        .out = a->out, .scales = a->out_scale, .input = a->input, .scale_kind = SCALE_E8M0, .block = 32, .layout = a->sf_layout};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 1, 4000, 0}, {"alignment", 32, 256, 32}, {0}};

static const struct op_shape shapes[] = {
    {"llama_8b_decode", "rows=1 columns=4096 dtype=bf16"},
    {"odd", "rows=7 columns=111 dtype=f16 alignment=64"},
    {"llama_70b_batch", "rows=128 columns=8192 dtype=f16 sf_layout=SCALES_8X4"},
    {"deepseek_v3_prefill", "rows=4096 columns=7168 dtype=bf16"},
    {"gpt_oss_prefill", "rows=16384 columns=2880 dtype=bf16 sf_layout=SCALES_LINEAR"},
    {0},
};

DEFINE_OP("quantization", "out, out_scale = input in blocks of 32 e4m3 with e8m0 scales", .rules = rules,
          .kernels = block_quantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_quantize_reference);
