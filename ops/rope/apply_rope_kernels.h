/* SPDX-License-Identifier: Apache-2.0 */
/* What the apply_rope ops share: the host side of their kernels, and their reference. */
#ifndef APPLY_ROPE_KERNELS_H
#define APPLY_ROPE_KERNELS_H

#include "harness/reference.h"

struct rope_problem {
    const DLTensor *q_rope, *k_rope, *q, *k, *pos_ids; /* in place: q_rope is q, k_rope is k */
    int32_t rotary_dim, interleave;
    double rope_scale, rope_theta;
};

const char *apply_rope_fit_sm80(const struct rope_problem *p, struct way *way);
const char *apply_rope_fit_cpu(const struct rope_problem *p, struct way *way);
flashinfer_status apply_rope_run(const struct call *call, const struct rope_problem *p, const struct way *way);

void apply_rope_reference(const struct reference *r, const struct rope_problem *p);

#endif
