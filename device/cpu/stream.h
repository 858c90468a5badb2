/* SPDX-License-Identifier: Apache-2.0 */
/* Stores past the caches, for outputs that no cache can keep: an ordinary store reads the line that it overwrites, a third of
 * what a copy moves. A kernel that makes what it writes does so in pieces in the first cache, and sends these off. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>

#include "pair.h"

enum { STREAM_PIECE = 256 }; /* elements */

/* Whether an output of so many bytes is to be streamed. */
INLINE bool streams(int64_t bytes)
{
#ifdef __SSE2__
    return bytes >= (int64_t)32 << 20;
#else /* where processors see for themselves that whole lines are overwritten */
    return (void)bytes, false;
#endif
}

/* Lines that are written in part are stored as usual. */
static inline void stream(void *to, const void *from, int64_t bytes)
{
    int64_t head = -(intptr_t)to & 63, at = head < bytes ? head : bytes;
    memcpy(to, from, (size_t)at);
#if defined __AVX512F__
    for (; at + 64 <= bytes; at += 64)
        _mm512_stream_si512((__m512i *)((char *)to + at), (__m512i)vec_load_f32((const f32 *)((const char *)from + at)));
#elif defined __SSE2__
    for (__m128i x; at + 16 <= bytes; at += 16) {
        memcpy(&x, (const char *)from + at, sizeof x);
        _mm_stream_si128((__m128i *)((char *)to + at), x);
    }
#endif
    memcpy((char *)to + at, (const char *)from + at, (size_t)(bytes - at));
}

/* 16, 32 or 64 bytes, to a multiple of so many. What makes a line of them stores them one after the other. */
INLINE void stream_bytes(void *to, const void *from, int bytes)
{
#if defined __AVX512F__
    if (bytes == 64) {
        __m512i x;
        memcpy(&x, from, sizeof x);
        _mm512_stream_si512((__m512i *)to, x);
        return;
    }
    if (bytes == 32) {
        __m256i x;
        memcpy(&x, from, sizeof x);
        _mm256_stream_si256((__m256i *)to, x);
        return;
    }
#endif
#if defined __SSE2__
    for (int at = 0; at < bytes; at += 16) {
        __m128i x;
        memcpy(&x, (const char *)from + at, sizeof x);
        _mm_stream_si128((__m128i *)((char *)to + at), x);
    }
#else
    memcpy(to, from, (size_t)bytes);
#endif
}

/* Sixteen and thirty-two elements, to a multiple of their bytes, at most of 64. */
#define VEC_STREAM(T)                                                                                           \
    INLINE void vec_stream_##T(T *to, vec x)                                                                    \
    {                                                                                                           \
        T part[LANES];                                                                                          \
        vec_store_##T(part, x);                                                                                 \
        stream_bytes(to, part, sizeof part);                                                                    \
    }
VEC_STREAM(f16)
VEC_STREAM(bf16)
VEC_STREAM(f32)
VEC_STREAM(e4m3)
VEC_STREAM(e5m2)
VEC_STREAM(i8)
#define vec_stream(to, x) VEC_OF(vec_stream, to)(to, x)

#define PAIR_STREAM_VECS(T)                                                                                     \
    INLINE void pair_stream_##T(T *to, struct pair x, enum pair_order order)                                    \
    {                                                                                                           \
        if (order == EVEN_ODD)                                                                                  \
            x = pair_halves(x.v[0], x.v[1]);                                                                    \
        vec_stream_##T(to, x.v[0]);                                                                             \
        vec_stream_##T(to + LANES, x.v[1]);                                                                     \
    }
PAIR_STREAM_VECS(f16)
PAIR_STREAM_VECS(f32)

/* Those whose pairs are one store. */
#define PAIR_STREAM(T)                                                                                          \
    INLINE void pair_stream_##T(T *to, struct pair x, enum pair_order order)                                    \
    {                                                                                                           \
        T part[PAIR];                                                                                           \
        pair_store_##T(part, x, order);                                                                         \
        stream_bytes(to, part, sizeof part);                                                                    \
    }
PAIR_STREAM(bf16)
PAIR_STREAM(e4m3)
PAIR_STREAM(e5m2)
PAIR_STREAM(i8)
#define pair_stream(to, x, order) VEC_OF(pair_stream, to)(to, x, order)

/* The one or the other. */
INLINE void write_out(void *to, const void *from, int64_t bytes, bool past_caches)
{
    if (past_caches)
        stream(to, from, bytes);
    else
        vec_copy(to, from, bytes);
}

/* After a part's last stream: other threads see what it stored. */
INLINE void stream_end(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

#endif
