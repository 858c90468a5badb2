/* SPDX-License-Identifier: Apache-2.0 */
/* The x86 intrinsics that this vocabulary uses. <immintrin.h> declares thousands, and reading it takes longer than compiling most
 * kernels (0.15 s of 0.25); for gcc 12, whose builtins these are, the few of them stand here under their own names. */
#ifndef X86_H
#define X86_H

#if defined __x86_64__ && defined __GNUC__ && __GNUC__ == 12 && !defined __clang__

#define X86_INLINE static inline __attribute__((always_inline, unused))

typedef long long __m128i __attribute__((vector_size(16), may_alias));
typedef long long __m128i_u __attribute__((vector_size(16), may_alias, aligned(1)));
typedef long long __m256i __attribute__((vector_size(32), may_alias));
typedef long long __m256i_u __attribute__((vector_size(32), may_alias, aligned(1)));
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef float __m256 __attribute__((vector_size(32), may_alias));
typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef float __m512_u __attribute__((vector_size(64), may_alias, aligned(1)));
typedef unsigned short __mmask16;
typedef unsigned int __mmask32;
typedef unsigned long long __mmask64;
typedef float __v4sf __attribute__((vector_size(16)));
typedef char __v16qi __attribute__((vector_size(16)));
typedef long long __v2di __attribute__((vector_size(16)));
typedef long long __v4di __attribute__((vector_size(32)));
typedef long long __v8di __attribute__((vector_size(64)));
typedef short __v8hi __attribute__((vector_size(16)));
typedef short __v16hi __attribute__((vector_size(32)));
typedef short __v32hi __attribute__((vector_size(64)));
typedef char __v32qi __attribute__((vector_size(32)));
typedef char __v64qi __attribute__((vector_size(64)));
typedef int __v4si __attribute__((vector_size(16)));
typedef int __v8si __attribute__((vector_size(32)));
typedef int __v16si __attribute__((vector_size(64)));
typedef float __v8sf __attribute__((vector_size(32)));
typedef float __v16sf __attribute__((vector_size(64)));

#define _MM_FROUND_TO_NEAREST_INT 0x00
#define _MM_FROUND_TO_NEG_INF 0x01
#define _MM_FROUND_TO_POS_INF 0x02
#define _MM_FROUND_CUR_DIRECTION 0x04
#define _MM_FROUND_NO_EXC 0x08
#define _CMP_UNORD_Q 0x03
#define _CMP_GT_OQ 0x1e

X86_INLINE void _mm_stream_si128(__m128i *to, __m128i x)
{
    __builtin_ia32_movntdq((__v2di *)to, (__v2di)x);
}
#define _mm_sfence() __builtin_ia32_sfence()

#ifdef __F16C__
X86_INLINE float _cvtsh_ss(unsigned short x)
{
    return __builtin_ia32_vcvtph2ps((__v8hi){(short)x})[0];
}
#define _cvtss_sh(x, rounding) ((unsigned short)__builtin_ia32_vcvtps2ph((__v4sf){x}, rounding)[0])

X86_INLINE __m128i _mm_loadu_si128(const __m128i_u *from)
{
    return *from;
}
X86_INLINE void _mm_storeu_si128(__m128i_u *to, __m128i x)
{
    *to = x;
}
X86_INLINE __m256 _mm256_cvtph_ps(__m128i x)
{
    return (__m256)__builtin_ia32_vcvtph2ps256((__v8hi)x);
}
#define _mm256_cvtps_ph(x, rounding) ((__m128i)__builtin_ia32_vcvtps2ph256((__v8sf)(x), rounding))
#endif

#ifdef __AVX2__
X86_INLINE __m256i _mm256_cvtepi8_epi16(__m128i x)
{
    return (__m256i)__builtin_ia32_pmovsxbw256((__v16qi)x);
}
X86_INLINE __m256 _mm256_max_ps(__m256 a, __m256 b)
{
    return (__m256)__builtin_ia32_maxps256((__v8sf)a, (__v8sf)b);
}
X86_INLINE __m256 _mm256_min_ps(__m256 a, __m256 b)
{
    return (__m256)__builtin_ia32_minps256((__v8sf)a, (__v8sf)b);
}
X86_INLINE __m256i _mm256_max_epu32(__m256i a, __m256i b)
{
    return (__m256i)__builtin_ia32_pmaxud256((__v8si)a, (__v8si)b);
}
X86_INLINE __m256i _mm256_min_epu32(__m256i a, __m256i b)
{
    return (__m256i)__builtin_ia32_pminud256((__v8si)a, (__v8si)b);
}
#endif

