/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen floats at a time: the compiler lowers `vec` to what the machine has (one AVX-512 register, two AVX2, four NEON).
 * Loads and stores take any alignment. */
#ifndef VEC_H
#define VEC_H

#include "registers.h"

INLINE vec vec_load_f32(const f32 *from)
{
    vec x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void vec_store_f32(f32 *to, vec x) { memcpy(to, &x, sizeof x); }

/* memcpy. The C library's copies a few KB at half the speed on some processors. */
INLINE void vec_copy(void *to, const void *from, int64_t bytes)
{
    int64_t at = 0;
    for (; at + (int64_t)sizeof(vec) <= bytes; at += (int64_t)sizeof(vec))
        vec_store_f32((f32 *)((char *)to + at), vec_load_f32((const f32 *)((const char *)from + at)));
    if (at < bytes)
        memcpy((char *)to + at, (const char *)from + at, (size_t)(bytes - at));
}

/* Sixteen-bit words, one in each lane. */
INLINE vecu vec_load_words(const void *from)
{
#ifdef __AVX512F__ /* one instruction, where GCC 12 makes four of it */
    return (vecu)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
#else
    vech h;
    memcpy(&h, from, sizeof h);
    return __builtin_convertvector(h, vecu);
#endif
}

INLINE vec vec_load_bf16(const bf16 *from) { return (vec)(vec_load_words(from) << 16); }

INLINE vec vec_load_f16(const f16 *from)
{
    vec x;
#if defined __AVX512F__
    x = (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined __F16C__
    __m256 low = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
    __m256 high = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)));
    memcpy(&x, &low, 32);
    memcpy((char *)&x + 32, &high, 32);
#else
    for (int i = 0; i < LANES; i++)
        x[i] = f16_to_float(from[i]);
#endif
    return x;
}

/* Lane by lane: a where x is NaN, b elsewhere. */
INLINE vecu vec_where_nan(vec x, vecu a, vecu b)
{
#ifdef __AVX512F__
    return (vecu)_mm512_mask_mov_epi32((__m512i)b, _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q), (__m512i)a);
#else
    vecu is_nan = (vecu)vec_is_nan(x, x);
    return (is_nan & a) | (~is_nan & b);
#endif
}

/* What is known of lanes that are rounded: nothing; that none is NaN, or rounds to more than the largest value (i8: or less than
 * the least); that none is NaN. As much as NUMBERS is of bf16 what has its NaN from bf16: their lower halves are 0. */
enum tame { WILD, TAME, NUMBERS };

/* The upper half of each lane is x as bf16; a NaN stays quiet. */
INLINE vecu vec_round_bf16(vec x, enum tame tame)
{
    vecu bits = (vecu)x;
#ifdef __AVX512F__ /* 2 in the table is what a NaN becomes: itself, quiet; what is no NaN has its place in `rounded` */
    __m512i rounded = (__m512i)(bits + 0x7fffu);
    __mmask16 odd = _mm512_test_epi32_mask((__m512i)bits, (__m512i)((vecu){0} + 0x10000u));
    rounded = _mm512_mask_add_epi32(rounded, odd, rounded, (__m512i)((vecu){0} + 1));
    return tame ? (vecu)rounded : (vecu)_mm512_fixupimm_ps((__m512)rounded, (__m512)x, (__m512i)((vecu){0} + 0x22), 0);
#else
    vecu rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return tame ? rounded : vec_where_nan(x, bits | 0x400000u, rounded);
#endif
}

#ifdef __AVX512DQ__
/* Whether no lane of either is infinite or NaN. */
INLINE int vec_are_finite(vec a, vec b)
{
    enum { NAN_OR_INFINITE = 0x99 };
    return !(_mm512_fpclass_ps_mask((__m512)a, NAN_OR_INFINITE) | _mm512_fpclass_ps_mask((__m512)b, NAN_OR_INFINITE));
}
#endif

/* As a float, for |x| below 2^111, beyond which it is infinite or NaN; what is below 2^-126 is rounded less, and -0 is 0. */
INLINE vec vec_near_bf16(vec x)
{
    vec rounded = x - x * 65536.0f; /* to the unit of bf16, as a multiple of which 65536 x is even where x is a tie */
    return rounded + x * 65536.0f;
}

