/* SPDX-License-Identifier: Apache-2.0 */
/* Activation functions. With e^-|x| nothing overflows, and small results keep their digits. NaN at -infinity. */
#ifndef ACTIVATION_CUH
#define ACTIVATION_CUH

#include "math.cuh"
#include "erfc.cuh"

/* x / (1 + e^-y) */
DEVICE float times_sigmoid(float x, float y)
{
    float t = expf(-fabsf(y));
    return (y < 0.0f ? x * t : x) * reciprocal_approx(1.0f + t);
}

DEVICE float silu(float x) { return times_sigmoid(x, x); }

/* N of them, of which x has the PARTth part: in fewer instructions if they are `moderate`, from -32 to 32. e^-x is 2^p (1 + r), where
 * r is what p, rounded, lacks. */
#define SILU_MODERATE 32.0f
template <int PART, int N> DEVICE void silu_of(float (&x)[N], bool moderate)
{
    const float part = 1.0f / PART;
    if (moderate) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            float p = -LOG2E * PART * x[i], power = exp2_approx(p);
            x[i] *= reciprocal_approx(__fmaf_rn(power, __fmaf_rn(-0.69314718f * part, p, -x[i]), __fmaf_rn(power, part, part)));
        }
        return;
    }
#pragma unroll 1
    for (int i = 0; i < N; i++) {
        float last = silu(PART * x[0]);
#pragma unroll
        for (int j = 1; j < N; j++)
            x[j - 1] = x[j];
        x[N - 1] = last;
    }
}

/* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
DEVICE float gelu_tanh(float x) { return times_sigmoid(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }

/* x / 2 * (1 + erf(x / sqrt(2))) */
DEVICE float gelu(float x)
{
    float z = 0.70710678f * fabsf(x), t = reciprocal_approx(1.0f + 0.5f * z);
    float tail = 0.5f * t * expf(ERFC_LOG(t) - z * z);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

#endif
