/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes, and the registers that they are in: one with AVX-512, two with AVX2, else four. Of what is wider than one, gcc
 * takes comparisons and shuffles apart into scalars, and keeps in memory what a loop takes the address of or passes on to its
 * next round, where it is set lane by lane. So these are made here, register by register. */
#ifndef REGISTERS_H
#define REGISTERS_H

#include "types.h"

enum { LANES = 16 };
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t veci __attribute__((vector_size(4 * LANES)));
typedef uint32_t vecu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vech __attribute__((vector_size(2 * LANES)));
typedef uint8_t vecb __attribute__((vector_size(LANES)));
typedef uint16_t words __attribute__((vector_size(4 * LANES))); /* two in each lane */

#ifndef __AVX512F__
#ifdef __AVX2__
enum { REGISTER_LANES = 8 };
#define VEC_EACH_PART(part, ...) part(0, __VA_ARGS__), part(1, __VA_ARGS__)
#else
enum { REGISTER_LANES = 4 };
#define VEC_EACH_PART(part, ...) part(0, __VA_ARGS__), part(1, __VA_ARGS__), part(2, __VA_ARGS__), part(3, __VA_ARGS__)
#endif
typedef float vec_register __attribute__((vector_size(4 * REGISTER_LANES)));
typedef int32_t veci_register __attribute__((vector_size(4 * REGISTER_LANES)));
typedef uint32_t vecu_register __attribute__((vector_size(4 * REGISTER_LANES)));

INLINE vec_register vec_part(vec x, int i)
{
    vec_register part;
    memcpy(&part, (const char *)&x + i * (int)sizeof part, sizeof part);
    return part;
}

#ifdef __AVX2__
INLINE vec vec_joined(vec_register a, vec_register b)
{
    vec x;
    memcpy(&x, &a, sizeof a);
    memcpy((char *)&x + sizeof a, &b, sizeof b);
    return x;
}
#else
INLINE vec vec_joined(vec_register a, vec_register b, vec_register c, vec_register d)
{
    vec x;
    memcpy(&x, &a, sizeof a);
    memcpy((char *)&x + sizeof a, &b, sizeof b);
    memcpy((char *)&x + 2 * sizeof a, &c, sizeof c);
    memcpy((char *)&x + 3 * sizeof a, &d, sizeof d);
    return x;
}
#endif

/* name(a, b) of wholes, by `result` of their parts x and y: the larger and the lesser one, b where either is NaN; of bits, which
 * are in the order of the floats if those are not negative; all ones where it is so, 0 elsewhere. */
