/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that all samplers share, and what judges their tokens. */
#ifndef SAMPLING_KERNELS_H
#define SAMPLING_KERNELS_H

#include "harness/reference.h"
#include "op/op.h"

struct problem;

struct sampling_tensors {
    const DLTensor *samples, *valid, *probs, *indices; /* valid and indices may be NULL */
    flashinfer_number seed, offset;
    flashinfer_number top_k, top_p; /* absent: no filter */
    bool has_filter;                /* whether the op has top_k and top_p at all */
    bool joint, check_nan;
};

const char *sampling_fit_sm80(const struct sampling_tensors *t, struct way *way);
const char *sampling_fit_cpu(const struct sampling_tensors *t, struct way *way);
flashinfer_status sampling_run(const struct call *call, const struct sampling_tensors *t,
                               const struct way *way);

/* Whether each token is one that its filters leave, and the one that inverting the cumulative distribution
 * gives. The tensors are those of the reference. */
const char *sampling_verify(const struct reference *r, const struct sampling_tensors *t);

/* Strews into some rows of random problems what probabilities should not be, and ties. */
void sampling_make(struct problem *problem);

#endif
