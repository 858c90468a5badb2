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

/* e^x = numerator / denominator, for x from -111 to 21. */
struct quotient {
    vec numerator, denominator;
};

#ifdef __AVX512F__
/* s / (c e^-r): n is the nearest integer to 32 x / ln 2, r the rest, at most ln 2 / 64, s a float whose exponent and upper five
 * bits are n's bits, and c what makes s / c the power of two that belongs to n. Both are 2^UP times that, so that s is normal. */
INLINE struct quotient exp_quotient(vec x)
{
    enum { UP = 34 };
    const vec power[2] = { /* chosen by the lower five bits */
        {1.0f, 1.00915241f, 1.01745343f, 1.02493548f, 1.03162956f, 1.03756618f, 1.04277468f, 1.04728365f,
         1.05112052f, 1.05431211f, 1.05688429f, 1.05886209f, 1.06026995f, 1.06113124f, 1.06146884f, 1.06130469f},
        {1.06066012f, 1.05955601f, 1.05801213f, 1.05604792f, 1.05368209f, 1.05093277f, 1.04781759f, 1.04435325f,
         1.04055619f, 1.0364424f, 1.03202724f, 1.02732527f, 1.02235103f, 1.01711822f, 1.01164019f, 1.00592995f}};
    const float magic = 393343.0f + (float)UP; /* 1.5 * 2^18 + 127 + UP: its unit is 1 / 32, and s begins with its lower bits */
    const float times = bits_float((uint32_t)(127 + UP) << 23);
    vec shifted = x * LOG2E + magic, r = x - (shifted - magic) * 0.693147182f;
    vec c = (vec)_mm512_permutex2var_ps((__m512)(power[0] * times), (__m512i)shifted, (__m512)(power[1] * times));
    return (struct quotient){(vec)((vecu)shifted << 18), c * (1.0f + r * (-1.0000147f + r * 0.5f))};
}

/* At least -111 and at most 21; what is NaN becomes one of them. */
INLINE vec exp_bounded(vec x)
{
    x = (vec)_mm512_min_epu32((__m512i)x, (__m512i)vec_set(-111.0f)); /* of what is negative, the lesser magnitude */
    return (vec)_mm512_min_epi32((__m512i)x, (__m512i)vec_set(21.0f));
}
#else
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

INLINE vec exp_bounded(vec x) { return vec_max2(vec_set(-111.0f), vec_min2(vec_set(21.0f), x)); }
#endif

/* 1 / (1 + e^-x). Below -104 it is 0. */
INLINE vec sigmoid(vec x)
{
    struct quotient e = exp_quotient(exp_bounded(x));
    return e.numerator / (e.numerator + e.denominator);
}

/* x / (1 + e^-y), where x is NaN if y is. */
INLINE vec times_sigmoid(vec x, vec y) { return x * sigmoid(y); }

INLINE vec silu(vec x) { return times_sigmoid(x, x); }

/* x / (1 + e^(-times x)); below -87 / times, where it is nearly 0, off by up to 2^-125 x. times: 2^-60 to 2^60. */
INLINE vec silu_near(vec x, float times)
{
#ifdef __AVX512DQ__
    const vec power[2] = { /* as exp_quotient_up's, but factors of s */
        {1.0f, 0.990930557f, 0.982845902f, 0.975671232f, 0.969340205f, 0.963793933f, 0.958979905f, 0.954851151f,
         0.951365709f, 0.948485732f, 0.946177363f, 0.944410026f, 0.943156064f, 0.942390501f, 0.942090809f, 0.942236543f},
        {0.942809045f, 0.943791568f, 0.945168734f, 0.946926713f, 0.949052811f, 0.951535583f, 0.954364657f, 0.957530439f,
         0.961024463f, 0.964838922f, 0.968966722f, 0.973401546f, 0.978137672f, 0.983169913f, 0.988493681f, 0.994104981f}};
    const float magic = 393343.0f;
    vec bounded = (vec)_mm512_range_ps((__m512)x, (__m512)vec_set(87.0f / times), RANGE_LESSER);
    vec shifted = bounded * (-LOG2E * times) + magic, r = bounded + (shifted - magic) * (0.693147182f / times);
    vec c = (vec)_mm512_permutex2var_ps((__m512)power[0], (__m512i)shifted, (__m512)power[1]);
    vec rest = 1.0f + r * (-1.0000147f * times + r * (0.5f * times * times)); /* e^(-times r) */
    return x / (1.0f + (vec)((vecu)shifted << 18) * c * rest);
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
    struct quotient e = exp_quotient(-0.5f * w * w);
    vec tail = e.numerator * p / (e.denominator * q);
    return x * vec_select((veci)x >> 31, tail, 1.0f - tail);
}

#endif