/* As floats. near: by vec_near_bf16. */
INLINE vec vec_rounded_bf16(vec x, enum tame tame, int near)
{
    return near ? vec_near_bf16(x) : (vec)(vec_round_bf16(x, tame) & 0xffff0000u);
}

INLINE void vec_store_bf16(bf16 *to, vec x)
{
    vecu h = vec_round_bf16(x, WILD) >> 16;
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)h));
#else
    vech narrow = __builtin_convertvector(h, vech);
    memcpy(to, &narrow, sizeof narrow);
#endif
}

INLINE void vec_store_f16(f16 *to, vec x)
{
#if defined __AVX512F__
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined __F16C__
    __m256 low, high;
    memcpy(&low, &x, 32);
    memcpy(&high, (char *)&x + 32, 32);
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(to + 8), _mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int i = 0; i < LANES; i++)
        to[i] = f16_from_float(x[i]);
#endif
}

/* One of two, lane by lane: a where the mask is all ones, b where it is zero. */
INLINE vec vec_select(veci mask, vec a, vec b) { return (vec)((mask & (veci)a) | (~mask & (veci)b)); }
INLINE vecu vec_select_bits(veci mask, vecu a, vecu b) { return ((vecu)mask & a) | (~(vecu)mask & b); }

#ifdef __AVX512DQ__ /* the one of lesser, or larger, magnitude, with the sign of the first, or none */
enum { RANGE_LESSER = 2, RANGE_LARGER = 3, RANGE_LARGER_MAGNITUDE = 11 };
#endif

/* Bytes, one in each lane. */
INLINE vecu vec_load_bytes(const void *from)
{
#ifdef __AVX512F__
    return (vecu)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#else
    vecb b;
    memcpy(&b, from, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, vech), vecu); /* gcc goes byte by byte if it is one step */
#endif
}

/* The low byte of each lane. */
INLINE void vec_store_bytes(void *to, vecu x)
{
#ifdef __AVX512F__
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)x));
#else
    vecb b = __builtin_convertvector(__builtin_convertvector(x, vech), vecb);
    memcpy(to, &b, sizeof b);
#endif
}

INLINE vec vec_load_e5m2(const e5m2 *from)
{
    f16 same[LANES];
    vech h = __builtin_convertvector(vec_load_bytes(from) << 8, vech);
    memcpy(same, &h, sizeof h);
    return vec_load_f16(same);
}

/* By way of the f16 that is a 256th of it; what would be 1.875 is NaN. */
INLINE vec vec_load_e4m3(const e4m3 *from)
{
#ifdef __AVX2__
    vech h = (vech)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from)) << 7 & 0xbfff;
#else
    vecu codes = vec_load_bytes(from);
    vech h = __builtin_convertvector((codes & 0x80) << 8 | (codes & 0x7f) << 7, vech);
#endif
    f16 same[LANES];
    h |= (h + 0x80) & 0x4000;
    memcpy(same, &h, sizeof h);
    return vec_load_f16(same) * 256.0f;
}

/* The low byte of each lane is narrow_bits; the rest is not. The sum with a power of two whose unit is that of the code's binade
 * does the rounding, and leaves the mantissa, with a carry into the exponent, in its low bits. */
INLINE vecu vec_narrow_low(vec x, enum tame tame, int mantissa, int bias, float largest)
{
    vecu magnitude = (vecu)x & 0x7fffffffu, least = (vecu){0} + ((uint32_t)(128 - bias) << 23);
    if (tame != TAME)
        magnitude = vec_min_bits(magnitude, (vecu)vec_set(largest));
    vecu binade = vec_max_bits(magnitude & 0x7f800000u, least);
    vecu rounded = (vecu)((vec)magnitude + (vec)binade * (float)(1 << (23 - mantissa)));
    uint32_t offset = -((uint32_t)(128 - bias) << mantissa) & 0xff; /* below 0x80 in both formats */
    vecu code = rounded + (binade >> (23 - mantissa)) + (((vecu)x >> 24 & 0x80) | offset);
    return tame ? code : vec_where_nan(x, (vecu){0} + 0x7f, code);
}

