/* SPDX-License-Identifier: Apache-2.0 */
/* Stores past the caches, for outputs that no cache can keep: an ordinary store reads the line that it overwrites, a third of
 * what a copy moves. Whole lines go from registers (pair_stream, line_narrow); what lies in memory already by `stream`. */
#ifndef STREAM_H
#define STREAM_H

#include "pair.h"

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

/* 64 bytes, to a multiple of so many if they go past the caches. */
INLINE void store_line(void *to, const void *from, int past_caches)
{
    if (past_caches)
        stream_bytes(to, from, 4 * LANES);
    else
        memcpy(to, from, 4 * LANES);
}

#ifdef __AVX512BW__
/* Dwords in the order of four vectors; packs of them take lanes by fours. */
INLINE vecu packed_in_order(vecu x)
{
    return (vecu)vec_permute((vec)x, (veci){0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15});
}
#endif

/* Bytes, one in each lane of four vectors. */
INLINE void write_line(void *to, const vecu *x, int past_caches)
{
    uint8_t line[4 * LANES];
#ifdef __AVX512BW__
    vecu words[2], bytes;
    for (int i = 0; i < 2; i++)
        words[i] = (vecu)_mm512_packus_epi32((__m512i)x[2 * i], (__m512i)x[2 * i + 1]);
    bytes = packed_in_order((vecu)_mm512_packus_epi16((__m512i)words[0], (__m512i)words[1]));
    memcpy(line, &bytes, sizeof line);
#else
    for (int i = 0; i < 4; i++)
        vec_store_bytes(line + i * LANES, x[i]);
#endif
    store_line(to, line, past_caches);
}

/* Thirty-two elements, to a multiple of their bytes, at most of 64; pair_write: past the caches or not. stored: how many bytes
 * pair_narrow stores at a time. */
#define PAIR_STREAM(T, stored)                                                                                  \
    INLINE void pair_stream_##T(T *to, struct pair x, enum pair_order order, enum tame tame)                    \
    {                                                                                                           \
        T part[PAIR];                                                                                           \
        pair_narrow_##T(part, x, order, tame);                                                                  \
        for (int i = 0; i < (int)sizeof part; i += stored)                                                      \
            stream_bytes((char *)to + i, (char *)part + i, stored);                                             \
    }                                                                                                           \
    INLINE void pair_write_##T(T *to, struct pair x, enum pair_order order, enum tame tame, int past_caches)    \
    {                                                                                                           \
        if (past_caches)                                                                                        \
            pair_stream_##T(to, x, order, tame);                                                                \
        else                                                                                                    \
            pair_narrow_##T(to, x, order, tame);                                                                \
    }
PAIR_STREAM(f16, 32)
PAIR_STREAM(bf16, 64)
PAIR_STREAM(f32, 64)
PAIR_STREAM(e4m3, 32)
PAIR_STREAM(e5m2, 32)
PAIR_STREAM(i8, 32)
#define pair_stream(to, x, order, tame) VEC_OF(pair_stream, to)(to, x, order, tame)
#define pair_write(to, x, order, tame, past_caches) VEC_OF(pair_write, to)(to, x, order, tame, past_caches)

/* A line of 64 bytes: two pairs. */
#define LINE_NARROW(T)                                                                                                       \
    INLINE void line_narrow_##T(void *to, const struct pair *x, enum pair_order order, enum tame tame, int past_caches)      \
    {                                                                                                                        \
        for (int i = 0; i < 2; i++)                                                                                          \
            pair_write_##T((T *)to + i * PAIR, x[i], order, tame, past_caches);                                              \
    }
LINE_NARROW(e4m3)
LINE_NARROW(i8)

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
