/* SPDX-License-Identifier: Apache-2.0 */
/* Rounding to the narrow formats of the OCP specifications (e4m3, e5m2, e2m1: nearest, ties to even, saturating) in integer
 * arithmetic: one text for CPUs, for GPUs without the instructions, and bit for bit what the instructions do. Also to f16 and
 * bf16 at random, for which few GPUs have instructions. */
#ifndef NARROW_H
#define NARROW_H

#include "integers.h"

#ifdef __CUDACC_RTC__
ANYWHERE uint32_t float_bits(float x) { return __float_as_uint(x); }
ANYWHERE float bits_float(uint32_t x) { return __uint_as_float(x); }
/* A product that no sum takes in: rounded on its own. */
ANYWHERE float product(float a, float b) { return __fmul_rn(a, b); }
#else
#include <string.h>

ANYWHERE uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

ANYWHERE float bits_float(uint32_t x)
{
    float y;
    memcpy(&y, &x, sizeof y);
    return y;
}

ANYWHERE float product(float a, float b) { return bits_float(float_bits(a * b)); }
#endif

/* Mantissa bits, exponent bias, and the largest finite value. */
#define E4M3_FORMAT 3, 7, 448.0f
#define E5M2_FORMAT 2, 15, 57344.0f

/* The code of |x|. NaN becomes 0x7f. */
ANYWHERE uint32_t narrow_code(float x, int mantissa, int bias, float largest)
{
    uint32_t bits = float_bits(x) & 0x7fffffffu;
    if (bits > 0x7f800000u)
        return 0x7f;
    if (bits > float_bits(largest))
        bits = float_bits(largest);
    uint32_t magic = (uint32_t)(127 + 24 - bias - mantissa) << 23; /* the power of two whose unit is the least subnormal */
    if (bits < (uint32_t)(128 - bias) << 23)
        return float_bits(bits_float(bits) + bits_float(magic)) - magic;
    uint32_t half = (1u << (22 - mantissa)) - 1 + (bits >> (23 - mantissa) & 1);
    return ((bits + half) >> (23 - mantissa)) - ((uint32_t)(127 - bias) << mantissa);
}

/* With its sign; NaN has none. */
ANYWHERE uint8_t narrow_bits(float x, int mantissa, int bias, float largest)
{
    return (uint8_t)(narrow_code(x, mantissa, bias, largest) | (x == x ? float_bits(x) >> 24 & 0x80 : 0));
}

#if defined __CUDACC_RTC__ && __CUDA_ARCH__ >= 890
/* Of two values, the first in the low byte. */
ANYWHERE uint32_t e4m3x2_bits(float low, float high)
{
    uint16_t y;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
    return y;
}

ANYWHERE uint32_t e5m2x2_bits(float low, float high)
{
    uint16_t y;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
    return y;
}

ANYWHERE uint8_t e4m3_bits(float x) { return (uint8_t)e4m3x2_bits(x, 0.0f); }
ANYWHERE uint8_t e5m2_bits(float x) { return (uint8_t)e5m2x2_bits(x, 0.0f); }
#else
ANYWHERE uint8_t e4m3_bits(float x) { return narrow_bits(x, E4M3_FORMAT); }
ANYWHERE uint8_t e5m2_bits(float x) { return narrow_bits(x, E5M2_FORMAT); }
ANYWHERE uint32_t e4m3x2_bits(float low, float high) { return e4m3_bits(low) | (uint32_t)e4m3_bits(high) << 8; }
ANYWHERE uint32_t e5m2x2_bits(float low, float high) { return e5m2_bits(low) | (uint32_t)e5m2_bits(high) << 8; }
#endif

/* Rounded at random: up with the probability of the part that is cut off, by its leading 13 bits, or 16 for bf16, and as many
 * random ones. Of f16, what exceeds the largest is infinite. */
ANYWHERE uint16_t f16_random_bits(float x, uint32_t random)
{
    uint32_t bits = float_bits(x) & 0x7fffffffu, normal = 113u << 23;
    uint32_t small = (uint32_t)(bits_float(bits < normal ? bits : normal) * 137438953472.0f); /* in units of 2^-37 */
    uint32_t code = ((bits < normal ? small : bits - (112u << 23)) + (random & 0x1fff)) >> 13;
    code = code < 0x7c00 ? code : 0x7c00;
    return (uint16_t)((float_bits(x) >> 16 & 0x8000) | code | (bits > 0x7f800000u ? 0x200 : 0));
}

ANYWHERE uint16_t bf16_random_bits(float x, uint32_t random)
{
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + ((bits & 0x7fffffffu) < 0x7f800000u ? random & 0xffff : 0)) >> 16);
}

/* The bits of the f16 that is an e4m3's value divided by 256; not for NaN. */
ANYWHERE uint16_t e4m3_as_f16(uint32_t code) { return (uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7); }

#endif
