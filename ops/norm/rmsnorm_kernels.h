/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that rmsnorm and fused_add_rmsnorm share. */
#ifndef RMSNORM_KERNELS_H
#define RMSNORM_KERNELS_H

#include "op/op.h"

/* What the ops are seen as. */
struct rmsnorm_view {
    const DLTensor *out, *input, *residual, *weight; /* residual: NULL without the addition */
    double eps;
};

extern const struct op_kernel rmsnorm_kernels[];

/* One row in float64: y and its allowed error. */
void rmsnorm_reference(double *y, double *bound, const double *x, const double *weight, int64_t hidden, double eps);

#endif
