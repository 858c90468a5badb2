/* SPDX-License-Identifier: Apache-2.0 */
/* Dot products of f16 and bf16 with float32 sums. A row is taken in units of four bytes: pairs of bf16 where
 * the machine multiplies those (VDPBF16PS, which treats subnormal bf16 and subnormal sums as zero), else
 * single elements widened to float. Sixteen units travel in a `vec`, whatever they hold; DOT_UNIT_<T>
 * elements make a unit, DOT_STEP_<T> a vec. */
#ifndef DOT_H
#define DOT_H

#include "vec.h"
#include "x86_bf16.h"

/* The last n lanes; the others are zero. */
INLINE vec vec_keep_last(vec x, int64_t n)
{
    const veci lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vec)((veci)x & (LANES - 1 - lane - (int32_t)n) >> 31);
}

#ifdef __AVX512BF16__
enum { DOT_UNIT_bf16 = 2 };

INLINE vec dot_load_bf16(const bf16 *from)
{
    vec x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void dot_add_bf16(lane_sums *sum, vec a, vec b)
{
    *sum = (vec)_mm512_dpbf16_ps((__m512)*sum, (__m512bh)a, (__m512bh)b);
}

INLINE vec dot_pack_bf16(const bf16 *a, const bf16 *b)
{
    vech low, high;
    memcpy(&low, a, sizeof low);
    memcpy(&high, b, sizeof high);
    return (vec)(__builtin_convertvector(low, vecu) | __builtin_convertvector(high, vecu) << 16);
}

INLINE void dot_store_bf16(uint32_t *to, vec x)
{
    __m256bh h = _mm512_cvtneps_pbh((__m512)x);
    memcpy(to, &h, sizeof h);
}
#else
enum { DOT_UNIT_bf16 = 1 };
INLINE vec dot_load_bf16(const bf16 *from) { return vec_load_bf16(from); }
INLINE void dot_add_bf16(lane_sums *sum, vec a, vec b) { lane_sums_add(sum, a, b); }
INLINE vec dot_pack_bf16(const bf16 *a, const bf16 *b) { return (void)b, vec_load_bf16(a); }
INLINE void dot_store_bf16(uint32_t *to, vec x) { memcpy(to, &x, sizeof x); }
#endif

enum { DOT_UNIT_f16 = 1 };
INLINE vec dot_load_f16(const f16 *from) { return vec_load_f16(from); }
INLINE void dot_add_f16(lane_sums *sum, vec a, vec b) { lane_sums_add(sum, a, b); }
INLINE vec dot_pack_f16(const f16 *a, const f16 *b) { return (void)b, vec_load_f16(a); }
INLINE void dot_store_f16(uint32_t *to, vec x) { memcpy(to, &x, sizeof x); }

enum { DOT_STEP_f16 = LANES * DOT_UNIT_f16, DOT_STEP_bf16 = LANES * DOT_UNIT_bf16 };

/* The units of the first n elements, at most DOT_STEP; the rest is zero. */
#define DOT_PARTIAL(T)                                    \
    INLINE vec dot_load_n_##T(const T *from, int64_t n)   \
    {                                                     \
        if (n >= DOT_STEP_##T)                            \
            return dot_load_##T(from);                    \
        T part[DOT_STEP_##T] = {0};                       \
        memcpy(part, from, (size_t)n * sizeof *part);     \
        return dot_load_##T(part);                        \
    }
DOT_PARTIAL(f16)
DOT_PARTIAL(bf16)

/* The last n elements before `end`, in the last places; the other places are zero. DOT_STEP elements can be read
 * before `end`. */
#if defined __AVX512BF16__
INLINE vec dot_load_last_bf16(const bf16 *end, int64_t n)
{
    words x, place;
    memcpy(&x, end - DOT_STEP_bf16, sizeof x);
    for (int i = 0; i < DOT_STEP_bf16; i++)
        place[i] = (uint16_t)i;
    return (vec)(x & (words)(place >= (uint16_t)(DOT_STEP_bf16 - n)));
}
#else
INLINE vec dot_load_last_bf16(const bf16 *end, int64_t n) { return vec_keep_last(vec_load_bf16(end - LANES), n); }
#endif
INLINE vec dot_load_last_f16(const f16 *end, int64_t n) { return vec_keep_last(vec_load_f16(end - LANES), n); }

/* The same names with the type as an argument, which may itself be a constant. */
#define DOT_CAT(name, T) name##_##T
#define DOT_UNIT(T) DOT_CAT(DOT_UNIT, T)
#define DOT_STEP(T) DOT_CAT(DOT_STEP, T)
#define dot_load(T, from) DOT_CAT(dot_load, T)(from)
#define dot_load_n(T, from, n) DOT_CAT(dot_load_n, T)(from, n)
#define dot_load_last(T, end, n) DOT_CAT(dot_load_last, T)(end, n)
#define dot_add(T, sum, a, b) DOT_CAT(dot_add, T)(sum, a, b)
/* Sixteen elements of a as units, or of a and b as pairs where units are pairs. */
#define dot_pack(T, a, b) DOT_CAT(dot_pack, T)(a, b)
/* Sixteen floats as units, rounded to bf16 where those are pairs; there, subnormal numbers become zero. */
#define dot_store(T, to, x) DOT_CAT(dot_store, T)(to, x)

/* One unit in all lanes. */
INLINE vec dot_broadcast(const void *unit)
{
    uint32_t bits;
    memcpy(&bits, unit, sizeof bits);
    return (vec)vec_set_bits(bits);
}

/* Interleavings of two vecs: by elements and by pairs inside each quarter, low or high half; even and odd
 * quarters. */
#define VEC_SHUFFLE(name, ...) \
    INLINE vec vec_##name(vec a, vec b) { return VEC_PICK(a, b, __VA_ARGS__); }
VEC_SHUFFLE(low_elements, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
VEC_SHUFFLE(high_elements, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
VEC_SHUFFLE(low_pairs, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
VEC_SHUFFLE(high_pairs, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
VEC_SHUFFLE(even_quarters, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
VEC_SHUFFLE(odd_quarters, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)

/* Lane i of the result is the sum of the lanes of x[i]. */
INLINE vec vec_sums(const vec x[LANES])
{
    vec two[8], four[4];
    for (int i = 0; i < 8; i++)
        two[i] = vec_low_elements(x[2 * i], x[2 * i + 1]) + vec_high_elements(x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 4; i++)
        four[i] = vec_low_pairs(two[2 * i], two[2 * i + 1]) + vec_high_pairs(two[2 * i], two[2 * i + 1]);
    vec low = vec_even_quarters(four[0], four[1]) + vec_odd_quarters(four[0], four[1]);
    vec high = vec_even_quarters(four[2], four[3]) + vec_odd_quarters(four[2], four[3]);
    return vec_even_quarters(low, high) + vec_odd_quarters(low, high);
}

/* x[i][j] becomes x[j][i]; moves bits, whatever they are. */
INLINE void vec_transpose(vec x[LANES])
{
    vec y[LANES];
    for (int i = 0; i < LANES; i += 4) {
        vec a = vec_low_elements(x[i], x[i + 1]), b = vec_high_elements(x[i], x[i + 1]);
        vec c = vec_low_elements(x[i + 2], x[i + 3]), d = vec_high_elements(x[i + 2], x[i + 3]);
        y[i] = vec_low_pairs(a, c);
        y[i + 1] = vec_high_pairs(a, c);
        y[i + 2] = vec_low_pairs(b, d);
        y[i + 3] = vec_high_pairs(b, d);
    }
    for (int i = 0; i < 4; i++) {
        vec even_low = vec_even_quarters(y[i], y[i + 4]), even_high = vec_even_quarters(y[i + 8], y[i + 12]);
        vec odd_low = vec_odd_quarters(y[i], y[i + 4]), odd_high = vec_odd_quarters(y[i + 8], y[i + 12]);
        x[i] = vec_even_quarters(even_low, even_high);
        x[i + 4] = vec_even_quarters(odd_low, odd_high);
        x[i + 8] = vec_odd_quarters(even_low, even_high);
        x[i + 12] = vec_odd_quarters(odd_low, odd_high);
    }
}

#endif
