/* SPDX-License-Identifier: Apache-2.0 */
/* What merge_state, merge_state_in_place and merge_states share. */
#ifndef MERGE_STATES_KERNELS_H
#define MERGE_STATES_KERNELS_H

#include "harness/reference.h"
#include "op/op.h"

/* What they are seen as. */
struct merge_states_view {
    const DLTensor *v_merged, *s_merged;
    const DLTensor *v[2], *s[2]; /* two states; or v[1] NULL, and all of them along the second axis of v[0] */
    const DLTensor *mask;        /* NULL: none */
};

extern const struct op_kernel merge_states_kernels[];
extern const char *const merge_states_rules[];

void merge_states_reference(const struct reference *r);

/* Gives some rows an s of -inf, and rubbish with it. */
void merge_states_spoil(struct problem *problem);

#define MERGE_STATES_V NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)

#endif
