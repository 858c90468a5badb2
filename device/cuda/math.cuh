/* SPDX-License-Identifier: Apache-2.0 */
/* Functions in the hardware's precision. */
#ifndef MATH_CUH
#define MATH_CUH

#include "types.cuh"

#define INSTRUCTION(name, instruction)                      \
    DEVICE float name(float x)                              \
    {                                                       \
        float y;                                            \
        asm(instruction ".f32 %0, %1;" : "=f"(y) : "f"(x)); \
        return y;                                           \
    }

/* 2^x within 2^-22 of itself; subnormal arguments and results are 0. */
INSTRUCTION(exp2_approx, "ex2.approx.ftz")

/* The logarithm of x to the base 2, within 2^-22 of itself, or absolutely for x from 0.5 to 2; subnormal arguments are 0. */
INSTRUCTION(log2_approx, "lg2.approx.ftz")

/* 1 / x within 2^-23 of itself; subnormal arguments are 0, subnormal results too. */
INSTRUCTION(reciprocal_approx, "rcp.approx.ftz")

/* 1 / sqrt(x) within 2^-22.4 of itself; subnormal arguments are 0. */
INSTRUCTION(rsqrt_approx, "rsqrt.approx.ftz")

/* 1 / x within 2^-23 of itself; subnormal arguments and results are kept. */
INSTRUCTION(reciprocal_of_any, "rcp.approx")
#undef INSTRUCTION

/* Of the angle of so many full turns, at most half a one: within 2^-20.4 of the truth, absolutely. */
DEVICE void sincos_approx(float turns, float *sine, float *cosine)
{
    float angle = 6.28318531f * turns;
    asm("sin.approx.f32 %0, %1;" : "=f"(*sine) : "f"(angle));
    asm("cos.approx.f32 %0, %1;" : "=f"(*cosine) : "f"(angle));
}

/* tanh(x) within 2^-21 of the truth, absolutely. */
DEVICE float tanh_exp2(float x) { return 1.0f - __fdividef(2.0f, 1.0f + exp2_approx(2.0f * LOG2E * x)); }

#endif
