/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_kv_quantize. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP nvfp4_kv_quantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, E2M1X2 | U8, "... columns//2"),
    OUT(out_scale, U8 | E4M3, "... columns//16", .flags = DENSE),
    IN(input, F16 | BF16, "... columns", .fill = NORMAL_WITH_ALL),
    NUMBER(global_scale, .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.001, 9)),
    {0},
};

static const char *const rules[] = {"columns % 16 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_kv_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){.out = a->out,
                                                                     .scales = a->out_scale,
                                                                     .input = a->input,
                                                                     .global_scale = a->global_scale,
                                                                     .inverse = true,
                                                                     .scale_kind = SCALE_E4M3,
                                                                     .block = 16,
                                                                     .layout = SCALES_LINEAR};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 16, 4000, 16}, {0}};

static const struct op_shape shapes[] = {
    {"llama_8b_decode", "rows=8 columns=128 dtype=bf16 out:dtype=u8 out_scale:dtype=e4m3"},
    {"odd", "rows=7 columns=48 dtype=f16 out:dtype=u8 out_scale:dtype=e4m3"},
    {"llama_8b_prefill", "rows=65536 columns=128 dtype=bf16 out:dtype=u8 out_scale:dtype=e4m3"},
    {"gpt_oss_batch", "rows=1024 columns=64 dtype=f16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"deepseek_v3_prefill", "rows=16384 columns=512 dtype=bf16 out:dtype=u8 out_scale:dtype=e4m3"},
    {0},
};

DEFINE_OP("quantization", "out, out_scale = input in blocks of 16 e2m1 with e4m3 scales, for a cache", .rules = rules,
          .kernels = block_quantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_quantize_reference);
