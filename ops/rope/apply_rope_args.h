/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the apply_rope kernels. Pair i of a head turns by position * first_turns * ratio^i full turns. */
#ifndef APPLY_ROPE_ARGS_H
#define APPLY_ROPE_ARGS_H

#include "integers.h"

struct apply_rope_args {
    void *q_rope, *k_rope;   /* [nnz, num_heads, head_dim] T; may be q and k */
    const void *q, *k;       /* [nnz, num_heads, head_dim] T */
    const void *pos_ids;     /* [nnz] POS */
    int64_t q_rope_stride[2], k_rope_stride[2], q_stride[2], k_stride[2]; /* between tokens and heads, in elements */
    int64_t nnz;
    int32_t num_qo_heads, num_kv_heads, head_dim;
    int32_t num_pairs;       /* rotary_dim / 2 */
    int32_t num_rest;        /* elements to copy behind the pairs */
    double first_turns, ratio;
};

#endif
