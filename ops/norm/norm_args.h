/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the norm kernels. What a kernel's constants leave out is NULL or 0. */
#ifndef NORM_ARGS_H
#define NORM_ARGS_H

#include "fetch_ahead.h"

struct norm_args {
    void *out;          /* [rows, groups, hidden] OUT; with BLOCK_SIZE [rows, groups, hidden / 2] pairs of e2m1 */
    const void *input;  /* [rows, groups, hidden] T */
    void *residual;     /* [rows, groups, hidden] R, with ADD_RESIDUAL */
    const void *weight; /* [hidden] W */
    const void *beta;   /* [hidden] W, with LAYERNORM */
    const float *scale; /* of a quantised OUT, on the call's device; NULL: scale_value */
    void *y;                 /* [rows, groups, hidden] T, with BLOCK_SIZE; NULL: not wanted */
    uint8_t *linear_scales;  /* [rows, groups, hidden / BLOCK_SIZE]; NULL: not wanted */
    uint8_t *swizzled_scales; /* in tiles of 128 rows by 4 blocks; NULL: not wanted */
    int64_t rows, groups, hidden; /* groups: heads of a row, say, where one stride cannot walk rows and groups; else 1 */
    /* Between rows and groups, in elements. */
    int64_t out_stride[2], input_stride[2], residual_stride[2], y_stride[2], scale_stride[2];
    uint64_t groups_inverse; /* (2^64 - 1) / groups */
    struct fetch_ahead ahead; /* whole rows of input and residual; none with groups */
    float inverse_hidden, eps, weight_bias, scale_value;
    uint32_t pads; /* 1: swizzled_scales have bytes of no block */
};

#endif
