/* SPDX-License-Identifier: Apache-2.0 */
/* The x86 intrinsics for permutations of bytes (AVX512_VBMI), apart from x86.h as those of x86_bf16.h are. */
#ifndef X86_VBMI_H
#define X86_VBMI_H

#include "x86.h"

#if defined X86_INLINE && defined __AVX512VBMI__
X86_INLINE __m512i _mm512_permutexvar_epi8(__m512i which, __m512i x)
{
    return (__m512i)__builtin_ia32_permvarqi512_mask((__v64qi)x, (__v64qi)which, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_mask_permutexvar_epi8(__m512i other, __mmask64 mask, __m512i which, __m512i x)
{
    return (__m512i)__builtin_ia32_permvarqi512_mask((__v64qi)x, (__v64qi)which, (__v64qi)other, mask);
}

X86_INLINE __m512i _mm512_permutex2var_epi8(__m512i a, __m512i which, __m512i b)
{
    return (__m512i)__builtin_ia32_vpermt2varqi512_mask((__v64qi)which, (__v64qi)a, (__v64qi)b, (__mmask64)-1);
}
#endif

#endif
