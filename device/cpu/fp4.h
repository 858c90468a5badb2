/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low
 * half. */
#ifndef FP4_H
#define FP4_H

#include "pair.h"

typedef uint64_t pairs __attribute__((vector_size(4 * LANES))); /* of lanes */

/* The low four bits of each lane are the code of x, rounded to nearest, ties to even; 6 beyond it and for NaN. The rest is not.
 * Codes are a concave function of values, min(2 x, x + 2, x / 2 + 4), rounded. tame: no lane is NaN, or 7 or more. */
INLINE vecu vec_e2m1_low(vec x, int tame)
{
    const float unit = 8388608.0f; /* 2^23: the float whose unit is one */
    vec magnitude = (vec)((vecu)x & 0x7fffffffu);
    vecu code = vec_min_bits((vecu)(magnitude * 2.0f + unit), (vecu)(magnitude + (unit + 2.0f)));
    code = vec_min_bits(code, (vecu)(magnitude * 0.5f + (unit + 4.0f)));
    if (!tame)
        code = vec_min_bits(code, (vecu)vec_set(unit + 7.0f));
    vecu bits = code | ((vecu)x >> 28 & 8);
    return tame ? bits : vec_where_nan(x, (vecu){0} + 7, bits);
}

/* tame: see vec_e2m1_low. */
INLINE void pair_narrow_e2m1x2(e2m1x2 *to, struct pair x, enum pair_order order, int tame)
{
    vecu a = vec_e2m1_low(x.v[0], tame), b = vec_e2m1_low(x.v[1], tame);
    if (order == HALVES) { /* pairs are words of a lane then */
        a = vec_lower_words(a, b);
        b = a >> 16;
    }
    vec_store_bytes(to, (a & 15) | b << 4);
}

/* The values of the low four bits of each lane. */
INLINE vec vec_e2m1_values(vecu codes)
{
    const vec values = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return vec_permute(values, (veci)(codes & 15));
}

/* Eight bytes as sixteen values. */
INLINE vec vec_load_e2m1(const uint8_t *from)
{
#ifdef __AVX512F__ /* one instruction, where GCC 12 goes byte by byte */
    __m128i b = {0};
    memcpy(&b, from, LANES / 2);
    pairs p = (pairs)_mm512_cvtepu8_epi64(b);
#else
    typedef uint8_t bytes __attribute__((vector_size(LANES / 2)));
    bytes b;
    memcpy(&b, from, sizeof b);
    pairs p = __builtin_convertvector(b, pairs);
#endif
    return vec_e2m1_values((vecu)((p & 15) | p >> 4 << 32));
}

INLINE struct pair pair_load_e2m1x2(const e2m1x2 *from, enum pair_order order)
{
    if (order == HALVES)
        return (struct pair){{vec_load_e2m1(&from->bits), vec_load_e2m1(&from->bits + LANES / 2)}};
    vecu codes = vec_load_bytes(from);
    return (struct pair){{vec_e2m1_values(codes), vec_e2m1_values(codes >> 4)}};
}
PAIR_LOAD_PARTIAL(e2m1x2)

#endif
