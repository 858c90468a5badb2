/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that all samplers share, and what judges their tokens. */
#ifndef SAMPLING_KERNELS_H
#define SAMPLING_KERNELS_H

#include "harness/reference.h"
#include "op/op.h"

struct problem;

/* What the ops are seen as. */
struct sampling_view {
    const DLTensor *samples, *valid, *probs, *indices; /* valid and indices may be NULL */
    flashinfer_number seed, offset;
    flashinfer_number top_k, top_p; /* absent: no filter */
    bool has_filter;                /* whether the op has top_k and top_p at all */
    bool joint, check_nan;
};

extern const struct op_kernel sampling_kernels[];

/* Whether each token is one that its filters leave, and the one that inverting the cumulative distribution
 * gives. The tensors are those of the reference. */
const char *sampling_verify(const struct reference *r);

/* Strews into some rows of random problems what probabilities should not be, and ties. */
void sampling_make(struct problem *problem);

#endif
