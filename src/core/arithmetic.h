/* SPDX-License-Identifier: Apache-2.0 */
/* How the calling thread computes. Kernels want what is usual: roundings to the nearest, subnormal numbers kept, no traps. A
 * program may have it otherwise; then bits would differ between its thread and the library's, and so from call to call. */
#ifndef CORE_ARITHMETIC_H
#define CORE_ARITHMETIC_H

#include <stdint.h>

#ifdef __x86_64__
enum { ARITHMETIC_USUAL = 0x1f80, ARITHMETIC_FLAGS = 0x3f };
static inline uint64_t arithmetic_get(void) { return __builtin_ia32_stmxcsr(); }
static inline void arithmetic_set(uint64_t control) { __builtin_ia32_ldmxcsr((uint32_t)control); }
#elif defined(__aarch64__)
enum { ARITHMETIC_USUAL = 0, ARITHMETIC_FLAGS = 0 };
static inline uint64_t arithmetic_get(void)
{
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}
static inline void arithmetic_set(uint64_t control) { __asm__ volatile("msr fpcr, %0" ::"r"(control)); }
#endif

static inline void arithmetic_change(uint64_t from, uint64_t to)
{
    if ((from ^ to) & ~(uint64_t)ARITHMETIC_FLAGS)
        arithmetic_set(to);
}

#endif
