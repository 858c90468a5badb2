/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_batched_quantize. Its kernels are shared by all that quantize blocks: block_quantize_kernels.c. */
#include "ops/quantization/block_quantize_kernels.h"

#define OP nvfp4_batched_quantize
DIMS(batch, rows, columns);

static const struct op_arg args[] = {
    OUT(out, E2M1X2 | U8, "batch rows columns//2"),
    OUT(out_scale, U8 | E4M3, "batch ceil(rows/128)*128 ceil((columns//sf_vec_size)/4)*4", .flags = DENSE),
    IN(a, F16 | BF16, "batch rows columns", .fill = NORMAL_WITH_ALL),
    NUMBER(a_global_sf, .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.01, 900)),
    INT(sf_vec_size, .value = 16, .min = 16, .max = 32),
    {0},
};

static const char *const rules[] = {"sf_vec_size == 16 or sf_vec_size == 32", "columns % sf_vec_size == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_batched_quantize *a = from;
    *(struct block_quantize_view *)to = (struct block_quantize_view){.out = a->out,
                                                                     .scales = a->out_scale,
                                                                     .input = a->a,
                                                                     .global_scale = a->a_global_sf,
                                                                     .grouped = true,
                                                                     .scale_kind = SCALE_E4M3,
                                                                     .block = a->sf_vec_size,
                                                                     .layout = SCALES_128X4};
}

DEFINE_OP("quantization", "out, out_scale = each matrix of a in blocks of e2m1 with e4m3 scales", .rules = rules,
          .kernels = block_quantize_kernels, .view = view,
          .ranges = block_quantize_batch_ranges, .shapes = block_quantize_batch_shapes, .reference = block_quantize_reference);
