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

/* 64 bytes, to a multiple of 64. */
INLINE void stream_vec(void *to, vecu x)
{
#if defined __AVX512F__
    _mm512_stream_si512((__m512i *)to, (__m512i)x);
#else
    stream(to, &x, sizeof x);
#endif
}

/* Thirty-two elements of two or four bytes, to a multiple of 64 bytes. */
INLINE void pair_stream_f32(f32 *to, struct pair x, enum pair_order order)
{
    if (order == EVEN_ODD)
        x = pair_halves(x.v[0], x.v[1]);
    stream_vec(to, (vecu)x.v[0]);
    stream_vec(to + LANES, (vecu)x.v[1]);
}

INLINE void pair_stream_bf16(bf16 *to, struct pair x, enum pair_order order)
{
    vecu words;
    bf16 part[PAIR];
    pair_store(part, x, order);
    memcpy(&words, part, sizeof words);
    stream_vec(to, words);
}

INLINE void pair_stream_f16(f16 *to, struct pair x, enum pair_order order)
{
    if (order == EVEN_ODD)
        x = pair_halves(x.v[0], x.v[1]);
#ifdef __AVX512F__
    for (int i = 0; i < 2; i++)
        _mm256_stream_si256((__m256i *)(to + i * LANES),
                            _mm512_cvtps_ph((__m512)x.v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    f16 part[PAIR];
    pair_store(part, x, HALVES);
    stream(to, part, sizeof part);
#endif
}

/* Half a line is stored as usual. */
INLINE void pair_stream_e4m3(e4m3 *to, struct pair x, enum pair_order order) { pair_store(to, x, order); }
INLINE void pair_stream_e5m2(e5m2 *to, struct pair x, enum pair_order order) { pair_store(to, x, order); }
INLINE void pair_stream_i8(i8 *to, struct pair x, enum pair_order order) { pair_store(to, x, order); }
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