#define VEC_BY_REGISTERS(name, whole, part, result)                                             \
    INLINE vec_register name##_part(int i, vec a, vec b)                                        \
    {                                                                                           \
        part x = (part)vec_part(a, i), y = (part)vec_part(b, i);                                \
        return (vec_register)(result);                                                          \
    }                                                                                           \
    INLINE whole name(whole a, whole b) { return (whole)vec_joined(VEC_EACH_PART(name##_part, (vec)a, (vec)b)); }
#ifdef __AVX2__
VEC_BY_REGISTERS(vec_max2, vec, __m256, _mm256_max_ps(x, y))
VEC_BY_REGISTERS(vec_min2, vec, __m256, _mm256_min_ps(x, y))
VEC_BY_REGISTERS(vec_max_bits, vecu, __m256i, _mm256_max_epu32(x, y))
VEC_BY_REGISTERS(vec_min_bits, vecu, __m256i, _mm256_min_epu32(x, y))
#else
#define VEC_CHOSEN(mask, x, y) (((veci_register)(mask) & (veci_register)(x)) | (~(veci_register)(mask) & (veci_register)(y)))
VEC_BY_REGISTERS(vec_max2, vec, vec_register, VEC_CHOSEN(x > y, x, y))
VEC_BY_REGISTERS(vec_min2, vec, vec_register, VEC_CHOSEN(x < y, x, y))
VEC_BY_REGISTERS(vec_max_bits, vecu, vecu_register, VEC_CHOSEN(x > y, x, y))
VEC_BY_REGISTERS(vec_min_bits, vecu, vecu_register, VEC_CHOSEN(x < y, x, y))
#endif
VEC_BY_REGISTERS(vec_is_equal, vecu, vecu_register, x == y)
VEC_BY_REGISTERS(vec_is_below, vecu, vecu_register, x < y)
VEC_BY_REGISTERS(vec_is_nan, vec, vec_register, x != y)

#define VEC_SAME(i, x) (vec_register)(x)
INLINE vec vec_set(float x) { return vec_joined(VEC_EACH_PART(VEC_SAME, x - (vec_register){0})); }
INLINE vecu vec_set_bits(uint32_t x) { return (vecu)vec_joined(VEC_EACH_PART(VEC_SAME, x - (vecu_register){0})); }
#else
INLINE vec vec_set(float x) { return x - (vec){0}; }
INLINE vecu vec_set_bits(uint32_t x) { return x - (vecu){0}; }
INLINE vec vec_max2(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec vec_min2(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vecu vec_max_bits(vecu a, vecu b) { return (vecu)_mm512_max_epu32((__m512i)a, (__m512i)b); }
INLINE vecu vec_min_bits(vecu a, vecu b) { return (vecu)_mm512_min_epu32((__m512i)a, (__m512i)b); }
INLINE vecu vec_is_equal(vecu a, vecu b) { return (vecu)(a == b); }
INLINE vecu vec_is_below(vecu a, vecu b) { return (vecu)(a < b); }
#endif

/* Lanes of a (0 to 15) and b (16 to 31), eight from at most two halves of theirs, in any order. */
#if defined __clang__
#define VEC_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#elif defined __AVX2__ && !defined __AVX512F__
#define VEC_PICK_OTHER(i, j, otherwise) ((j) / 8 != (i) / 8 ? (j) / 8 : (otherwise))
#define VEC_PICK_LANE(i, j) ((j) % 8 + ((j) / 8 != (i) / 8) * 8)
#define VEC_PICK_8(a, b, i, j, k, l, m, n, o, p)                                                                            \
    (vec_register)__builtin_shuffle(                                                                                        \
        vec_half(a, b, (i) / 8),                                                                                            \
        vec_half(a, b, VEC_PICK_OTHER(i, j, VEC_PICK_OTHER(i, k, VEC_PICK_OTHER(i, l, VEC_PICK_OTHER(i, m,                  \
                           VEC_PICK_OTHER(i, n, VEC_PICK_OTHER(i, o, (p) / 8))))))),                                        \
        (veci_register){(i) % 8, VEC_PICK_LANE(i, j), VEC_PICK_LANE(i, k), VEC_PICK_LANE(i, l), VEC_PICK_LANE(i, m),        \
                        VEC_PICK_LANE(i, n), VEC_PICK_LANE(i, o), VEC_PICK_LANE(i, p)})
#define VEC_PICK(a, b, i, j, k, l, m, n, o, p, ...) \
    vec_joined(VEC_PICK_8(a, b, i, j, k, l, m, n, o, p), VEC_PICK_8(a, b, __VA_ARGS__))
INLINE vec_register vec_half(vec a, vec b, int i) { return i < 2 ? vec_part(a, i) : vec_part(b, i - 2); }
#else
#define VEC_PICK(a, b, ...) __builtin_shuffle(a, b, (veci){__VA_ARGS__})
#endif

/* A sum over a loop. */
#if defined __AVX512F__ || defined __clang__
typedef vec lane_sums;
INLINE void lane_sums_begin(lane_sums *sum, vec x) { *sum = x; }
INLINE vec lane_sums_end(const lane_sums *sum) { return *sum; }
INLINE void lane_sums_add(lane_sums *sum, vec a, vec b) { *sum += a * b; }
#else
typedef struct {
    vec_register part[LANES / REGISTER_LANES];
} lane_sums;
#define LANE_SUMS_PART(i, sum) (sum)->part[i]
INLINE void lane_sums_begin(lane_sums *sum, vec x)
{
    for (int i = 0; i < LANES / REGISTER_LANES; i++)
        sum->part[i] = vec_part(x, i);
}
INLINE vec lane_sums_end(const lane_sums *sum) { return vec_joined(VEC_EACH_PART(LANE_SUMS_PART, sum)); }
INLINE void lane_sums_add(lane_sums *sum, vec a, vec b)
{
    for (int i = 0; i < LANES / REGISTER_LANES; i++)
        sum->part[i] += vec_part(a, i) * vec_part(b, i);
}
#endif

#endif
