/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low
 * half. */
#ifndef FP4_H
#define FP4_H

#include "stream.h"
#include "x86_vbmi.h"

typedef uint64_t pairs __attribute__((vector_size(4 * LANES))); /* of lanes */

#if defined __AVX512DQ__ && defined __AVX512BW__
/* Codes by integers. A quarter of a binade has one code, or, if the middle of two codes that goes to the lower one (a tie) is its
 * first magnitude, that one's and the upper code for all others. What is added to the bits of a magnitude, by its quarter, takes
 * the quarter away, and makes the bits from `top` on the code, with a carry from what is left.
 *   shift   to the quarter in the bits
 *   first   quarter from 0.25 on, from which others are counted */
#define E2M1_ONE(top, shift, first, quarter, code) \
    (((uint32_t)(code) + 1) << (top)) - (((uint32_t)(first) + (quarter) + 1) << (shift))
#define E2M1_TIE(top, shift, first, quarter, code) ((uint32_t)(code) << (top)) - (((uint32_t)(first) + (quarter)) << (shift)) - 1
#define E2M1_0_TO_11(...)                                                                                               \
    E2M1_TIE(__VA_ARGS__, 0, 1), E2M1_ONE(__VA_ARGS__, 1, 1), E2M1_ONE(__VA_ARGS__, 2, 1), E2M1_ONE(__VA_ARGS__, 3, 1), \
        E2M1_ONE(__VA_ARGS__, 4, 1), E2M1_ONE(__VA_ARGS__, 5, 1), E2M1_ONE(__VA_ARGS__, 6, 2),                          \
        E2M1_ONE(__VA_ARGS__, 7, 2), E2M1_ONE(__VA_ARGS__, 8, 2), E2M1_TIE(__VA_ARGS__, 9, 3),                          \
        E2M1_ONE(__VA_ARGS__, 10, 3), E2M1_ONE(__VA_ARGS__, 11, 4)
#define E2M1_12_TO_19(...)                                                                                                   \
    E2M1_ONE(__VA_ARGS__, 12, 4), E2M1_TIE(__VA_ARGS__, 13, 5), E2M1_ONE(__VA_ARGS__, 14, 5), E2M1_ONE(__VA_ARGS__, 15, 6), \
        E2M1_ONE(__VA_ARGS__, 16, 6), E2M1_TIE(__VA_ARGS__, 17, 7), E2M1_ONE(__VA_ARGS__, 18, 7), E2M1_ONE(__VA_ARGS__, 19, 7)
#define E2M1_ZEROS(...)                                                                                             \
    E2M1_ONE(__VA_ARGS__, 0, 0), E2M1_ONE(__VA_ARGS__, 1, 0), E2M1_ONE(__VA_ARGS__, 2, 0), E2M1_ONE(__VA_ARGS__, 3, 0)

/* The highest four bits of each lane are the code of x, rounded to nearest, ties to even; 6 beyond it and for NaN. The rest is
 * not. tame: no lane is NaN, or 8 or more. */
INLINE vecu vec_e2m1_high(vec x, int tame)
{
    enum { FIRST = 125 << 2 }; /* of which five bits choose: those of 0.25 are 20 */
    const vecu added[2] = {{E2M1_12_TO_19(28, 21, FIRST), E2M1_ZEROS(28, 21, FIRST - 12), E2M1_ZEROS(28, 21, FIRST - 8)},
                           {E2M1_ZEROS(28, 21, FIRST - 4), E2M1_0_TO_11(28, 21, FIRST)}};
    vec y = tame ? x : (vec)_mm512_range_ps((__m512)x, (__m512)vec_set(6.0f), RANGE_LESSER);
    vecu bits = (vecu)_mm512_range_ps((__m512)y, (__m512)vec_set(0x1p-5f), RANGE_LARGER);
    vecu code = bits + (vecu)_mm512_permutex2var_ps((__m512)added[0], (__m512i)(bits >> 21), (__m512)added[1]);
    return tame ? code : vec_where_nan(x, (vecu){0} + (7u << 28), code);
}

/* Of bytes that hold a code, neighbours joined: of a and of b in turn, by 128 bits. */
INLINE vecu joined_e2m1(vecu a, vecu b)
{
    const __m512i places = (__m512i)((vecu){0} + 0x10011001u);
    return (vecu)_mm512_packus_epi16(_mm512_maddubs_epi16((__m512i)a, places), _mm512_maddubs_epi16((__m512i)b, places));
}

/* Codes in words: of f16 or bf16, by the bits of their mantissa, divided by powers of two, of which `quarter` is a fourth in
 * their dtype. Of numbers, less than 8 times that. */
INLINE vecu words_e2m1(words x, words quarter, const int mantissa)
{
    const words added = {E2M1_0_TO_11(12, mantissa - 2, 0), E2M1_12_TO_19(12, mantissa - 2, 0)};
    words above = (words)_mm512_subs_epu16((__m512i)(x & 0x7fff), (__m512i)quarter);
    words code = above + (words)_mm512_permutexvar_epi16((__m512i)(above >> (mantissa - 2)), (__m512i)added);
    return (vecu)(((x & 0x8000) | (code & 0x7fff)) >> 12);
}

