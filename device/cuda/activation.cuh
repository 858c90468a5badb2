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

/* LOG2E as head + tail / ln 2: the head times what is of Half is exact, and e^(x * tail) is 1 + x * tail up to `moderate`. */
template <class Half> struct log2e_parts {
    static constexpr float head = 1.442626953125f, tail = 4.719484e-5f, moderate = 8.0f;
};
template <> struct log2e_parts<bf16> {
    static constexpr float head = 1.44268798828125f, tail = 4.888495e-6f, moderate = 32.0f;
};

/* Of N values of Half, the largest magnitude of which is amax: in fewer instructions if that is moderate. */
template <class Half, int N> DEVICE void silu_of(float (&x)[N], float amax)
{
    typedef log2e_parts<Half> log2e;
    if (amax <= log2e::moderate) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            float power = exp2_approx(-log2e::head * x[i]);
            x[i] *= reciprocal_approx(__fmaf_rn(power, __fmaf_rn(-log2e::tail, x[i], 1.0f), 1.0f));
        }
        return;
    }
#pragma unroll 1
    for (int i = 0; i < N; i++) {
        float last = silu(x[0]);
#pragma unroll
        for (int j = 1; j < N; j++)
            x[j - 1] = x[j];
        x[N - 1] = last;
    }
}

/* silu of x, which is known as p = -LOG2E x, and not exactly: what rounding p does to e^-x is no more. Of x below -87 it is 0. */
DEVICE float silu_of_power(float p) { return p * reciprocal_approx(__fmaf_rn(exp2_approx(p), -LOG2E, -LOG2E)); }

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
