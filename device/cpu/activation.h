/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions. With e^-|x| nothing overflows, and small results keep their digits. NaN at -infinity. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include "vec.h"
#include "erfc.h"

/* x / (1 + e^-y) */
INLINE vec times_sigmoid(vec x, vec y)
{
    vec t = vec_exp((vec)((vecu)y | 0x80000000u));
    return vec_select(y < 0.0f, x * t, x) / (1.0f + t);
}

INLINE vec silu(vec x) { return times_sigmoid(x, x); }

/* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
INLINE vec gelu_tanh(vec x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

/* x / 2 * (1 + erf(x / sqrt(2))) */
INLINE vec gelu(vec x)
{
    vec z = 0.70710678f * (vec)((vecu)x & 0x7fffffffu), t = 1.0f / (1.0f + 0.5f * z);
    vec tail = 0.5f * t * vec_exp(ERFC_LOG(t) - z * z);
    return x * vec_select(x < 0.0f, tail, 1.0f - tail);
}

#endif
