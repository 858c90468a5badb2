/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the packbits kernels, and eight bytes as eight bits. */
#ifndef PACKBITS_ARGS_H
#define PACKBITS_ARGS_H

#include "integers.h"

struct packbits_args {
    uint8_t *packed;       /* [bytes] */
    int32_t *new_indptr;   /* [batch + 1]: where each segment begins in packed; NULL: there is one segment, x */
    const uint8_t *x;      /* [size]: zero or not */
    const int32_t *indptr; /* [batch + 1], into x */
    int64_t bytes, size, batch;
    int32_t little; /* the first element is the lowest bit; else the highest */
};

/* The first element is the lowest byte of `elements`. A product gathers bits that lie 8 apart: none of its terms meet. */
ANYWHERE uint8_t pack8(uint64_t elements, int32_t little)
{
    const uint64_t ones = 0x0101010101010101u, low = 0x7f * ones;
    uint64_t set = (((elements & low) + low) | elements) >> 7 & ones;
    return (uint8_t)(set * (little ? 0x0102040810204080u : 0x8040201008040201u) >> 56);
}

#endif