/* Of four vectors of such words. */
INLINE void write_e2m1_words(void *to, const vecu *x, int past_caches)
{
    vecu bytes[2];
    for (int i = 0; i < 2; i++)
        bytes[i] = (vecu)_mm512_packus_epi16((__m512i)x[2 * i], (__m512i)x[2 * i + 1]);
    bytes[0] = packed_in_order(joined_e2m1(bytes[0], bytes[1]));
    store_line(to, bytes, past_caches);
}
#else
/* The highest four bits of each lane are the code of x, rounded to nearest, ties to even; 6 beyond it and for NaN. The rest is
 * not. Codes are a concave function of values, min(2 x, x + 2, x / 2 + 4), rounded. tame: no lane is NaN, or 7 or more. */
INLINE vecu vec_e2m1_high(vec x, int tame)
{
    const float unit = 8388608.0f; /* 2^23: the float whose unit is one */
    vec magnitude = (vec)((vecu)x & 0x7fffffffu);
    vecu code = vec_min_bits((vecu)(magnitude * 2.0f + unit), (vecu)(magnitude + (unit + 2.0f)));
    code = vec_min_bits(code, (vecu)(magnitude * 0.5f + (unit + 4.0f)));
    if (!tame)
        code = vec_min_bits(code, (vecu)vec_set(unit + 7.0f));
    vecu bits = code << 28 | ((vecu)x & 0x80000000u);
    return tame ? bits : vec_where_nan(x, (vecu){0} + (7u << 28), bits);
}
#endif

/* The bytes of sixteen pairs, one in each lane. tame: see vec_e2m1_high. */
INLINE vecu pair_e2m1_bytes(struct pair x, enum pair_order order, int tame)
{
    vecu a = vec_e2m1_high(x.v[0], tame), b = vec_e2m1_high(x.v[1], tame);
    if (order == EVEN_ODD)
        return a >> 28 | (b >> 24 & 0xf0);
    a = vec_upper_words(a, b); /* pairs are words of a lane then */
    return (a >> 12 & 15) | (a >> 24 & ~15u);
}

/* Elements whose codes are a line of 64 bytes. */
enum { E2M1_LINE = 4 * PAIR };

INLINE void line_narrow_e2m1x2(void *to, const struct pair *x, enum pair_order order, int tame, int past_caches)
{
    vecu bytes[E2M1_LINE / PAIR];
    for (int i = 0; i < E2M1_LINE / PAIR; i++)
        bytes[i] = pair_e2m1_bytes(x[i], order, tame);
    write_line(to, bytes, past_caches);
}

/* Of lines of what is tame and was multiplied by E2M1_TIMES; NaN is found afterwards, in `least`, which begins as 0. */
#ifdef __AVX512VBMI__
enum { E2M1_TIMES = 4, E2M1_FINDS_NAN = 1 };
typedef uint8_t line_bytes __attribute__((vector_size(4 * LANES)));

/* The k-th of four vectors of a line's half: of the even or odd elements, or of the first or last ones. */
INLINE vec line_quarter(const struct pair *x, enum pair_order order, int half, int k)
{
    return order == EVEN_ODD ? x[k].v[half] : x[2 * half + k / 2].v[k % 2];
}

INLINE vecu packed_bytes(const __m512i *x)
{
    return (vecu)_mm512_packs_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
}

