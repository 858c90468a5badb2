/* SPDX-License-Identifier: Apache-2.0 */
/* The op e2m1_and_ufp8sf_scale_to_float. Its kernels are shared by all that dequantize blocks: block_dequantize_kernels.c. */
#include "ops/quantization/block_dequantize_kernels.h"

#define OP e2m1_and_ufp8sf_scale_to_float
DIMS(rows, columns);

static const struct op_arg args[] = {
    OUT(out, F32, "... columns"),
    IN(e2m1, E2M1X2 | U8, "... columns//2", .fill = MASK),
    IN(sf, U8, SCALE_SHAPE("", "rows", "columns//sf_vec_size") "... columns//sf_vec_size", .by = "sf_layout", .flags = DENSE,
       .fill = MASK),
    NUMBER(global_scale, .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.001, 9)),
    INT(sf_vec_size, .value = 16, .min = 16, .max = 32),
    INT(ufp8_type, .value = 1, .max = 1, .flags = HOST),
    ENUM(sf_layout, SCALE_LAYOUTS),
    {0},
};

static const char *const rules[] = {"sf_vec_size == 16 or sf_vec_size == 32", "columns % sf_vec_size == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_e2m1_and_ufp8sf_scale_to_float *a = from;
    *(struct block_dequantize_view *)to = (struct block_dequantize_view){.out = a->out,
                                                                         .codes = a->e2m1,
                                                                         .scales = a->sf,
                                                                         .global_scale = a->global_scale,
                                                                         .e8m0 = a->ufp8_type.value.i == 0,
                                                                         .block = a->sf_vec_size,
                                                                         .layout = a->sf_layout};
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"columns", 32, 4000, 32}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "rows=7 columns=96 sf_vec_size=32 ufp8_type=0 sf_layout=SCALES_8X4 e2m1:dtype=u8"},
    {"llama_70b_batch", "rows=128 columns=8192 e2m1:dtype=e2m1x2"},
    {"deepseek_v3", "rows=4096 columns=7168 e2m1:dtype=u8"},
    {"gpt_oss", "rows=2880 columns=2880 sf_vec_size=32 ufp8_type=0 e2m1:dtype=u8"},
    {"linear", "rows=300 columns=4096 sf_layout=SCALES_LINEAR e2m1:dtype=e2m1x2"},
    {0},
};

DEFINE_OP("quantization", "out = blocks of e2m1 with e4m3 or e8m0 scales as f32", .rules = rules,
          .kernels = block_dequantize_kernels, .view = view, .ranges = ranges, .shapes = shapes,
          .reference = block_dequantize_reference);
