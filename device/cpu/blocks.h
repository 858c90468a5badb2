/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen blocks that lie one after the other, of 16 elements or of multiples of 32, which share a scale each: their largest
 * magnitudes, and their elements multiplied. What is tame has no NaN; of what is not, NaN does not count. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "pair.h"

/* What `tame` says of blocks: nothing; that none of their elements is NaN, or rounds to more than the largest code, which the
 * caller makes sure of; or that and that ties may fall either way. Maxima of what is LOOSE may miss NaN: it shows among codes. */
enum { BLOCKS_WILD, BLOCKS_TAME, BLOCKS_LOOSE };

/* The larger ones, of lanes or of their halves. */
INLINE vecu blocks_larger(vecu a, vecu b, int halves)
{
    if (!halves)
        return vec_max_bits(a, b);
#ifdef __AVX512BW__
    return (vecu)_mm512_max_epu16((__m512i)a, (__m512i)b);
#else
    return vec_max_bits(a & 0xffff, b & 0xffff) | vec_max_bits(a & 0xffff0000u, b & 0xffff0000u);
#endif
}

#define BLOCKS_PICK(a, b, ...) ((vecu)VEC_PICK((vec)(a), (vec)(b), __VA_ARGS__))

/* Lanes 2 i and 2 i + 1: the largest of the first and of the last eight lanes of x[i], of 8. x is lost. */
INLINE vecu blocks_largest_of_8(vecu *x, int halves)
{
    for (int i = 0; i < 4; i++)
        x[i] = blocks_larger(
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31), halves);
    for (int i = 0; i < 2; i++)
        x[i] = blocks_larger(
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31), halves);
    vecu y = blocks_larger(BLOCKS_PICK(x[0], x[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
                           BLOCKS_PICK(x[0], x[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31), halves);
    y = BLOCKS_PICK(y, y, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return halves ? blocks_larger(y & 0xffff, y >> 16, 0) : y;
}

/* Lane i: the largest lane of x[i], of 16. */
INLINE vecu blocks_largest_of_16(vecu *x, int halves)
{
    for (int i = 0; i < LANES / 2; i++)
        x[i] = blocks_larger(
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            BLOCKS_PICK(x[2 * i], x[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31), halves);
    return blocks_largest_of_8(x, halves);
}

INLINE vecu blocks_magnitude(vecu x, int tame)
{
    x &= 0x7fffffffu;
    return tame ? x : x & (vecu)(x <= 0x7f800000u);
}

/* Of two elements in each lane, whose infinity is `infinity`. */
INLINE vecu blocks_magnitudes(const void *from, uint16_t infinity, int tame)
{
    vecu x;
    memcpy(&x, from, sizeof x);
    x &= 0x7fff7fffu;
    if (tame)
        return x;
    vecu low = x & 0xffff, high = x & 0xffff0000u;
    return (low & (vecu)(low <= infinity)) | (high & (vecu)(high <= (uint32_t)infinity << 16));
}

INLINE vecu blocks_largest_words(const uint16_t *from, int block, uint16_t infinity, int tame)
{
    vecu x[LANES];
    if (block == LANES) {
        for (int i = 0; i < LANES / 2; i++)
            x[i] = blocks_magnitudes(from + i * PAIR, infinity, tame);
        return blocks_largest_of_8(x, 1);
    }
    for (int i = 0; i < LANES; i++) {
        x[i] = blocks_magnitudes(from + i * block, infinity, tame);
        for (int k = PAIR; k < block; k += PAIR)
            x[i] = blocks_larger(blocks_magnitudes(from + i * block + k, infinity, tame), x[i], 1);
    }
    return blocks_largest_of_16(x, 1);
}

INLINE vec blocks_amax_bf16(const bf16 *from, int block, enum pair_order order, int tame)
{
    (void)order;
    return (vec)(blocks_largest_words((const uint16_t *)from, block, 0x7f80, tame) << 16);
}

INLINE vec blocks_amax_f16(const f16 *from, int block, enum pair_order order, int tame)
{
    (void)order;
    f16 largest[LANES];
    vech h = __builtin_convertvector(blocks_largest_words((const uint16_t *)from, block, 0x7c00, tame), vech);
    memcpy(largest, &h, sizeof h);
    return vec_load(largest);
}

/* The larger magnitude of two floats. */
INLINE vecu blocks_larger_magnitude(vec a, vec b, int tame)
{
#ifdef __AVX512DQ__
    if (tame == BLOCKS_LOOSE)
        return (vecu)_mm512_range_ps((__m512)a, (__m512)b, RANGE_LARGER_MAGNITUDE);
#endif
    return blocks_larger(blocks_magnitude((vecu)a, tame), blocks_magnitude((vecu)b, tame), 0);
}

/* Pairs in `order`. */
INLINE vec blocks_amax_f32(const f32 *from, int block, enum pair_order order, int tame)
{
    vecu x[LANES];
    int mixed = block == LANES && order == EVEN_ODD, step = mixed ? PAIR : block; /* two blocks in each vec */
    for (int i = 0; i < (mixed ? LANES / 2 : LANES); i++) {
        if (step == LANES)
            x[i] = blocks_magnitude((vecu)vec_load(from + i * step), tame);
        else
            x[i] = blocks_larger_magnitude(vec_load(from + i * step), vec_load(from + i * step + LANES), tame);
        for (int k = PAIR; k < step; k += LANES)
            x[i] = blocks_larger(blocks_magnitude((vecu)vec_load(from + i * step + k), tame), x[i], 0);
    }
    return (vec)(mixed ? blocks_largest_of_8(x, 0) : blocks_largest_of_16(x, 0));
}

#define blocks_amax(from, block, order, tame) PAIR_FLOATS(blocks_amax, from)(from, block, order, tame)

/* The bits of the larger ones, of `worst` and of the products of blocks' largest magnitudes and multipliers. */
INLINE vecu blocks_worst(vecu worst, vec amax, vec multiplier) { return vec_max_bits(worst, (vecu)(amax * multiplier)); }

/* Whether no such product is NaN, negative, or exceeds `limit`. */
INLINE int blocks_are_tame(vecu worst, float limit)
{
    const vecu most = (vecu)vec_set(limit);
    vecu beyond = vec_max_bits(worst, most) ^ most;
#ifdef __AVX512F__
    return !_mm512_test_epi32_mask((__m512i)beyond, (__m512i)beyond);
#else
    uint32_t any = 0;
    for (int i = 0; i < LANES; i++)
        any |= beyond[i];
    return !any;
#endif
}

/* x, which begins with element `at` of the sixteen blocks, with each block multiplied by its multiplier, of sixteen. */
INLINE struct pair blocks_multiplied(struct pair x, unsigned at, const float *multiplier, int block, enum pair_order order)
{
    const veci first_eight = {-1, -1, -1, -1, -1, -1, -1, -1};
    unsigned i = at / (unsigned)block;
    vec a = vec_set(multiplier[i]), b = block > LANES ? a : vec_set(multiplier[i + 1]);
    if (block == LANES && order == EVEN_ODD)
        a = b = vec_select(first_eight, a, b);
    return (struct pair){{x.v[0] * a, x.v[1] * b}};
}

/* Values of codes x: code * scale of its block * global_scale, in this order. */
INLINE struct pair blocks_values(struct pair x, unsigned at, const float *scale, int block, float global_scale,
                                 enum pair_order order)
{
    x = blocks_multiplied(x, at, scale, block, order);
    return (struct pair){{x.v[0] * global_scale, x.v[1] * global_scale}};
}

#endif
