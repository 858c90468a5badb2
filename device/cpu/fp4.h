/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low
 * half. */
#ifndef FP4_H
#define FP4_H

#include "vec.h"

typedef struct { uint8_t bits; } e2m1x2;
typedef uint64_t pairs __attribute__((vector_size(4 * LANES))); /* of lanes */

/* The codes of y * multiplier, float32 products, rounded to nearest, ties to even; 6 beyond it and for NaN. Codes are a concave
 * function of values, min(2 x, x + 2, x / 2 + 4), rounded. */
INLINE vecu vec_e2m1_codes(vec y, vec multiplier)
{
    const float unit = 8388608.0f; /* 2^23: the float whose unit is one */
    vec x = y * multiplier;
    vec magnitude = (vec)((vecu)x & 0x7fffffffu);
    vec code = vec_min2(magnitude * 2.0f + unit, vec_set(unit + 7.0f));
    code = vec_min2(vec_min2(magnitude + (unit + 2.0f), magnitude * 0.5f + (unit + 4.0f)), code);
    return ((vecu)code & 7) | ((vecu)x >> 28 & 8 & (vecu)(x == x));
}

/* Sixteen codes as eight bytes. */
INLINE void vec_store_e2m1(uint8_t *to, vecu codes)
{
    pairs p = (pairs)codes;
    p |= p >> 28;
#ifdef __AVX512F__
    __m128i bytes = _mm512_cvtepi64_epi8((__m512i)p);
    memcpy(to, &bytes, LANES / 2);
#else
    for (int i = 0; i < LANES / 2; i++)
        to[i] = (uint8_t)p[i];
#endif
}

/* The values of the low four bits of each lane. */
INLINE vec vec_e2m1_values(vecu codes)
{
    const vec values = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
#ifdef __clang__
    vec y;
    for (int i = 0; i < LANES; i++)
        y[i] = values[codes[i] & 15];
    return y;
#else
    return __builtin_shuffle(values, (veci)(codes & 15));
#endif
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

#endif
