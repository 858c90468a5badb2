/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the selective_state_update kernels. Strides are in elements. */
#ifndef SELECTIVE_STATE_UPDATE_ARGS_H
#define SELECTIVE_STATE_UPDATE_ARGS_H

#include "fetch_ahead.h"
#include "index_list.h"
#include "mamba_args.h"

struct selective_state_update_args {
    struct token_rows out, x, dt, B, C, z;
    struct head_weights A, D, dt_bias;
    struct state_rows state, kept;
    const int32_t *rows, *final_rows, *kept_rows, *accepted; /* may be NULL */
    struct index_list cu_seqlens;                            /* NULL: tokens each */
    struct rounding_seed seed;
    uint64_t group_factor; /* head / group_heads is head * this / 2^32 */
    int64_t num_sequences, tokens, num_heads, head_dim, columns, final_columns, kept_steps;
    int32_t group_heads, pad, softplus, update;
    struct fetch_ahead ahead; /* heads of all sequences */
};

ANYWHERE struct token_range sequence_tokens(const struct selective_state_update_args *a, int64_t sequence)
{
    struct token_range range = {sequence * a->tokens, (sequence + 1) * a->tokens};
    if (a->cu_seqlens.data) {
        range.begin = index_at(&a->cu_seqlens, sequence);
        range.end = index_at(&a->cu_seqlens, sequence + 1);
    }
    return range;
}

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

/* Row that the state after a token of its sequence, the n-th of `count` from 0 on, goes to; below 0: none. `row`: the one that
 * was read. */
ANYWHERE int64_t written_state(const struct selective_state_update_args *a, int64_t sequence, int64_t n, int64_t count,
                               int64_t row)
{
    int64_t column = a->final_columns > 1 ? n : n + 1 - count;
    if (!a->update || column < 0 || column >= a->final_columns)
        return -1;
    if (!a->final_rows)
        return row;
    int32_t to = a->final_rows[sequence * a->final_columns + column];
    return to == a->pad ? -1 : to;
}

#endif
