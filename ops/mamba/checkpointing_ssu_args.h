/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the checkpointing_ssu kernels. Strides are in elements. */
#ifndef CHECKPOINTING_SSU_ARGS_H
#define CHECKPOINTING_SSU_ARGS_H

#include "index_list.h"
#include "mamba_args.h"

enum { WINDOW = 16 }; /* the most tokens that are live, and the most new ones */

/* Of a block of checkpointing_ssu_sm80: the rows of a state that it has, its threads, of which of a single head some have tokens
 * and no rows, its heads where it has several, and bytes of shared memory, with `stages` of `heads` on their way. Strides of rows
 * are without bank conflicts. */
#define RING_ROWS 64
#define RING_THREADS(tiles, heads) ((heads) > 1 ? 128 : 128 + 64 * (tiles))
#define RING_HEADS 4
#define RING_WEIGHT_ROW(tiles) ((tiles) == 1 ? 12 : 20)
#define RING_B_ROW(state_dim) ((state_dim) + 8)
#define RING_X_ROW (RING_ROWS + 8)
#define RING_STAGE_BYTES(state_dim, element, tiles)                                                                       \
    (RING_ROWS * (state_dim) * (element) + 2 * (WINDOW + 16 * (tiles)) * RING_X_ROW)
#define RING_HEAD_BYTES(tiles) (6 * 4 * WINDOW + 16 + 8 * WINDOW * RING_WEIGHT_ROW(tiles))
#define RING_SHARED_BYTES(state_dim, element, tiles, heads, stages)                                                       \
    ((stages) * RING_STAGE_BYTES(state_dim, element, tiles) + 2 * WINDOW * RING_B_ROW(state_dim) +                        \
     8 * WINDOW * RING_WEIGHT_ROW(tiles) + (heads) * RING_HEAD_BYTES(tiles))

struct checkpointing_ssu_args {
    struct token_rows out, x, dt, B, C, z;
    struct head_weights A, D, dt_bias;
    struct state_rows state, x_cache, B_cache; /* of the rings, dim is between tokens */
    float *dt_cache;
    int64_t dt_cache_row, dt_cache_head;
    const int32_t *ring_start, *accepted, *rows; /* rows may be NULL */
    struct index_list cu_seqlens;                /* NULL: tokens each */
    struct rounding_seed seed;
    uint64_t group_factor; /* n / group_blocks is n * this / 2^32 */
    int64_t num_sequences, tokens, num_heads, head_dim;
    int32_t group_heads, group_blocks, pad, softplus, ring_len, window;
    int32_t whole; /* sequences from this one on have two blocks of half as many heads in place of one */
};

/* A sequence: of `all` tokens from `begin` on `count` are served; its row, and the live tokens of its ring. */
struct ring_sequence {
    int64_t index, begin, all, row; /* row below 0: padding */
    int32_t count, start, live;
};

/* Row of state and rings; below 0: padding. */
ANYWHERE int64_t ring_row(const struct checkpointing_ssu_args *a, int64_t sequence)
{
    int64_t row = a->rows ? a->rows[sequence] : sequence;
    return a->rows && row == a->pad ? -1 : row;
}

/* Without what its ring has. */
ANYWHERE struct ring_sequence ring_tokens(const struct checkpointing_ssu_args *a, int64_t sequence)
{
    struct ring_sequence s = {sequence, sequence * a->tokens, a->tokens, ring_row(a, sequence), 0, 0, 0};
    if (a->cu_seqlens.data) {
        s.begin = index_at(&a->cu_seqlens, sequence);
        s.all = index_at(&a->cu_seqlens, sequence + 1) - s.begin;
    }
    s.count = (int32_t)(s.all < a->ring_len - a->window ? s.all : a->ring_len - a->window);
    return s;
}

/* `start` and `accepted` as they stand there. */
ANYWHERE void ring_has(const struct checkpointing_ssu_args *a, struct ring_sequence *s, int32_t start, int32_t accepted)
{
    s->start = start < 0 ? 0 : start < a->ring_len ? start : a->ring_len - 1;
    s->live = accepted < 0 ? 0 : accepted < a->window ? accepted : a->window;
}

ANYWHERE struct ring_sequence ring_sequence(const struct checkpointing_ssu_args *a, int64_t sequence)
{
    struct ring_sequence s = ring_tokens(a, sequence);
    if (s.row >= 0)
        ring_has(a, &s, a->ring_start[s.row], a->accepted[s.row]);
    return s;
}

/* Place in the ring of the i-th token, live ones first. */
ANYWHERE int32_t ring_place(const struct checkpointing_ssu_args *a, const struct ring_sequence *s, int32_t i)
{
    int32_t place = s->start + i;
    return place < a->ring_len ? place : place - a->ring_len;
}

/* Whether the state after the live tokens is written. */
ANYWHERE int ring_is_full(const struct checkpointing_ssu_args *a, const struct ring_sequence *s)
{
    return s->live + s->count > a->window;
}

#endif