INLINE void vec_store_e4m3(e4m3 *to, vec x) { vec_store_bytes(to, vec_narrow_low(x, WILD, E4M3_FORMAT)); }
INLINE void vec_store_e5m2(e5m2 *to, vec x) { vec_store_bytes(to, vec_narrow_low(x, WILD, E5M2_FORMAT)); }

INLINE vec vec_load_i8(const i8 *from)
{
    return __builtin_convertvector((veci)(vec_load_bytes(from) << 24) >> 24, vec);
}

/* The low byte of each lane is x as i8; the rest is not. */
INLINE vecu vec_i8_low(vec x, enum tame tame)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: its unit is one */
#ifdef __AVX512F__
    if (tame == TAME)
        return (vecu)_mm512_cvtps_epi32((__m512)x);
#endif
    vecu code = (vecu)(vec_min2(vec_max2(x, vec_set(-128.0f)), vec_set(127.0f)) + magic);
    return tame ? code : vec_where_nan(x, (vecu){0}, code);
}

INLINE void vec_store_i8(i8 *to, vec x) { vec_store_bytes(to, vec_i8_low(x, WILD)); }

/* The first n elements, at most LANES; the rest is not touched and reads as 0. */
#define VEC_PARTIAL(T)                                       \
    INLINE vec vec_load_n_##T(const T *from, int64_t n)      \
    {                                                        \
        if (n >= LANES)                                      \
            return vec_load_##T(from);                       \
        T part[LANES] = {0};                                 \
        memcpy(part, from, (size_t)n * sizeof *part);        \
        return vec_load_##T(part);                           \
    }                                                        \
    INLINE void vec_store_n_##T(T *to, vec x, int64_t n)     \
    {                                                        \
        if (n >= LANES) {                                    \
            vec_store_##T(to, x);                            \
            return;                                          \
        }                                                    \
        T part[LANES];                                       \
        vec_store_##T(part, x);                              \
        memcpy(to, part, (size_t)n * sizeof *part);          \
    }
VEC_PARTIAL(f16)
VEC_PARTIAL(bf16)
VEC_PARTIAL(f32)
VEC_PARTIAL(e4m3)
VEC_PARTIAL(e5m2)
VEC_PARTIAL(i8)

#define VEC_OF(name, p)                                                                                              \
    _Generic((p), f16 *: name##_f16, const f16 *: name##_f16, bf16 *: name##_bf16, const bf16 *: name##_bf16,        \
             f32 *: name##_f32, const f32 *: name##_f32, e4m3 *: name##_e4m3, const e4m3 *: name##_e4m3,             \
             e5m2 *: name##_e5m2, const e5m2 *: name##_e5m2, i8 *: name##_i8, const i8 *: name##_i8)
#define vec_load(from) VEC_OF(vec_load, from)(from)
#define vec_load_n(from, n) VEC_OF(vec_load_n, from)(from, n)
#define vec_store(to, x) VEC_OF(vec_store, to)(to, x)
#define vec_store_n(to, x, n) VEC_OF(vec_store_n, to)(to, x, n)

/* The halves of halves, which reductions combine: lane i with lane i + 8, then i + 4, then i + 2, then i + 1. */
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec4 __attribute__((vector_size(16)));
#define VEC_SPLIT(low, high, x)                                       \
    do {                                                              \
        memcpy(&(low), &(x), sizeof(low));                            \
        memcpy(&(high), (const char *)&(x) + sizeof(low), sizeof(high)); \
    } while (0)

INLINE float vec_sum(vec x)
{
    vec8 a, b;
    vec4 c, d;
    VEC_SPLIT(a, b, x);
    a += b;
    VEC_SPLIT(c, d, a);
    c += d;
    return (c[0] + c[2]) + (c[1] + c[3]);
}

/* The first n lanes; 0 in the others. */
INLINE vec vec_first(vec x, int64_t n)
{
    veci lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vec)((veci)x & (lane - (int32_t)n) >> 31);
}

