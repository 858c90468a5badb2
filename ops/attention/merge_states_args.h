/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of merge_states_sm80 and merge_states_cpu. Strides are in elements; heads of an s lie side by side. */
#ifndef MERGE_STATES_ARGS_H
#define MERGE_STATES_ARGS_H

#include "integers.h"

/* Results over some of the keys, of all tokens and heads. */
struct merge_states_input {
    const void *v; /* T */
    const float *s;
    int64_t v_token, v_head, s_token;
};

struct merge_states_args {
    void *v_merged;                        /* [tokens, heads, head_dim] T; may be first.v */
    float *s_merged;                       /* [tokens, heads]; may be first.s */
    struct merge_states_input first, rest; /* state 0; state 1, and those behind it v_state and s_state apart */
    int64_t v_state, s_state;
    const uint8_t *mask; /* [tokens] or NULL; where it is 0 nothing is written */
    int64_t v_merged_token, v_merged_head, s_merged_token;
    int64_t tokens;
    int32_t states, heads, head_dim;
};

#endif
