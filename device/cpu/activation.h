/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions. NaN at -infinity. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include "vec.h"

/* |x|, at most `limit`, also for NaN: x itself is NaN in what it is a factor of. */
INLINE vec magnitude_to(vec x, float limit)
{
    return (vec)vec_min_bits((vecu)x & 0x7fffffffu, (vecu)vec_set(limit));
}

/* 1 / (1 + e^-x) as s / (s + e^-r), where e^x = s * e^r and s is a power of two. Below -104 it is 0. */
INLINE vec sigmoid(vec x)
{
    veci n;
    x = vec_max2(vec_set(-111.0f), vec_min2(vec_set(21.0f), x));
    vec s, rounded = vec_round(x * LOG2E, &n);
    vec r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f; /* ln 2 in two parts, the first exact in 9 bits */
    vec y = 1.0f + r * (-1.0f + r * (0.49999225f + r * (-0.16667117f + r * (0.041890904f + r * -0.00831244f))));
#ifdef __AVX512F__
    s = (vec)_mm512_scalef_ps((__m512)vec_set(1.0f), (__m512)rounded);
#else
    veci half = n >> 1; /* one factor alone may be too small for a normal float */
    s = (vec)((half + 127) << 23) * (vec)((n - half + 127) << 23);
#endif
    return s / (s + y);
}

/* x / (1 + e^-y), where x is NaN if y is. */
INLINE vec times_sigmoid(vec x, vec y) { return x * sigmoid(y); }

INLINE vec silu(vec x) { return times_sigmoid(x, x); }

/* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
INLINE vec gelu_tanh(vec x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

/* x / 2 * (1 + erf(x / sqrt(2))). The quotient is erfc(w / sqrt(2)) / 2 * e^(w^2 / 2) within 2^-25 of itself. */
INLINE vec gelu(vec x)
{
    vec w = magnitude_to(x, 14.4f); /* the tail is 0 beyond it, as at it */
    vec p = 0.5f + w * (0.43829417f + w * (0.18323453f + w * (0.04063302f + w * 0.0041162763f)));
    vec q = 1.0f + w * (1.6744733f + w * (1.2025007f + w * (0.46946904f + w * (0.10185832f + w * 0.010317855f))));
    vec tail = vec_exp_bounded(-0.5f * w * w) * p / q;
    return x * vec_select((veci)x >> 31, tail, 1.0f - tail);
}

#endif
