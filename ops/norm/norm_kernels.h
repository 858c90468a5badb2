/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops of the norm family share: how they are seen, their kernels, reference, ranges and rules. */
#ifndef NORM_KERNELS_H
#define NORM_KERNELS_H

#include "flashinfer/norm.h"
#include "op/op.h"

/* What an op is seen as; NULL and 0 where it has no such thing. */
struct norm_view {
    const DLTensor *out, *input, *residual, *weight, *beta;
    const DLTensor *y, *linear_scales, *swizzled_scales; /* with block_size; y: what is quantised */
    const DLTensor *surplus_scales;                      /* given, but block_scale is linear already */
    flashinfer_number scale;                             /* 8 bits: out is divided by it; with block_size: the global scale */
    double eps, weight_bias;
    int64_t block_size; /* 0: none */
    bool layernorm, silu, e8m0;
};

extern const struct op_kernel norm_kernels[];
extern const char *const norm_rules[];
extern const struct op_range norm_ranges[];
extern const char *const norm_fp4_rules[];
extern const struct op_range norm_fp4_ranges[];
extern const struct op_shape norm_shapes[]; /* of ops whose output has the dtype of input */
extern const struct op_shape norm_add_shapes[]; /* of those with a residual */
extern const struct op_shape norm_quant_shapes[];
extern const struct op_shape norm_add_quant_shapes[];

void norm_reference(const struct reference *r);
/* Of the ops with a block_size, whose every output it judges. */
const char *norm_fp4_verify(const struct reference *r);
void norm_cost(const struct call *call, double *bytes, double *operations);

static inline bool norm_scales_are_e8m0(int32_t scale_format, int64_t block_size)
{
    return scale_format == FLASHINFER_SCALE_FORMAT_UE8M0 || (scale_format == FLASHINFER_SCALE_FORMAT_AUTO && block_size == 32);
}

#define NORM_SCALE_SHAPE \
    "LINEAR: ... hidden//block_size | SWIZZLED: ceil(rows/128)*ceil(hidden/(4*block_size))*512"
#define NORM_SPECIAL_NOT_HUGE NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_INFINITY | SPECIAL_NAN)

#endif
