/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops of the norm family share: how they are seen, their kernels, reference, ranges and rules. */
#ifndef NORM_KERNELS_H
#define NORM_KERNELS_H

#include "op/op.h"

/* What an op is seen as; NULL and 0 where it has no such thing. */
struct norm_view {
    const DLTensor *out, *input, *residual, *weight, *beta;
    flashinfer_number scale; /* a quantised out is divided by it */
    double eps, weight_bias;
    bool layernorm, silu;
};

extern const struct op_kernel norm_kernels[];
extern const char *const norm_rules[];
extern const struct op_range norm_ranges[];
extern const struct op_shape norm_shapes[]; /* of ops whose output has the dtype of input */
extern const struct op_shape norm_add_shapes[]; /* of those with a residual */
extern const struct op_shape norm_quant_shapes[];
extern const struct op_shape norm_add_quant_shapes[];

void norm_reference(const struct reference *r);
void norm_cost(const struct call *call, double *bytes, double *operations);

#define NORM_SPECIAL_NOT_HUGE NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_INFINITY | SPECIAL_NAN)
#define NORM_SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)

#endif
