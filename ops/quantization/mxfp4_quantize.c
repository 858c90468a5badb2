/* SPDX-License-Identifier: Apache-2.0 */
/* The op mxfp4_quantize. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP mxfp4_quantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, E2M1X2 | U8, "... columns//2"),
    OUT(out_scale, U8, SCALE_SHAPE("", "rows", "columns//32") "... columns//32", .by = "sf_layout", .flags = DENSE),
    IN(a, F16 | BF16, "... columns", .fill = NORMAL_WITH_ALL),
    ENUM(sf_layout, SCALE_LAYOUTS),
    {0},
};

static const char *const rules[] = {"columns % 32 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_mxfp4_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){
        .out = a->out, .scales = a->out_scale, .input = a->a, .scale_kind = SCALE_E8M0, .block = 32, .layout = a->sf_layout};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 32, 6000, 32}, {0}};

static const struct op_shape shapes[] = {
    {"llama_8b_decode", "rows=1 columns=4096 dtype=bf16 out:dtype=e2m1x2"},
    {"odd", "rows=7 columns=96 dtype=f16 sf_layout=SCALES_LINEAR out:dtype=u8"},
    {"llama_70b_batch", "rows=128 columns=8192 dtype=f16 sf_layout=SCALES_8X4 out:dtype=e2m1x2"},
    {"deepseek_v3_prefill", "rows=4096 columns=7168 dtype=bf16 out:dtype=e2m1x2"},
    {"gpt_oss_prefill", "rows=16384 columns=2880 dtype=bf16 out:dtype=u8"},
    {"wide", "rows=300 columns=28672 dtype=f16 out:dtype=u8"},
    {0},
};

DEFINE_OP("quantization", "out, out_scale = a in blocks of 32 e2m1 with e8m0 scales", .rules = rules,
          .kernels = block_quantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_quantize_reference);
