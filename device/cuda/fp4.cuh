/* SPDX-License-Identifier: Apache-2.0 */
/* e2m1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 are the codes 0 to 7, the sign is bit 3. Two to a byte, the first in the low
 * half. */
#ifndef FP4_CUH
#define FP4_CUH

#include "vec.cuh"

struct e2m1x2 { uint8_t bits; };

/* How many elements a stored one holds. */
template <class Element> DEVICE constexpr int elements_of(Element) { return 1; }
DEVICE constexpr int elements_of(e2m1x2) { return 2; }

/* 2^-14: times this, the values of e2m1 are f16 numbers whose first digits are the codes. */
#define E2M1_PART 6.103515625e-05f
/* 2^-112: a part of what is less may lack digits. */
#define E2M1_LEAST 1.925929944387236e-34f

/* 2^14 |x| rounded to nearest, ties to even, to the values of e2m1 and, beyond 6, to two digits; a 2^14th of that. The unit in
 * the last place of 2^22 times the larger of |x| and 1.5 / 2^14 is the distance of those values; taking x off rounds to it. From
 * 2^92 on, and for infinity, it is negative infinity or NaN. */
DEVICE float e2m1_magnitude(float x)
{
    const float unit = 4194304.0f;
    float size = fmaxf(fabsf(x), 1.5f * E2M1_PART);
    return __fmaf_rn(size, unit, -__fmaf_rn(size, unit, -fabsf(x)));
}

/* The codes of 2^14 |x|, rounded to nearest, ties to even; 6 beyond it and for NaN. Element i comes in bits 4 i to 4 i + 2. */
DEVICE uint32_t e2m1_magnitudes(const float (&x)[8])
{
    uint32_t codes[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        codes[i] = min2(f16(), abs2(f16(), pack2(f16(), e2m1_magnitude(x[i]), e2m1_magnitude(x[i + 4]))), 0x0e000e00u); /* 6 */
    return ((codes[0] + codes[1] * 16) >> 9) + ((codes[2] + codes[3] * 16) >> 1);
}

/* The signs of eight floats, in bits 4 i + 3. */
DEVICE uint32_t e2m1_signs(const float (&x)[8])
{
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pairs[i] = byte_permute(__float_as_uint(x[i % 2 + i / 2 * 4]), __float_as_uint(x[i % 2 + i / 2 * 4 + 2]), 0x73);
    return (byte_permute(pairs[0], pairs[2], 0xdc98) & 0x08080808u) | (byte_permute(pairs[1], pairs[3], 0x5410) & 0x80808080u);
}

/* Those of eight numbers of 16 bits. */
DEVICE uint32_t e2m1_signs(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t low = byte_permute(a, b, 0x7351), high = byte_permute(c, d, 0x7351);
    return (byte_permute(low, high, 0xdc98) & 0x08080808u) | (byte_permute(low, high, 0x7632) & 0x80808080u);
}

/* The codes of float32 products y * multiplier are those of y times what this returns, 2^-14 * multiplier. Should that lack
 * digits, or if `divides`, which spares a branch, y is divided instead: what becomes subnormal then has the code 0. So has every
 * f16. */
template <int N> DEVICE float e2m1_part(vec<f16, N> &, float multiplier, bool = false) { return multiplier * E2M1_PART; }
template <int N> DEVICE float e2m1_part(vec<bf16, N> &y, float multiplier, bool divides = false)
{
    if (!divides && multiplier >= E2M1_LEAST)
        return multiplier * E2M1_PART;
    vec_elements<uint32_t, N / 2> pairs;
    pairs.all.bits = y.bits;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        pairs.at[i] = mul2(bf16(), pairs.at[i], 0x38803880u); /* 2^-14 */
    y.bits = pairs.all.bits;
    return multiplier;
}
template <int N> DEVICE float e2m1_part(float (&y)[N], float multiplier)
{
    if (multiplier >= E2M1_LEAST)
        return multiplier * E2M1_PART;
#pragma unroll
    for (int i = 0; i < N; i++)
        y[i] *= E2M1_PART;
    return multiplier;
}
/* The same of PARTS runs, each with its multiplier. One by one, as few as eight y would be multiplied by a predicate, always. */
template <int N, int PARTS> DEVICE void e2m1_parts(float (&y)[N], float (&multiplier)[PARTS])
{
    bool divides = false;
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        divides |= !(multiplier[i] >= E2M1_LEAST);
    if (!divides) {
#pragma unroll
        for (int i = 0; i < PARTS; i++)
            multiplier[i] *= E2M1_PART;
        return;
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        multiplier[i] = e2m1_part(*(float(*)[N / PARTS])(y + i * (N / PARTS)), multiplier[i]);
}
template <int N> DEVICE float e2m1_part(vec<float, N> &y, float multiplier, bool = false)
{
    float x[N];
    widen(x, y);
    multiplier = e2m1_part(x, multiplier);
    narrow(y, x);
    return multiplier;
}

/* The codes of eight y, with what e2m1_part returned. */
DEVICE uint32_t e2m1_pack(const float *y, float part)
{
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = __fmul_rn(y[i], part);
    return e2m1_magnitudes(x) | e2m1_signs(x);
}

/* The same of N y; of 16 bits' by pairs. */
template <int N> DEVICE void e2m1_pack(uint32_t (&codes)[N / 8], vec<float, N> y, float part)
{
    float x[N];
    widen(x, y);
#pragma unroll
    for (int i = 0; i < N / 8; i++)
        codes[i] = e2m1_pack(x + 8 * i, part);
}
template <class Half, int N> DEVICE void e2m1_pack(uint32_t (&codes)[N / 8], vec<Half, N> y, float part)
{
    vec_elements<uint32_t, N / 2> pairs;
    pairs.all.bits = y.bits;
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        float x[8];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 two = unpack2(Half(), pairs.at[4 * i + j]);
            x[2 * j] = __fmul_rn(two.x, part);
            x[2 * j + 1] = __fmul_rn(two.y, part);
        }
        codes[i] = e2m1_magnitudes(x) |
                   e2m1_signs(pairs.at[4 * i], pairs.at[4 * i + 1], pairs.at[4 * i + 2], pairs.at[4 * i + 3]);
    }
}