/* Of a half, the integers below, or the sums of those and of the integers above. NaN is the least one, or 0. */
INLINE vecu integers_of_half(const struct pair *x, enum pair_order order, int half, const int sums)
{
    __m512i n[4];
    for (int k = 0; k < 4; k++) {
        __m512 y = (__m512)line_quarter(x, order, half, k);
        n[k] = _mm512_cvt_roundps_epi32(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        if (sums)
            n[k] = (__m512i)((vecu)n[k] + (vecu)_mm512_cvt_roundps_epi32(y, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
    }
    return packed_bytes(n);
}

/* code: of both halves, in the low four bits, or in EVEN_ODD those of odd elements in the high ones. */
INLINE void store_e2m1_line(void *to, const vecu *code, enum pair_order order, int past_caches)
{
    const words in_order = {0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                            4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
    vecu line = order == EVEN_ODD ? packed_in_order(code[0] | code[1])
                                  : (vecu)_mm512_permutexvar_epi16((__m512i)in_order, (__m512i)joined_e2m1(code[0], code[1]));
    store_line(to, &line, past_caches);
}

/* Ties fall either way: the integer below it, one of -28 to 27, tells a value's code. */
INLINE void line_narrow_e2m1_loose(void *to, const struct pair *x, enum pair_order order, int past_caches, vecu *least)
{
    const line_bytes codes = {0,  1,  1,  2,  2,  3,  3,  4,  4,  4,  5,  5,  5,  5,  6,  6,  6,  6,  6,  6,  7,  7,
                              7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
                              14, 14, 14, 14, 14, 14, 13, 13, 13, 13, 12, 12, 12, 11, 11, 10, 10, 9,  9,  8};
    vecu code[2];
    for (int i = 0; i < 2; i++) {
        vecu below = integers_of_half(x, order, i, 0);
        *least = (vecu)_mm512_min_epi8((__m512i)*least, (__m512i)below);
        code[i] = (vecu)_mm512_permutexvar_epi8((__m512i)below, (__m512i)(codes << (order == EVEN_ODD ? 4 * i : 0)));
    }
    store_e2m1_line(to, code, order, past_caches);
}

/* Sums of 0 become those of small values with their sign, and NaN is noted. */
INLINE void sign_zeros(vecu *sum, const struct pair *x, enum pair_order order, vecu *least)
{
    typedef int8_t integers __attribute__((vector_size(4 * LANES)));
    for (int i = 0; i < 2; i++) {
        __m512i bits[4], is_nan[4];
        for (int k = 0; k < 4; k++) {
            vec y = line_quarter(x, order, i, k);
            bits[k] = (__m512i)y;
            is_nan[k] = (__m512i)vec_where_nan(y, (vecu){0} + 0x80000000u, (vecu){0});
        }
        sum[i] |= (vecu)(((integers)sum[i] == 0) & ((integers)packed_bytes(bits) < 0));
        *least = (vecu)_mm512_min_epi8((__m512i)*least, (__m512i)packed_bytes(is_nan));
    }
}

/* Ties to even: the sum of the integers below and above it, one of -55 to 55, tells a value's code, but for the sign of 0. */
INLINE void line_narrow_e2m1_tame(void *to, const struct pair *x, enum pair_order order, int past_caches, vecu *least)
{
    const line_bytes positive = {0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5,
                                 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7,
                                 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
    const line_bytes negative = {15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
                                 15, 15, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 13, 13, 13, 13, 13, 13, 13,
                                 12, 12, 12, 12, 12, 12, 12, 11, 11, 11, 10, 10, 10, 10, 10, 9,  9,  9,  8,  8};
    vecu code[2], sum[2] = {integers_of_half(x, order, 0, 1), integers_of_half(x, order, 1, 1)};
    __m512i lesser = _mm512_min_epu8((__m512i)sum[0], (__m512i)sum[1]);
    if (__builtin_expect(_mm512_test_epi8_mask(lesser, lesser) != (__mmask64)-1, 0))
        sign_zeros(sum, x, order, least);
    for (int i = 0; i < 2; i++) {
        const int shift = order == EVEN_ODD ? 4 * i : 0;
        code[i] = (vecu)_mm512_permutex2var_epi8((__m512i)(positive << shift), (__m512i)sum[i], (__m512i)(negative << shift));
    }
    store_e2m1_line(to, code, order, past_caches);
}

INLINE int e2m1_has_nan(vecu least)
{
    return _mm512_test_epi32_mask((__m512i)(least & ~(least << 1)), (__m512i)((vecu){0} + 0x80808080u)) != 0;
}
#else
enum { E2M1_TIMES = 1, E2M1_FINDS_NAN = 0 };
INLINE void line_narrow_e2m1_tame(void *to, const struct pair *x, enum pair_order order, int past_caches, vecu *least)
{
    line_narrow_e2m1x2(to, x, order, 1, past_caches);
    (void)least;
}
#define line_narrow_e2m1_loose line_narrow_e2m1_tame
INLINE int e2m1_has_nan(vecu least) { return (void)least, 0; }
#endif

/* The values of the low four bits of each lane. */
INLINE vec vec_e2m1_values(vecu codes)
{
#ifdef __AVX512F__
    const vec values = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return vec_permute(values, (veci)(codes & 15));
#else
    vec x = (vec)(((codes & 7) << 22) + (126u << 23)); /* from code 2 on; 0.5 and 0.75 instead of 0 and 0.5 */
    return (vec)((vecu)vec_min2(x, 2.0f * x - 1.0f) | (codes & 8) << 28);
#endif
}

/* Eight bytes as sixteen values. */
INLINE vec vec_load_e2m1(const uint8_t *from)
{
#ifdef __AVX512F__ /* one instruction, where GCC 12 goes byte by byte */
    __m128i b = {0};
    memcpy(&b, from, LANES / 2);
    pairs p = (pairs)_mm512_cvtepu8_epi64(b);
    return vec_e2m1_values((vecu)((p & 15) | p >> 4 << 32));
#else
    typedef uint8_t bytes __attribute__((vector_size(LANES / 2)));
    typedef uint16_t pairs_of_bytes __attribute__((vector_size(LANES)));
    bytes b;
    memcpy(&b, from, sizeof b);
    pairs_of_bytes p = __builtin_convertvector(b, pairs_of_bytes);
    p = (p | p << 4) & 0x0f0f;
    return vec_e2m1_values(vec_load_bytes(&p));
#endif
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
