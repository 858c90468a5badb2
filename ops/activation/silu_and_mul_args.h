/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the silu_and_mul kernels. */
#ifndef SILU_AND_MUL_ARGS_H
#define SILU_AND_MUL_ARGS_H

#include "integers.h"

struct silu_and_mul_args {
    void *out;                        /* [rows, intermediate] T */
    const void *input;                /* [rows, 2 * intermediate] T */
    int64_t rows, intermediate;
    int64_t out_stride, input_stride; /* between rows, in elements */
};

#endif