/* The second one of two where either is NaN. */
INLINE float vec_max(vec x)
{
    x = vec_max2(x, VEC_PICK(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = vec_max2(x, VEC_PICK(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    x = vec_max2(x, VEC_PICK(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    x = vec_max2(x, VEC_PICK(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    return x[0];
}

/* Whether a lane is above `limit`; NaN is not. */
INLINE int vec_any_above(vec x, float limit)
{
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)x, (__m512)vec_set(limit), _CMP_GT_OQ) != 0;
#else
    return vec_max(x) > limit;
#endif
}

/* Lane i: x[order[i] % 16]. */
INLINE vec vec_permute(vec x, veci order)
{
#ifdef __clang__
    vec y;
    for (int i = 0; i < LANES; i++)
        y[i] = x[order[i] & 15];
    return y;
#else
    return __builtin_shuffle(x, order);
#endif
}

/* Lanes 1 0 3 2 5 4 ... */
INLINE vec vec_swap_neighbours(vec x) { return VEC_PICK(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }

/* The nearest integer, as a float and in *integer, for |x| < 2^22. */
INLINE vec vec_round(vec x, veci *integer)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: its unit is one */
    vec shifted = x + magic;
    *integer = (veci)shifted - (veci)vec_set(magic);
    return shifted - magic;
}

/* e^x within 1.5 units in the last place, for -104 <= x <= 89. */
INLINE vec vec_exp_bounded(vec x)
{
    veci n;
    vec rounded = vec_round(x * LOG2E, &n);
    vec r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f; /* ln 2 in two parts, the first exact in 9 bits */
    vec y = 1.0f + (r + r * r * (0.5f + r * (0.16666533f + r * (0.04166724f + r * (0.008367542f + r * 0.0013863727f)))));
#ifdef __AVX512F__
    return (vec)_mm512_scalef_ps((__m512)y, (__m512)rounded);
#else
    /* 2^n in two factors: one alone may be too large, or too small, for a normal float. */
    veci half = n >> 1;
    return y * (vec)((half + 127) << 23) * (vec)((n - half + 127) << 23);
#endif
}

/* The same for any x; subnormal, 0 and infinity where they are due; NaN stays NaN. */
INLINE vec vec_exp(vec x) { return vec_exp_bounded(vec_max2(vec_set(-104.0f), vec_min2(vec_set(89.0f), x))); }

/* 2^x within one unit in the last place (1.2e-7 of itself) for x up to 128; 0 below 2^-126, infinity from 2^127.5 on; NaN stays
 * NaN. */
INLINE vec vec_exp2_bounded(vec x)
{
    const float magic = 12583039.0f; /* 1.5 * 2^23 + 127: its unit is one, and its lowest bits are an exponent */
    x = vec_max2(vec_set(-127.0f), x);
    vec shifted = x + magic, r = x - (shifted - magic);
    vec high = 0.0555035695f + r * (0.00961808302f + r * (0.00133908633f + r * 0.000154531634f));
    vec y = 1.0f + r * (0.693147182f + r * (0.240226507f + r * high));
    return y * (vec)((vecu)shifted << 23); /* exponents 0 and 255 stand for 0 and infinity */
}

/* The same for any x. */
INLINE vec vec_exp2(vec x) { return vec_exp2_bounded(vec_min2(vec_set(128.0f), x)); }

/* sin and cos of 2 pi x for |x| <= 0.5, within 2^-23. */
INLINE void vec_sincos_turns(vec x, vec *sine, vec *cosine)
{
    veci quadrant;
    vec a = (x - vec_round(x * 4.0f, &quadrant) * 0.25f) * 6.2831853f; /* in [-pi / 4, pi / 4]; the difference is exact */
    vec z = a * a;
    vec s = a + a * z * (-0.16666655f + z * (0.008332178f + z * -0.00019517234f));
    vec c = 1.0f - 0.5f * z + z * z * (0.041666646f + z * (-0.0013887367f + z * 2.443838e-05f));
    veci odd = -(quadrant & 1);
    *sine = (vec)((veci)vec_select(odd, c, s) ^ (quadrant & 2) << 30);
    *cosine = (vec)((veci)vec_select(odd, s, c) ^ ((quadrant + 1) & 2) << 30);
}

#endif
