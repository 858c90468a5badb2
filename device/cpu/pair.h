/* SPDX-License-Identifier: Apache-2.0 */
/* Thirty-two elements at a time, in two vecs. In the order EVEN_ODD, the even ones are in one and the odd ones in the other, a
 * shift and a mask away from memory in bf16; in HALVES, the first and the last sixteen. What meets in one expression has one
 * order, the one that suits the input: PAIR_ORDER(T). */
#ifndef PAIR_H
#define PAIR_H

#include <stdbool.h>

#include "vec.h"

enum { PAIR = 2 * LANES };
enum pair_order { HALVES, EVEN_ODD };
#define PAIR_ORDER(T) _Generic((T *)0, bf16 * : EVEN_ODD, default : HALVES)

struct pair {
    vec v[2];
};

INLINE struct pair pair_halves(vec even, vec odd)
{
    return (struct pair){{VEC_PICK(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                          VEC_PICK(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)}};
}

/* Even elements in the place of odd ones, and these in theirs. */
INLINE struct pair pair_swap_neighbours(struct pair x, enum pair_order order)
{
    if (order == EVEN_ODD)
        return (struct pair){{x.v[1], x.v[0]}};
    return (struct pair){{vec_swap_neighbours(x.v[0]), vec_swap_neighbours(x.v[1])}};
}

#define PAIR_LOAD(T)                                                                                            \
    INLINE struct pair pair_load_##T(const T *from, enum pair_order order)                                      \
    {                                                                                                           \
        vec a = vec_load(from), b = vec_load(from + LANES);                                                     \
        if (order == HALVES)                                                                                    \
            return (struct pair){{a, b}};                                                                       \
        return (struct pair){{VEC_PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),        \
                              VEC_PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)}};      \
    }
PAIR_LOAD(f16)
PAIR_LOAD(f32)

#ifdef __AVX512BW__
/* As vec_load_e4m3. */
INLINE struct pair pair_load_e4m3(const e4m3 *from, enum pair_order order)
{
    words h = (words)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from)) << 7 & 0xbfff;
    h |= (h + 0x80) & 0x4000;
    f16 same[PAIR];
    memcpy(same, &h, sizeof h);
    struct pair x = pair_load_f16(same, order);
    return (struct pair){{x.v[0] * 256.0f, x.v[1] * 256.0f}};
}
#else
PAIR_LOAD(e4m3)
#endif

INLINE struct pair pair_load_bf16(const bf16 *from, enum pair_order order)
{
    vecu words;
    if (order == HALVES)
        return (struct pair){{vec_load(from), vec_load(from + LANES)}};
    memcpy(&words, from, sizeof words);
    return (struct pair){{(vec)(words << 16), (vec)(words & 0xffff0000u)}};
}

/* Of the lanes of a, then of b. */
#if defined __AVX512BW__ && !defined __clang__
#define VEC_WORDS(name, first, shift)                                                                           \
    INLINE vecu name(vecu a, vecu b)                                                                            \
    {                                                                                                           \
        const words in_order = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,                 \
                                32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};                \
        return (vecu)__builtin_shuffle((words)a, (words)b, in_order + first);                                   \
    }
#else
#define VEC_WORDS(name, first, shift)                                                                           \
    INLINE vecu name(vecu a, vecu b)                                                                            \
    {                                                                                                           \
        vech part[2] = {__builtin_convertvector(a >> shift, vech), __builtin_convertvector(b >> shift, vech)};  \
        vecu x;                                                                                                 \
        memcpy(&x, part, sizeof x);                                                                             \
        return x;                                                                                               \
    }
#endif
VEC_WORDS(vec_lower_words, 0, 0)
VEC_WORDS(vec_upper_words, 1, 16)

/* The low bytes of the lanes. */
INLINE void pair_store_bytes(void *to, vecu a, vecu b, enum pair_order order)
{
#ifdef __AVX512BW__
    vecu words = order == HALVES ? vec_lower_words(a, b) : (a & 0xffff) | b << 16;
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8((__m512i)words));
#else
    if (order == HALVES) {
        vec_store_bytes(to, a);
        vec_store_bytes((char *)to + LANES, b);
    } else {
        vech bytes = __builtin_convertvector((a & 0xff) | (b & 0xff) << 8, vech);
        memcpy(to, &bytes, sizeof bytes);
    }
#endif
}

#define PAIR_NARROW(T)                                                                                          \
    INLINE void pair_narrow_##T(T *to, struct pair x, enum pair_order order, enum tame tame)                    \
    {                                                                                                           \
        (void)tame;                                                                                             \
        if (order == EVEN_ODD)                                                                                  \
            x = pair_halves(x.v[0], x.v[1]);                                                                    \
        vec_store(to, x.v[0]);                                                                                  \
        vec_store(to + LANES, x.v[1]);                                                                          \
    }
PAIR_NARROW(f16)
PAIR_NARROW(f32)

INLINE void pair_narrow_bf16(bf16 *to, struct pair x, enum pair_order order, enum tame tame)
{
    vecu a = vec_round_bf16(x.v[0], tame), b = vec_round_bf16(x.v[1], tame), words = a >> 16 | (b & 0xffff0000u);
    if (order == HALVES)
        words = vec_upper_words(a, b);
    memcpy(to, &words, sizeof words);
}