/* Of eight bytes as below, 7 or more, or NaN, becomes 6. */
SELDOM uint2 e2m1_clamp(uint2 bytes)
{
    uint32_t b[2] = {bytes.x, bytes.y};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t top = ((b[i] & 0x7f7f7f7fu) + 0x71717171u) & 0x80808080u; /* of those from 15 on */
        uint32_t magnitudes = top - (top >> 7);
        b[i] = (b[i] & ~magnitudes) | (0x0e0e0e0eu & magnitudes);
    }
    return make_uint2(b[0], b[1]);
}

/* The codes of N x, each of PARTS runs times its part, as above. x are rounded results, off by more than what is lost here: what
 * lies in the middle is rounded away from 0. Of f16 numbers, cut off, the upper bytes are sign, code and the digit to round by;
 * in the first word those of elements 0, 2, 4, 6, in the second the others. */
template <int N, int PARTS> DEVICE void e2m1_pack_up(uint32_t (&codes)[N / 8], const float (&x)[N], const float (&parts)[PARTS])
{
    const uint32_t ones = 0x01010101u;
    uint32_t bytes[N / 8][2], rounded[N / 8][2], over = 0;
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        uint32_t pairs[4];
        float part = parts[i * PARTS / (N / 8)];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float *first = x + 8 * i + j % 2 + j / 2 * 4;
            pairs[j] = cut2(f16(), __fmul_rn(first[0], part), __fmul_rn(first[2], part));
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            bytes[i][j] = byte_permute(pairs[j], pairs[j + 2], 0x7531);
            rounded[i][j] = bytes[i][j] + ones;
            over |= bytes[i][j] | rounded[i][j];
        }
    }
    if (over & 0x70707070u) {
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            uint2 two = e2m1_clamp(make_uint2(bytes[i][0], bytes[i][1]));
            rounded[i][0] = two.x + ones;
            rounded[i][1] = two.y + ones;
        }
    }
    /* Bits 4 to 6 of every byte are 0 now. */
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        uint32_t even = rounded[i][0], odd = rounded[i][1];
        codes[i] = ((even >> 1 | even >> 4) & 0x0f0f0f0fu) | ((odd << 3 | odd) & 0xf0f0f0f0u);
    }
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
