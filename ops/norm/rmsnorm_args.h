/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the rmsnorm kernels, with or without the addition of a residual. */
#ifndef RMSNORM_ARGS_H
#define RMSNORM_ARGS_H

#include "integers.h"

struct rmsnorm_args {
    void *out;          /* [rows, groups, hidden] T */
    const void *input;  /* [rows, groups, hidden] T */
    void *residual;     /* [rows, groups, hidden] T; NULL without ADD_RESIDUAL */
    const void *weight; /* [hidden] T */
    int64_t rows, groups, hidden; /* groups: heads of a row, say, where one stride cannot walk rows and groups; else 1 */
    int64_t out_stride[2], input_stride[2], residual_stride[2]; /* between rows and groups, in elements */
    float inverse_hidden, eps;
};

#endif
