/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the selective_state_update kernels. Strides are in elements. */
#ifndef SELECTIVE_STATE_UPDATE_ARGS_H
#define SELECTIVE_STATE_UPDATE_ARGS_H

#include "integers.h"

/* [batch, tokens, heads, dim]; of B and C, groups and states. data may be NULL. */
struct token_rows {
    const void *data;
    int64_t sequence, token, head, dim; /* strides */
    int32_t wide;                       /* f32, else T */
};

/* [heads, dim]; of A, states too. */
struct head_weights {
    const void *data; /* may be NULL */
    int64_t head, dim, state;
    int32_t wide;
};

struct state_rows {
    void *data; /* may be NULL */
    int64_t row, step, head, dim;
};

struct selective_state_update_args {
    struct token_rows out, x, dt, B, C, z;
    struct head_weights A, D, dt_bias;
    struct state_rows state, kept;
    const int32_t *rows, *final_rows, *kept_rows, *accepted; /* may be NULL */
    int64_t batch, tokens, num_heads, group_heads, head_dim, columns, final_columns;
    int32_t pad, softplus, update;
};

/* Row of state that a sequence reads; below 0: padding. */
ANYWHERE int64_t first_state(const struct selective_state_update_args *a, int64_t sequence)
{
    int64_t column = a->accepted ? a->accepted[sequence] - 1 : 0;
    if (!a->rows)
        return sequence;
    column = column < 0 ? 0 : column < a->columns ? column : a->columns - 1;
    int32_t row = a->rows[sequence * a->columns + column];
    return row == a->pad ? -1 : row;
}

/* Row that the state after a token goes to; below 0: none. `row`: the one that was read. */
ANYWHERE int64_t written_state(const struct selective_state_update_args *a, int64_t sequence, int64_t token, int64_t row)
{
    int64_t last = token + 1 == a->tokens;
    if (!a->update || (!last && a->final_columns == 1))
        return -1;
    if (!a->final_rows)
        return row;
    int32_t to = a->final_rows[sequence * a->final_columns + (a->final_columns == 1 ? 0 : token)];
    return to == a->pad ? -1 : to;
}

#endif
