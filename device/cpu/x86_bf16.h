/* SPDX-License-Identifier: Apache-2.0 */
/* The x86 intrinsics for pairs of bf16 (AVX512_BF16), apart from x86.h: a kernel whose source asks for an extension beyond its
 * machine's level is compiled there rather than taken from a pack, and only those that multiply bf16 should ask. */
#ifndef X86_BF16_H
#define X86_BF16_H

#include "x86.h"

#if defined X86_INLINE && defined __AVX512BF16__
typedef short __m512bh __attribute__((vector_size(64), may_alias));
typedef short __m256bh __attribute__((vector_size(32), may_alias));
X86_INLINE __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b)
{
    return (__m512)__builtin_ia32_dpbf16ps_v16sf((__v16sf)sum, a, b);
}

X86_INLINE __m256bh _mm512_cvtneps_pbh(__m512 x)
{
    return (__m256bh)__builtin_ia32_cvtneps2bf16_v16sf((__v16sf)x);
}
#endif

#endif
