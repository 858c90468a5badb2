/* SPDX-License-Identifier: Apache-2.0 */
/* Element types and their conversions. to_float is exact; from_float rounds to nearest, ties to even; e4m3, e5m2 and i8
 * saturate, and an i8 of NaN is 0. Kernel constants that are dtypes arrive as these names: -DT=bf16. */
#ifndef TYPES_CUH
#define TYPES_CUH

#include "narrow.h"

#define DEVICE static __device__ __forceinline__
/* For what is long and used more than once, in a kernel that has to compile soon. */
#define DEVICE_CALL static __device__ __noinline__
#define INFINITY __int_as_float(0x7f800000)
#define LOG2E 1.4426950408889634f

/* Threads that a multiprocessor holds. */
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000 || __CUDA_ARCH__ == 1030
#define SM_THREADS 2048
#else
#define SM_THREADS 1536
#endif

struct f16 { uint16_t bits; };
struct bf16 { uint16_t bits; };
struct e4m3 { uint8_t bits; };
struct e5m2 { uint8_t bits; };
typedef int8_t i8;
typedef float f32;
typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uint8_t u8;

DEVICE float to_float(f16 x)
{
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

DEVICE float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
DEVICE float to_float(float x) { return x; }
DEVICE float to_float(i8 x) { return (float)x; }

DEVICE float to_float(e5m2 x)
{
    f16 same = {(uint16_t)(x.bits << 8)};
    return to_float(same);
}

DEVICE float to_float(e4m3 x)
{
#if __CUDA_ARCH__ >= 890
    uint32_t y;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"((uint16_t)x.bits));
    f16 same = {(uint16_t)y};
    return to_float(same);
#else
    f16 scaled = {e4m3_as_f16(x.bits)};
    return (x.bits & 0x7f) == 0x7f ? __uint_as_float(0x7fffffffu) : 256.0f * to_float(scaled);
#endif
}

DEVICE void from_float(f16 *y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y->bits) : "f"(x)); }
DEVICE void from_float(bf16 *y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y->bits) : "f"(x)); }
DEVICE void from_float(float *y, float x) { *y = x; }
DEVICE void from_float(e4m3 *y, float x) { y->bits = e4m3_bits(x); }
DEVICE void from_float(e5m2 *y, float x) { y->bits = e5m2_bits(x); }
DEVICE void from_float(i8 *y, float x) { *y = (i8)min(127, max(-128, __float2int_rn(x))); }

/* Byte i is the one of `low` (0 to 3) or `high` (4 to 7) that digit i of `which` names; from 8 on, its sign eight times. */
DEVICE uint32_t byte_permute(uint32_t low, uint32_t high, uint32_t which)
{
    uint32_t y;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(low), "r"(high), "r"(which));
    return y;
}

/* Two values in one register, the first in the low half: what mma takes and 4-byte stores write. */
DEVICE uint32_t pack2(f16, float low, float high)
{
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

DEVICE uint32_t pack2(bf16, float low, float high)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

/* Likewise, rounded toward 0. */
DEVICE uint32_t cut2(f16, float low, float high)
{
    uint32_t y;
    asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

DEVICE uint32_t pack2(e4m3, float low, float high) { return e4m3x2_bits(low, high); }
DEVICE uint32_t pack2(e5m2, float low, float high) { return e5m2x2_bits(low, high); }

/* Four values in one register. Their halves meet where the compiler does not see it: it would store them one by one. */
#if __CUDA_ARCH__ >= 890
#define PACK4(format)                                                                                                      \
    uint32_t y;                                                                                                            \
    asm("{\n.reg .b16 low, high;\ncvt.rn.satfinite." format "x2.f32 low, %2, %1;\n"                                        \
        "cvt.rn.satfinite." format "x2.f32 high, %4, %3;\nmov.b32 %0, {low, high};\n}"                                     \
        : "=r"(y)                                                                                                          \
        : "f"(a), "f"(b), "f"(c), "f"(d));                                                                                 \
    return y
DEVICE uint32_t pack4(e4m3, float a, float b, float c, float d) { PACK4("e4m3"); }
DEVICE uint32_t pack4(e5m2, float a, float b, float c, float d) { PACK4("e5m2"); }
#undef PACK4
#else
template <class Byte> DEVICE uint32_t pack4(Byte, float a, float b, float c, float d)
{
    return byte_permute(pack2(Byte(), a, b), pack2(Byte(), c, d), 0x5410);
}
#endif

DEVICE float2 unpack2(f16, uint32_t x)
{
    f16 low = {(uint16_t)x}, high = {(uint16_t)(x >> 16)};
    return make_float2(to_float(low), to_float(high));
}

DEVICE float2 unpack2(bf16, uint32_t x)
{
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

DEVICE float2 unpack2(e4m3, uint32_t x)
{
#if __CUDA_ARCH__ >= 890
    uint32_t y;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"((uint16_t)x));
    return unpack2(f16(), y);
#else
    e4m3 low = {(uint8_t)x}, high = {(uint8_t)(x >> 8)};
    return make_float2(to_float(low), to_float(high));
#endif
}

DEVICE float2 unpack2(e5m2, uint32_t x) { return unpack2(f16(), (x & 0xff) << 8 | (x & 0xff00) << 16); }

/* The two bytes in the lower half, each as f16, which holds them exactly. */
DEVICE uint32_t as_f16_2(e4m3, uint32_t x)
{
#if __CUDA_ARCH__ >= 890
    uint32_t y;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"((uint16_t)x));
    return y;
#else
    float2 two = unpack2(e4m3(), x);
    return pack2(f16(), two.x, two.y);
#endif
}

DEVICE uint32_t as_f16_2(e5m2, uint32_t x) { return __byte_perm(x, 0, 0x1404); }

#define ON_PAIRS_1(NAME, HALF, INSTRUCTION)              \
    DEVICE uint32_t NAME(HALF, uint32_t x)               \
    {                                                    \
        uint32_t y;                                      \
        asm(INSTRUCTION " %0, %1;" : "=r"(y) : "r"(x));  \
        return y;                                        \
    }
#define ON_PAIRS_2(NAME, HALF, INSTRUCTION)                              \
    DEVICE uint32_t NAME(HALF, uint32_t a, uint32_t b)                   \
    {                                                                    \
        uint32_t y;                                                      \
        asm(INSTRUCTION " %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));      \
        return y;                                                        \
    }

/* Two at a time. max2 and min2 leave a NaN out, if the other is none. */
ON_PAIRS_1(abs2, f16, "abs.f16x2")
ON_PAIRS_1(abs2, bf16, "abs.bf16x2")
ON_PAIRS_2(max2, f16, "max.f16x2")
ON_PAIRS_2(max2, bf16, "max.bf16x2")
ON_PAIRS_2(min2, f16, "min.f16x2")
ON_PAIRS_2(mul2, f16, "mul.rn.f16x2")

/* The larger magnitude, of some sign. */
#if __CUDA_ARCH__ >= 860
ON_PAIRS_2(magnitude2, f16, "max.xorsign.abs.f16x2")
ON_PAIRS_2(magnitude2, bf16, "max.xorsign.abs.bf16x2")
#else
template <class Half> DEVICE uint32_t magnitude2(Half h, uint32_t a, uint32_t b) { return max2(h, abs2(h, a), abs2(h, b)); }
#endif

#undef ON_PAIRS_1
#undef ON_PAIRS_2

/* Before sm_90 there is no product alone. */
DEVICE uint32_t mul2(bf16, uint32_t a, uint32_t b)
{
    uint32_t y;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(0x80008000u)); /* -0 */
    return y;
}

#endif
