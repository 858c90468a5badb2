/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the gated_activation kernels. */
#ifndef GATED_ACTIVATION_ARGS_H
#define GATED_ACTIVATION_ARGS_H

#include "integers.h"

struct gated_activation_args {
    void *out;                        /* [rows, intermediate] O */
    const void *input;                /* [rows, 2 * intermediate] T */
    const float *scale;               /* [1]; NULL: 1 / factor */
    int64_t rows, intermediate;
    int64_t out_stride, input_stride; /* between rows, in elements */
    float factor;
};

#endif
