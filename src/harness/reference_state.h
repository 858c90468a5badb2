/* SPDX-License-Identifier: Apache-2.0 */
/* What stands behind a struct reference: the float64 tensors, their bounds, and what a kernel wrote. Filled
 * by expected.c. */
#ifndef HARNESS_REFERENCE_STATE_H
#define HARNESS_REFERENCE_STATE_H

#include "harness/reference.h"

struct reference_state {
    int num_args;
    struct reference_tensor {
        DLTensor tensor;  /* dense, float64; data is NULL if the argument is absent */
        enum dtype dtype; /* in the call */
        double *bound;    /* outputs */
        double *got;      /* outputs, once a kernel has run */
    } tensor[OP_MAX_ARGS];
    int64_t rows, wanted_every; /* of the first output: row i is wanted if i % wanted_every == wanted_first */
    int64_t wanted_first;
    bool asked; /* the reference did skip the rows that are not wanted */
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
    _Alignas(16) unsigned char view[OP_MAX_VIEW_BYTES];
};

#endif
