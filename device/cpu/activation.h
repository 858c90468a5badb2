/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions. With e^-|x| nothing overflows, and small results keep their digits. NaN at -infinity. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

#include "vec.h"
#include "erfc.h"

/* |x|, at most `limit`, also for NaN: x itself is NaN in what it is a factor of. */
INLINE vec magnitude_to(vec x, float limit)
{
    return (vec)vec_min_bits((vecu)x & 0x7fffffffu, (vecu)vec_set(limit));
}

/* x / (1 + e^-y), where x is NaN if y is. Beyond 104 the exponential is 0. */
INLINE vec times_sigmoid(vec x, vec y)
{
    vec t = vec_exp_bounded(-magnitude_to(y, 104.0f));
    return vec_select((veci)y >> 31, x * t, x) * vec_reciprocal(1.0f + t);
}

INLINE vec silu(vec x) { return times_sigmoid(x, x); }

/* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
INLINE vec gelu_tanh(vec x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

/* x / 2 * (1 + erf(x / sqrt(2))) */
INLINE vec gelu(vec x)
{
    vec z = 0.70710678f * magnitude_to(x, 14.5f), t = vec_reciprocal(1.0f + 0.5f * z); /* 0 beyond it, as at it */
    vec tail = 0.5f * t * vec_exp_bounded(vec_max2(ERFC_LOG(t) - z * z, vec_set(-104.0f)));
    return x * vec_select((veci)x >> 31, tail, 1.0f - tail);
}

#endif