/* As vec_narrow_low. NaN is looked for in all lanes at once. */
#if defined __AVX512DQ__ && defined __AVX512BW__
INLINE void pair_narrow_low(void *to, struct pair x, enum pair_order order, enum tame tame, int mantissa, int bias, float largest)
{
    const vec least = vec_set(bits_float((uint32_t)(128 - bias) << 23));
    const float unit = (float)(1 << (23 - mantissa)) + (float)((bias - 128) & 0x7f >> mantissa); /* with what codes are off by */
    bool has_nan = tame == WILD && _mm512_cmp_ps_mask((__m512)x.v[0], (__m512)x.v[1], _CMP_UNORD_Q);
    vec rounded[2], binade[2];
    for (int i = 0; i < 2; i++) {
        vec y = tame == TAME ? x.v[i] : (vec)_mm512_range_ps((__m512)x.v[i], (__m512)vec_set(largest), RANGE_LESSER);
        binade[i] = (vec)_mm512_range_ps((__m512)(vec)((vecu)y & 0xff800000u), (__m512)least, RANGE_LARGER);
        rounded[i] = y + binade[i] * unit;
    }
    words low, high;
    if (order == HALVES) {
        low = (words)vec_lower_words((vecu)rounded[0], (vecu)rounded[1]);
        high = (words)vec_upper_words((vecu)binade[0], (vecu)binade[1]);
    } else {
        low = (words)(((vecu)rounded[0] & 0xffff) | (vecu)rounded[1] << 16);
        high = (words)((vecu)binade[0] >> 16 | (vecu)binade[1]);
    }
    vecu codes = ((vecu)(low + (high >> (7 - mantissa))) & 0x7f7f7f7fu) | ((vecu)(high >> 8) & 0x80808080u);
    if (__builtin_expect(has_nan, 0)) {
        vecu all = ~(vecu){0}, a = vec_where_nan(x.v[0], all, ~all), b = vec_where_nan(x.v[1], all, ~all);
        vecu is_nan = order == HALVES ? vec_lower_words(a, b) : (a & 0xffff) | b << 16;
        codes = (codes & ~is_nan) | (is_nan & 0x7f007fu);
    }
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8((__m512i)codes));
}
#else
INLINE void pair_narrow_low(void *to, struct pair x, enum pair_order order, enum tame tame, int mantissa, int bias, float largest)
{
    pair_store_bytes(to, vec_narrow_low(x.v[0], tame, mantissa, bias, largest),
                     vec_narrow_low(x.v[1], tame, mantissa, bias, largest), order);
}
#endif

#define PAIR_NARROW_BYTES(T, ...)                                                                               \
    INLINE void pair_narrow_##T(T *to, struct pair x, enum pair_order order, enum tame tame)                    \
    {                                                                                                           \
        pair_narrow_low(to, x, order, tame, __VA_ARGS__);                                                       \
    }
PAIR_NARROW_BYTES(e4m3, E4M3_FORMAT)
PAIR_NARROW_BYTES(e5m2, E5M2_FORMAT)

INLINE void pair_narrow_i8(i8 *to, struct pair x, enum pair_order order, enum tame tame)
{
    pair_store_bytes(to, vec_i8_low(x.v[0], tame), vec_i8_low(x.v[1], tame), order);
}

/* How many of the first n elements are in v[i]; may be negative, or more than LANES. */
INLINE int64_t pair_count(int64_t n, int i, enum pair_order order) { return order == HALVES ? n - i * LANES : (n + 1 - i) / 2; }

/* The first n elements, at most PAIR; the rest is not touched and reads as 0. */
#define PAIR_LOAD_PARTIAL(T)                                                                    \
    INLINE struct pair pair_load_n_##T(const T *from, int64_t n, enum pair_order order)         \
    {                                                                                           \
        if (n >= PAIR)                                                                          \
            return pair_load_##T(from, order);                                                  \
        T part[PAIR] = {0};                                                                     \
        memcpy(part, from, (size_t)n / ELEMENTS(T) * sizeof *part);                             \
        return pair_load_##T(part, order);                                                      \
    }
PAIR_LOAD_PARTIAL(f16)
PAIR_LOAD_PARTIAL(bf16)
PAIR_LOAD_PARTIAL(f32)
PAIR_LOAD_PARTIAL(e4m3)

#define PAIR_STORE_PARTIAL(T)                                                                   \
    INLINE void pair_store_n_##T(T *to, struct pair x, int64_t n, enum pair_order order)        \
    {                                                                                           \
        if (n >= PAIR) {                                                                        \
            pair_narrow_##T(to, x, order, WILD);                                                \
            return;                                                                             \
        }                                                                                       \
        T part[PAIR];                                                                           \
        pair_narrow_##T(part, x, order, WILD);                                                  \
        memcpy(to, part, (size_t)n * sizeof *part);                                             \
    }
PAIR_STORE_PARTIAL(f16)
PAIR_STORE_PARTIAL(bf16)
PAIR_STORE_PARTIAL(f32)
PAIR_STORE_PARTIAL(e4m3)
PAIR_STORE_PARTIAL(e5m2)
PAIR_STORE_PARTIAL(i8)

#define PAIR_FLOATS(name, p)                                                                                             \
    _Generic((p), f16 *: name##_f16, const f16 *: name##_f16, bf16 *: name##_bf16, const bf16 *: name##_bf16,            \
             f32 *: name##_f32, const f32 *: name##_f32)
#define pair_load(from, order) PAIR_FLOATS(pair_load, from)(from, order)
#define pair_load_n(from, n, order) PAIR_FLOATS(pair_load_n, from)(from, n, order)
#define pair_narrow(to, x, order, tame) VEC_OF(pair_narrow, to)(to, x, order, tame)
#define pair_store(to, x, order) pair_narrow(to, x, order, WILD)
#define pair_store_n(to, x, n, order) VEC_OF(pair_store_n, to)(to, x, n, order)

#endif
