/* SPDX-License-Identifier: Apache-2.0 */
/* Element types of the CPU kernels. to_float is exact; from_float rounds to nearest, ties to even; e4m3, e5m2 and i8 saturate,
 * and an i8 of NaN is 0. Kernel constants that are dtypes arrive as these names: -DT=bf16. */
#ifndef TYPES_H
#define TYPES_H

/* Before anything is defined: so gcc copies 32 bytes at a time, not 16, of which AVX2's registers wait to be put together. */
#if defined __AVX2__ && !defined __AVX512F__ && !defined __clang__
#pragma GCC target("tune=skylake-avx512")
#endif

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "narrow.h"
#include "x86.h"

#define INLINE static inline __attribute__((always_inline, unused))
#define LOG2E 1.4426950408889634f

typedef struct { uint16_t bits; } f16;
typedef struct { uint16_t bits; } bf16;
typedef struct { uint8_t bits; } e4m3;
typedef struct { uint8_t bits; } e5m2;
typedef struct { uint8_t bits; } e2m1x2; /* two elements, the first in the low half */
typedef int8_t i8;
typedef float f32;
typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uint8_t u8;

/* Of which one T holds so many. */
#define ELEMENTS(T) _Generic((T *)0, e2m1x2 * : 2, default : 1)

#define IS_BF16(T) _Generic((T *)0, bf16 * : 1, default : 0)

INLINE float f16_to_float(f16 x)
{
#ifdef __F16C__ /* Clang 14 has no _Float16 on x86 */
    return _cvtsh_ss(x.bits);
#else
    _Float16 h;
    memcpy(&h, &x, sizeof h);
    return (float)h;
#endif
}

INLINE float bf16_to_float(bf16 x)
{
    uint32_t bits = (uint32_t)x.bits << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

INLINE float f32_to_float(f32 x) { return x; }

INLINE f16 f16_from_float(float x)
{
#ifdef __F16C__
    return (f16){_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)};
#else
    _Float16 h = (_Float16)x;
    f16 y;
    memcpy(&y, &h, sizeof y);
    return y;
#endif
}

INLINE bf16 bf16_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bf16){(uint16_t)(bits >> 16 | 0x40)};
    return (bf16){(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

INLINE f32 f32_from_float(float x) { return x; }

INLINE float e4m3_to_float(e4m3 x)
{
    return (x.bits & 0x7f) == 0x7f ? NAN : 256.0f * f16_to_float((f16){e4m3_as_f16(x.bits)});
}

INLINE float e5m2_to_float(e5m2 x) { return f16_to_float((f16){(uint16_t)(x.bits << 8)}); }
INLINE float i8_to_float(i8 x) { return x; }
INLINE e4m3 e4m3_from_float(float x) { return (e4m3){e4m3_bits(x)}; }
INLINE e5m2 e5m2_from_float(float x) { return (e5m2){e5m2_bits(x)}; }

INLINE i8 i8_from_float(float x)
{
    x = x != x ? 0.0f : x < -128.0f ? -128.0f : x > 127.0f ? 127.0f : x;
    return (i8)(int32_t)(float_bits(x + 12582912.0f) - float_bits(12582912.0f)); /* 1.5 * 2^23: its unit is one */
}

#define to_float(x)                                                                                                          \
    _Generic((x), f16: f16_to_float, bf16: bf16_to_float, f32: f32_to_float, e4m3: e4m3_to_float, e5m2: e5m2_to_float, \
             i8: i8_to_float)(x)
#define from_float(T, x) T##_from_float(x)
#define FROM_FLOAT(T, x) from_float(T, x) /* when T is itself a constant */

/* The rows, or whatever is divided, of part `part` of `parts`: [begin, end). */
INLINE int64_t part_begin(int64_t total, int part, int parts) { return total * part / parts; }

#endif
