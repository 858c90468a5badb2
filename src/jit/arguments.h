/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel of the user is passed: its `struct args` is a sequence of these, tensors first
 * (flashinfer/jit.h). */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "integers.h"

struct tensor {
    void *data;
    int64_t shape[8], stride[8]; /* strides in elements; axes past the last have size 1 and stride 0 */
};

union number {
    int64_t i;
    double f;
};

#endif