#ifdef __AVX512F__
#define X86_ALL ((__mmask16)-1)
X86_INLINE __m256i _mm256_loadu_si256(const __m256i_u *from)
{
    return *from;
}
X86_INLINE void _mm256_storeu_si256(__m256i_u *to, __m256i x)
{
    *to = x;
}
X86_INLINE void _mm256_stream_si256(__m256i *to, __m256i x)
{
    __builtin_ia32_movntdq256((__v4di *)to, (__v4di)x);
}
X86_INLINE void _mm512_storeu_ps(void *to, __m512 x)
{
    *(__m512_u *)to = x;
}

X86_INLINE void _mm512_stream_si512(__m512i *to, __m512i x)
{
    __builtin_ia32_movntdq512((__v8di *)to, (__v8di)x);
}

X86_INLINE __m512 _mm512_max_ps(__m512 a, __m512 b)
{
    return (__m512)__builtin_ia32_maxps512_mask((__v16sf)a, (__v16sf)b, (__v16sf){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION);
}

X86_INLINE __m512 _mm512_min_ps(__m512 a, __m512 b)
{
    return (__m512)__builtin_ia32_minps512_mask((__v16sf)a, (__v16sf)b, (__v16sf){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION);
}

X86_INLINE __m512 _mm512_scalef_ps(__m512 a, __m512 b)
{
    return (__m512)__builtin_ia32_scalefps512_mask((__v16sf)a, (__v16sf)b, (__v16sf){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION);
}

X86_INLINE __m512 _mm512_permutex2var_ps(__m512 a, __m512i lanes, __m512 b)
{
    return (__m512)__builtin_ia32_vpermt2varps512_mask((__v16si)lanes, (__v16sf)a, (__v16sf)b, X86_ALL);
}

X86_INLINE __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b)
{
    return (__mmask16)__builtin_ia32_ptestmd512((__v16si)a, (__v16si)b, X86_ALL);
}

X86_INLINE __m512i _mm512_cvtps_epi32(__m512 x)
{
    return (__m512i)__builtin_ia32_cvtps2dq512_mask((__v16sf)x, (__v16si){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION);
}

#define _mm512_cvt_roundps_epi32(x, rounding) \
    ((__m512i)__builtin_ia32_cvtps2dq512_mask((__v16sf)(x), (__v16si){0}, X86_ALL, rounding))

X86_INLINE __m512i _mm512_min_epu32(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pminud512_mask((__v16si)a, (__v16si)b, (__v16si){0}, X86_ALL);
}

X86_INLINE __m512i _mm512_min_epi32(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pminsd512_mask((__v16si)a, (__v16si)b, (__v16si){0}, X86_ALL);
}

X86_INLINE __m512i _mm512_max_epu32(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pmaxud512_mask((__v16si)a, (__v16si)b, (__v16si){0}, X86_ALL);
}

X86_INLINE __m512i _mm512_mask_add_epi32(__m512i other, __mmask16 mask, __m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_paddd512_mask((__v16si)a, (__v16si)b, (__v16si)other, mask);
}

#define _mm512_fixupimm_ps(to, x, table, flags) \
    ((__m512)__builtin_ia32_fixupimmps512_mask((__v16sf)(to), (__v16sf)(x), (__v16si)(table), flags, X86_ALL, \
                                               _MM_FROUND_CUR_DIRECTION))

X86_INLINE __m512 _mm512_maskz_compress_ps(__mmask16 mask, __m512 x)
{
    return (__m512)__builtin_ia32_compresssf512_mask((__v16sf)x, (__v16sf){0}, mask);
}

X86_INLINE __m512i _mm512_mask_mov_epi32(__m512i other, __mmask16 mask, __m512i x)
{
    return (__m512i)__builtin_ia32_movdqa32_512_mask((__v16si)x, (__v16si)other, mask);
}

X86_INLINE __m512i _mm512_mask_broadcast_i32x4(__m512i other, __mmask16 mask, __m128i x)
{
    return (__m512i)__builtin_ia32_broadcasti32x4_512((__v4si)x, (__v16si)other, mask);
}

X86_INLINE __m512i _mm512_cvtepu8_epi32(__m128i x)
{
    return (__m512i)__builtin_ia32_pmovzxbd512_mask((__v16qi)x, (__v16si){0}, X86_ALL);
}

X86_INLINE __m512i _mm512_cvtepu8_epi64(__m128i x)
{
    return (__m512i)__builtin_ia32_pmovzxbq512_mask((__v16qi)x, (__v8di){0}, (unsigned char)-1);
}

X86_INLINE __m128i _mm512_cvtepi32_epi8(__m512i x)
{
    return (__m128i)__builtin_ia32_pmovdb512_mask((__v16si)x, (__v16qi){0}, X86_ALL);
}

#ifdef __AVX512DQ__
#define _mm512_fpclass_ps_mask(x, classes) ((__mmask16)__builtin_ia32_fpclassps512_mask((__v16sf)(x), classes, X86_ALL))
#define _mm512_range_ps(a, b, which) \
    ((__m512)__builtin_ia32_rangeps512_mask((__v16sf)(a), (__v16sf)(b), which, (__v16sf){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION))
#endif

#ifdef __AVX512BW__
X86_INLINE __m512i _mm512_cvtepi8_epi16(__m256i x)
{
    return (__m512i)__builtin_ia32_pmovsxbw512_mask((__v32qi)x, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __mmask64 _mm512_test_epi8_mask(__m512i a, __m512i b)
{
    return (__mmask64)__builtin_ia32_ptestmb512((__v64qi)a, (__v64qi)b, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_max_epu8(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pmaxub512_mask((__v64qi)a, (__v64qi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_min_epu8(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pminub512_mask((__v64qi)a, (__v64qi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_adds_epu8(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_paddusb512_mask((__v64qi)a, (__v64qi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_subs_epu8(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_psubusb512_mask((__v64qi)a, (__v64qi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_shuffle_epi8(__m512i a, __m512i which)
{
    return (__m512i)__builtin_ia32_pshufb512_mask((__v64qi)a, (__v64qi)which, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_subs_epu16(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_psubusw512_mask((__v32hi)a, (__v32hi)b, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_permutexvar_epi16(__m512i which, __m512i x)
{
    return (__m512i)__builtin_ia32_permvarhi512_mask((__v32hi)x, (__v32hi)which, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_permutex2var_epi16(__m512i a, __m512i which, __m512i b)
{
    return (__m512i)__builtin_ia32_vpermt2varhi512_mask((__v32hi)which, (__v32hi)a, (__v32hi)b, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_packus_epi32(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_packusdw512_mask((__v16si)a, (__v16si)b, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_packs_epi32(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_packssdw512_mask((__v16si)a, (__v16si)b, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_packs_epi16(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_packsswb512_mask((__v32hi)a, (__v32hi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_maddubs_epi16(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pmaddubsw512_mask((__v64qi)a, (__v64qi)b, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m512i _mm512_min_epi8(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pminsb512_mask((__v64qi)a, (__v64qi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_packus_epi16(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_packuswb512_mask((__v32hi)a, (__v32hi)b, (__v64qi){0}, (__mmask64)-1);
}

X86_INLINE __m512i _mm512_max_epu16(__m512i a, __m512i b)
{
    return (__m512i)__builtin_ia32_pmaxuw512_mask((__v32hi)a, (__v32hi)b, (__v32hi){0}, (__mmask32)-1);
}

X86_INLINE __m256i _mm512_cvtepi16_epi8(__m512i x)
{
    return (__m256i)__builtin_ia32_pmovwb512_mask((__v32hi)x, (__v32qi){0}, (__mmask32)-1);
}
#endif

X86_INLINE __m512i _mm512_cvtepu16_epi32(__m256i x)
{
    return (__m512i)__builtin_ia32_pmovzxwd512_mask((__v16hi)x, (__v16si){0}, X86_ALL);
}

X86_INLINE __m256i _mm512_cvtepi32_epi16(__m512i x)
{
    return (__m256i)__builtin_ia32_pmovdw512_mask((__v16si)x, (__v16hi){0}, X86_ALL);
}

X86_INLINE __m512 _mm512_cvtph_ps(__m256i x)
{
    return (__m512)__builtin_ia32_vcvtph2ps512_mask((__v16hi)x, (__v16sf){0}, X86_ALL, _MM_FROUND_CUR_DIRECTION);
}

#define _mm512_cvtps_ph(x, rounding) ((__m256i)__builtin_ia32_vcvtps2ph512_mask((__v16sf)(x), rounding, (__v16hi){0}, X86_ALL))
#define _mm512_cmp_ps_mask(a, b, predicate) \
    ((__mmask16)__builtin_ia32_cmpps512_mask((__v16sf)(a), (__v16sf)(b), predicate, X86_ALL, _MM_FROUND_CUR_DIRECTION))
#endif

#elif defined __x86_64__
#include <immintrin.h>
#endif

#endif
