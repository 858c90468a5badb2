/* SPDX-License-Identifier: Apache-2.0 */
/* A matrix product as libraries see it: out [m, n] = a [m, k] @ b [k, n] (+ bias [n]), sums in float32. The
 * shape decides which of a library's kernels runs, and is what descriptors are cached by; it has no padding. */
#ifndef BACKEND_MATMUL_H
#define BACKEND_MATMUL_H

#include <stdint.h>

struct matmul_shape {
    int64_t m, n, k;                       /* all > 0 */
    int64_t out_stride, a_stride;          /* between rows, in elements */
    int64_t b_stride;                      /* between columns of b, or between rows if b_rows_contiguous */
    int32_t b_rows_contiguous;             /* else b's columns are */
    int32_t input, output;                 /* enum dtype of a, b and bias; of out */
    int32_t device;                        /* CUDA device, else 0 */
    int32_t out_alignment, a_alignment, b_alignment; /* powers of two, in bytes, at most 256 */
    int32_t bias_alignment;                /* 0: no bias */
    int64_t workspace;                     /* bytes that may be used */
};

struct matmul_data {
    void *out;
    const void *a, *b, *bias;
    void *workspace;
};

#endif
