/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions. At -infinity they are NaN: infinity times 0. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include "vec.h"

/* |x|, at most `limit`, also for NaN: x itself is NaN in what it is a factor of. */
INLINE vec magnitude_to(vec x, float limit)
{
    return (vec)vec_min_bits((vecu)x & 0x7fffffffu, (vecu)vec_set(limit));
}

#ifdef __AVX512DQ__
/* 2^-down e^(-times x), by n, the 32nd nearest to -times x / ln 2, and r, what is left. times: 2^-60 to 2^60. It may be NaN where
 * |times x| exceeds 90000. */
INLINE vec exp_down(vec x, float times, const int down)
{
    const vec power[2] = { /* 2^(i / 32) */
        {1.0f, 1.02189715f, 1.04427378f, 1.0671404f, 1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
         1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f},
        {1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
         1.68179283f, 1.7186193f, 1.75625216f, 1.79470908f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f}};
    const float magic = 393216.0f; /* 1.5 * 2^18: its unit is 1 / 32 */
    const float least = bits_float((uint32_t)(127 - down) << 23);
    vec shifted = x * (-LOG2E * times) + magic, n = shifted - magic, r = x + n * (0.693147182f / times);
    __m512 c = _mm512_permutex2var_ps((__m512)(power[0] * least), (__m512i)shifted, (__m512)(power[1] * least));
    vec rest = 1.0f + r * (-1.0000147f * times + r * (0.5f * times * times)); /* e^(-times r) */
    return (vec)_mm512_scalef_ps(c, (__m512)n) * rest; /* by 2 to the integer below n */
}

/* 2^-down (1 + e^(-times x)) */
INLINE vec one_and_exp(vec x, float times, const int down)
{
    return bits_float((uint32_t)(127 - down) << 23) + exp_down(x, times, down);
}

/* p / q e^-x, for x from 0 to 104 */
INLINE vec quotient_times_exp(vec p, vec q, vec x) { return exp_down(x, 1, 0) * p / q; }

/* 1 / (1 + e^-x). Below -104 it is 0. */
INLINE vec sigmoid(vec x)
{
    enum { DOWN = 34 };
    vec bounded = (vec)_mm512_range_ps((__m512)x, (__m512)vec_set(109.0f), RANGE_LESSER);
    return bits_float((127u - DOWN) << 23) / one_and_exp(bounded, 1, DOWN);
}
#else
/* e^x = numerator / denominator, for x from -111 to 21. */
struct quotient {
    vec numerator, denominator;
};

/* s / e^-r, where s is a power of two. */
INLINE struct quotient exp_quotient(vec x)
{
    veci n;
    vec rounded = vec_round(x * LOG2E, &n);
    vec r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f; /* ln 2 in two parts, the first exact in 9 bits */
    vec y = 1.0f + r * (-1.0f + r * (0.49999225f + r * (-0.16667117f + r * (0.041890904f + r * -0.00831244f))));
    veci half = n >> 1; /* one factor alone may be too small for a normal float */
    return (struct quotient){(vec)((half + 127) << 23) * (vec)((n - half + 127) << 23), y};
}

INLINE vec quotient_times_exp(vec p, vec q, vec x)
{
    struct quotient e = exp_quotient(-x);
    return e.numerator * p / (e.denominator * q);
}

INLINE vec sigmoid(vec x)
{
    struct quotient e = exp_quotient(vec_max2(vec_set(-111.0f), vec_min2(vec_set(21.0f), x)));
    return e.numerator / (e.numerator + e.denominator);
}
#endif

/* x / (1 + e^-y), where x is NaN if y is. */
INLINE vec times_sigmoid(vec x, vec y) { return x * sigmoid(y); }

INLINE vec silu(vec x) { return times_sigmoid(x, x); }

/* x / (1 + e^(-times x)); 0 where that is below 2^-125 x. times: 2^-60 to 2^60. */
INLINE vec silu_near(vec x, float times)
{
#ifdef __AVX512DQ__
    return x / one_and_exp(x, times, 0);
#else
    return x * sigmoid(x * times);
#endif
}

/* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
INLINE vec gelu_tanh(vec x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

/* x / 2 * (1 + erf(x / sqrt(2))). The quotient is erfc(w / sqrt(2)) / 2 * e^(w^2 / 2) within 2^-25 of itself. */
INLINE vec gelu(vec x)
{
    vec w = magnitude_to(x, 14.4f); /* the tail is 0 beyond it, as at it */
    vec p = 0.5f + w * (0.43829417f + w * (0.18323453f + w * (0.04063302f + w * 0.0041162763f)));
    vec q = 1.0f + w * (1.6744733f + w * (1.2025007f + w * (0.46946904f + w * (0.10185832f + w * 0.010317855f))));
    vec tail = quotient_times_exp(p, q, 0.5f * w * w);
    return x * vec_select((veci)x >> 31, tail, 1.0f - tail);
}

#endif
