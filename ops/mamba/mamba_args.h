/* SPDX-License-Identifier: Apache-2.0 */
/* What the launch arguments of the kernels for Mamba-2's states consist of. Strides are in elements. */
#ifndef MAMBA_ARGS_H
#define MAMBA_ARGS_H

#include "narrow.h"
#include "philox.h"

/* [tokens, heads, dim]; of B and C, groups and states. Tokens are counted over all sequences; `sequence` is added to the stride
 * of one where sequences have one of their own. data may be NULL. */
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

struct token_range {
    int64_t begin, end;
};

/* Of states that are rounded at random. */
struct rounding_seed {
    const int64_t *at; /* NULL: seed */
    int64_t seed;
};

ANYWHERE uint64_t rounding_key(const struct rounding_seed *s)
{
    return (uint64_t)(s->at ? *s->at : s->seed);
}

/* The random bits of four elements of a state, counted from the beginning of its pool; `at` is the first. */
ANYWHERE struct philox rounding_bits(uint64_t seed, int64_t at, int rounds)
{
    return philox_rounds(seed, (uint64_t)at, 0, rounds);
}

#endif
