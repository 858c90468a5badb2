/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_kv_dequantize. Its kernels are shared by all that dequantize blocks: block_dequantize_kernels.c. */
#include "ops/quantization/block_dequantize_kernels.h"

#define OP nvfp4_kv_dequantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, BF16 | F16 | F32, "... columns"),
    IN(fp4, E2M1X2 | U8, "... columns//2", .fill = MASK),
    IN(sf, E4M3 | U8, "... columns//16", .flags = DENSE, .fill = MASK),
    NUMBER(global_scale, .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.001, 9)),
    {0},
};

static const char *const rules[] = {"columns % 16 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_kv_dequantize *a = from;
    *(struct block_dequantize_view *)to = (struct block_dequantize_view){
        .out = a->out, .codes = a->fp4, .scales = a->sf, .global_scale = a->global_scale, .block = 16, .layout = SCALES_LINEAR};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 16, 4000, 16}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "rows=7 columns=48 fp4:dtype=u8 sf:dtype=e4m3 out:dtype=f32"},
    {"llama_8b", "rows=65536 columns=128 fp4:dtype=u8 sf:dtype=e4m3 out:dtype=bf16"},
    {"gpt_oss", "rows=1024 columns=64 fp4:dtype=e2m1x2 sf:dtype=u8 out:dtype=f16"},
    {"deepseek_v3", "rows=16384 columns=512 fp4:dtype=u8 sf:dtype=e4m3 out:dtype=bf16"},
    {"one", "rows=1 columns=16 fp4:dtype=u8 sf:dtype=e4m3 out:dtype=bf16"},
    {0},
};

DEFINE_OP("quantization", "out = blocks of 16 e2m1 with e4m3 scales, of a cache, as numbers", .rules = rules,
          .kernels = block_dequantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_dequantize_reference);
