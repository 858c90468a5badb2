/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping some lanes of a vec. */
#ifndef COMPRESS_H
#define COMPRESS_H

#include "vec.h"

/* Stores the lanes of x whose mask is all ones, not zero, one after the other; returns how many. May write
 * LANES elements. */
INLINE int vec_store_where(float *to, vec x, veci mask)
{
#if defined __AVX512F__
    __mmask16 lanes = _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(lanes, (__m512)x));
    return __builtin_popcount(lanes);
#else
    int n = 0;
    for (int i = 0; i < LANES; i++) {
        to[n] = x[i];
        n -= mask[i];
    }
    return n;
#endif
}

#endif
