/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low
 * half. */
#ifndef FP4_CUH
#define FP4_CUH

#include "types.cuh"

struct e2m1x2 { uint8_t bits; };

/* How many elements a stored one holds. */
template <class Element> DEVICE constexpr int elements_of(Element) { return 1; }
DEVICE constexpr int elements_of(e2m1x2) { return 2; }

/* The magnitude of x rounded to nearest, ties to even, to the values of e2m1 and, beyond 6, to two digits. The unit in the
 * last place of 2^22 times the larger of |x| and 1.5 is the distance of those values; taking x off rounds to it. From 2^106
 * on, and for infinity, it is negative infinity or NaN. */
DEVICE float e2m1_magnitude(float x)
{
    const float unit = 4194304.0f;
    float size = fmaxf(fabsf(x), 1.5f);
    return __fmaf_rn(size, unit, -__fmaf_rn(size, unit, -fabsf(x)));
}

/* The codes of y * multiplier, float32 products, rounded to nearest, ties to even; 6 beyond it and for NaN. Element i comes in
 * bits 4 i to 4 i + 3. Divided by 2^14, the magnitudes are f16 numbers whose first digits are the codes. */
DEVICE uint32_t e2m1_pack(const float (&y)[8], float multiplier)
{
    float x[8];
    uint32_t codes[4];
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = __fmul_rn(y[i], multiplier);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t pair = pack2(f16(), e2m1_magnitude(x[i]), e2m1_magnitude(x[i + 4]));
        codes[i] = mul2(f16(), min2(f16(), abs2(f16(), pair), 0x46004600u), 0x04000400u); /* 6, 2^-14 */
    }
    uint32_t even = byte_permute(byte_permute(__float_as_uint(x[0]), __float_as_uint(x[2]), 0x73),
                                 byte_permute(__float_as_uint(x[4]), __float_as_uint(x[6]), 0x73), 0xdc98); /* their signs spread */
    uint32_t odd = byte_permute(byte_permute(__float_as_uint(x[1]), __float_as_uint(x[3]), 0x73),
                                byte_permute(__float_as_uint(x[5]), __float_as_uint(x[7]), 0x73), 0x5410);
    return ((codes[0] + codes[1] * 16) >> 9) + ((codes[2] + codes[3] * 16) >> 1) | (even & 0x08080808u) | (odd & 0x80808080u);
}

/* The value of the low four bits. */
DEVICE float e2m1_value(uint32_t code)
{
    return __uint_as_float(0x7e800000u) * __uint_as_float((code & 7) << 22 | (code & 8) << 28); /* 2^126 */
}

/* The values of codes i and i + 4 of eight, i < 4, in f16: three bits are the first digits of a number 2^14 times smaller. */
DEVICE uint32_t e2m1_value2(uint32_t codes, int i)
{
    uint32_t magnitude = i < 3 ? codes << (9 - 4 * i) : codes >> 3;
    uint32_t pair = (magnitude & 0x0e000e00u) | (codes << (12 - 4 * i) & 0x80008000u);
    return mul2(f16(), pair, 0x74007400u); /* 2^14 */
}

DEVICE void e2m1_values(float (&x)[8], uint32_t codes)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 two = unpack2(f16(), e2m1_value2(codes, i));
        x[i] = two.x;
        x[i + 4] = two.y;
    }
}

/* Times an e4m3 scale, which f16 holds exactly. */
DEVICE void e2m1_scaled(float (&x)[8], uint32_t codes, uint8_t scale)
{
    uint32_t factors = as_f16_2(e4m3(), scale * 0x101);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 two = unpack2(f16(), mul2(f16(), e2m1_value2(codes, i), factors));
        x[i] = two.x;
        x[i + 4] = two.y;
    }
}

#endif
