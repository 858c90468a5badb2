/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_quantize. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP nvfp4_quantize
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, E2M1X2 | U8, "... columns//2"),
    OUT(out_scale, U8 | E4M3, SCALE_SHAPE("", "rows", "columns//sf_vec_size") "... columns//sf_vec_size", .by = "sf_layout",
        .flags = DENSE),
    IN(a, F16 | BF16 | E4M3, "... columns", .fill = NORMAL_WITH_ALL),
    NUMBER(a_global_sf, .value = 1, .min = 1e-10, .dtype.set = F32, .shape = "rows", .fill = UNIFORM(0.01, 900)),
    ENUM(sf_layout, SCALE_LAYOUTS),
    INT(sf_vec_size, .value = 16, .min = 16, .max = 32),
    {0},
};

static const char *const rules[] = {"sf_vec_size == 16 or sf_vec_size == 32", "columns % sf_vec_size == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){.out = a->out,
                                                                     .scales = a->out_scale,
                                                                     .input = a->a,
                                                                     .global_scale = a->a_global_sf,
                                                                     .scale_kind = SCALE_E4M3,
                                                                     .block = a->sf_vec_size,
                                                                     .layout = a->sf_layout};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 16, 6000, 16}, {0}};

static const struct op_shape shapes[] = {
    {"llama_8b_decode", "rows=1 columns=4096 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"odd", "rows=7 columns=96 dtype=f16 sf_layout=SCALES_LINEAR out:dtype=u8 out_scale:dtype=u8"},
    {"llama_70b_batch", "rows=128 columns=8192 dtype=f16 sf_layout=SCALES_8X4 out:dtype=e2m1x2 out_scale:dtype=e4m3"},
    {"deepseek_v3_prefill", "rows=4096 columns=7168 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"gpt_oss_prefill", "rows=16384 columns=2880 dtype=f16 sf_vec_size=32 out:dtype=u8 out_scale:dtype=u8"},
    {"wide", "rows=300 columns=28672 dtype=e4m3 out:dtype=u8 out_scale:dtype=e4m3"},
    {0},
};

DEFINE_OP("quantization", "out, out_scale = a in blocks of e2m1 with e4m3 scales", .rules = rules,
          .kernels = block_quantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_quantize_reference);
