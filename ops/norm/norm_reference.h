/* SPDX-License-Identifier: Apache-2.0 */
/* What the references of the norm family share. */
#ifndef NORM_REFERENCE_H
#define NORM_REFERENCE_H

#include "harness/reference.h"
#include "ops/norm/norm_kernels.h"

/* The row that starts at element `at`: input, or the float32 sum of input and residual. */
void norm_reference_x(const struct norm_view *t, int64_t at, int64_t hidden, double *x);

/* The row's values before they are quantised, and by how much each may be off. */
void norm_reference_y(const struct reference *r, const double *x, int64_t hidden, double *y, double *error);

#endif
