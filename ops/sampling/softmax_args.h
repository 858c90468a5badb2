/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the softmax kernels. */
#ifndef SOFTMAX_ARGS_H
#define SOFTMAX_ARGS_H

#include "integers.h"

enum { SOFTMAX_BLOCKS = 8 }; /* of a row, where a cluster has it */

struct softmax_args {
    float *out;         /* [batch, vocab] */
    const void *logits; /* [batch, vocab] T */
    int64_t batch, vocab;
    int64_t out_stride, logits_stride; /* between rows, in elements */
    const float *temperatures; /* that of a row: temperatures[row * temperatures_step]; NULL: `temperature` */
    int32_t temperatures_step; /* 0 or 1 */
    float temperature;
};

#endif
