/* SPDX-License-Identifier: Apache-2.0 */
/* What the apply_rope ops share: the host side of their kernels, and their reference. */
#ifndef APPLY_ROPE_KERNELS_H
#define APPLY_ROPE_KERNELS_H

#include "harness/reference.h"

/* What the ops are seen as. */
struct rope_view {
    const DLTensor *q_rope, *k_rope, *q, *k, *pos_ids; /* in place: q_rope is q, k_rope is k */
    int32_t rotary_dim, interleave;
    double rope_scale, rope_theta;
};

extern const struct op_kernel apply_rope_kernels[];

void apply_rope_reference(const struct reference *r);

#endif
