/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm with fp4 output: packed pairs, optional outputs, block scales in one of two layouts or in both. */
#include "tests/op/declarations.h"

#define OP norm_fp4_sample
DIMS(rows, hidden, block_size);

static const struct op_arg args[] = {
    OUT(y_fp4, E2M1X2 | U8, "... hidden//2"),
    OUT(block_scale, E4M3 | U8, "linear: ... hidden//block_size | swizzled: ceil(rows/128)*ceil(hidden/(4*block_size))*512",
        .by = "sf_layout", .flags = DENSE),
    OUT(block_scale_unswizzled, E4M3 | U8, "... hidden//block_size", .flags = OPTIONAL,
        .required_if = "output_both_sf_layouts == 1"),
    OUT(y_out, LIKE(input), "... hidden", .flags = OPTIONAL | DENSE),
    IN(input, F16 | BF16, "... hidden"),
    IN(weight, LIKE(input), "hidden"),
    NUMBER(global_scale, .value = 1),
    NUMBER(eps, .value = 1e-6),
    INT(block_size, .value = 16),
    ENUM(scale_format, "e4m3 ue8m0"),
    ENUM(sf_layout, "linear swizzled"),
    FLAG(output_both_sf_layouts),
    {0},
};

static const char *const rules[] = {
    "hidden % block_size == 0",
    "hidden >= 64",
    "block_size == 16 or block_size == 32",
    "block_size == 32 or scale_format == 0",
    "output_both_sf_layouts == 0 or sf_layout == 1",
    NULL,
};

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"hidden", 16, 2048, 16}, {"block_size", 1, 64, 0}, {0}};

DEFINE_OP("norm", "y_fp4, block_scale = fp4(input / rms(input) * weight)", .rules = rules, .ranges = ranges);
