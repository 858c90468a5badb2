/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low half. */
#ifndef FP4_CUH
#define FP4_CUH

#include "types.cuh"

struct e2m1x2 { uint8_t bits; };

/* How many elements a stored one holds. */
template <class Element> DEVICE constexpr int elements_of(Element) { return 1; }
DEVICE constexpr int elements_of(e2m1x2) { return 2; }

/* The code of y * multiplier, a float32 product, rounded to nearest, ties to even; 6 beyond it and for NaN. Codes are a concave
 * function of values, min(2 x, x + 2, x / 2 + 4), rounded, which needs no integers: they run at half the rate. */
DEVICE uint32_t e2m1_code(float y, float multiplier)
{
    const float unit = 8388608.0f; /* 2^23: the float whose unit is one */
    float sign = __fmul_rn(y, multiplier), x = __fmul_rn(fabsf(y), multiplier);
    float code = fminf(fminf(__fmaf_rn(x, 2.0f, unit), unit + 7.0f),
                       fminf(__fadd_rn(x, unit + 2.0f), __fmaf_rn(x, 0.5f, unit + 4.0f)));
    return (__float_as_uint(code) & 7) | (__float_as_uint(sign) >> 28 & ~7u);
}

/* The codes of N values, at most 8, element i in bits 4 i to 4 i + 3. */
template <int N> DEVICE uint32_t e2m1_pack(const float (&y)[N], float multiplier)
{
    uint32_t codes = 0;
#pragma unroll
    for (int i = N - 1; i >= 0; i--)
        codes = codes << 4 | e2m1_code(y[i], multiplier);
    return codes;
}

/* The value of the low four bits. */
DEVICE float e2m1_value(uint32_t code)
{
    return __uint_as_float(0x7e800000u) * __uint_as_float((code & 7) << 22 | (code & 8) << 28); /* 2^126 */
}

#endif
