/* SPDX-License-Identifier: Apache-2.0 */
/* Sum over the ranks of a group, with what may follow it: residual, norm, quantisation. */
#include "tests/op/declarations.h"

#define OP allreduce_fusion
DIMS(tokens, hidden);

static const struct op_arg args[] = {
    OUT(output, LIKE(input), "tokens hidden", .flags = OPTIONAL | DENSE, .required_if = "pattern == 0", MAY_ALIAS(input)),
    OUT(residual_out, LIKE(input), "tokens hidden", .flags = OPTIONAL | DENSE, MAY_ALIAS(residual_in)),
    OUT(norm_out, LIKE(input), "tokens hidden", .flags = OPTIONAL | DENSE, .required_if = "pattern == 1"),
    OUT(quant_out, E4M3, "tokens hidden", .flags = OPTIONAL | DENSE, .required_if = "pattern == 2"),
    OUT(scale_out, F32, "per_tensor: 0 | per_token: tokens 1", .by = "layout_code", .flags = OPTIONAL),
    IN(input, F16 | BF16 | F32, "tokens hidden", .flags = DENSE),
    IN(residual_in, LIKE(input), "tokens hidden", .flags = OPTIONAL | DENSE, .required_if = "pattern != 0"),
    IN(rms_gamma, LIKE(input), "hidden", .flags = OPTIONAL, .required_if = "pattern != 0"),
    NUMBER(rms_eps, .value = 1e-6),
    NUMBER(weight_bias),
    NUMBER(scale_factor, .value = 1),
    ENUM(pattern, "ALLREDUCE RESIDUAL_RMS_NORM RESIDUAL_RMS_NORM_FP8"),
    ENUM(layout_code, "per_tensor per_token"),
    FLAG(use_oneshot),
    FLAG(fp32_acc),
    COMM(comm),
    {0},
};

static const char *const rules[] = {"hidden % 8 == 0", NULL};
static const struct op_range ranges[] = {{"tokens", 0, 64, 0}, {"hidden", 1, 512, 0}, {0}};

DEFINE_OP("comm", "output = the sum of input over all ranks, and what the pattern adds to it", .rules = rules, .ranges = ranges);
