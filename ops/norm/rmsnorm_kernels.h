/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that rmsnorm and fused_add_rmsnorm share. */
#ifndef RMSNORM_KERNELS_H
#define RMSNORM_KERNELS_H

#include "op/op.h"

struct rmsnorm_tensors {
    const DLTensor *out, *input, *residual, *weight; /* residual: NULL without the addition */
    double eps;
};

const char *rmsnorm_fit_sm80(struct rmsnorm_tensors t, struct way *way);
const char *rmsnorm_fit_wide_sm80(struct rmsnorm_tensors t, struct way *way);
const char *rmsnorm_fit_cpu(struct rmsnorm_tensors t, struct way *way);
flashinfer_status rmsnorm_run(const struct call *call, struct rmsnorm_tensors t, const struct way *way);

/* One row in float64: y and its allowed error. */
void rmsnorm_reference(double *y, double *bound, const double *x, const double *weight, int64_t hidden, double eps);

#endif
