/* SPDX-License-Identifier: Apache-2.0 */
/* packed = eight elements of x in each byte, segments padded to whole bytes, bytes after the last one 0, on a CPU. A part takes a
 * range of bytes; the first part also writes new_indptr.
 *
 *   SEGMENTS 0: one; 1: as indptr says */
#include "stream.h"
#include "packbits_args.h"

enum { AHEAD = 2048 }; /* bytes: what is fetched while others are packed */

/* Sixty-four elements. */
INLINE uint64_t pack64(const uint8_t *x, int32_t little)
{
#ifdef __AVX512BW__
    vec from = vec_load_f32((const f32 *)x);
    uint64_t bits = _mm512_test_epi8_mask((__m512i)from, (__m512i)from);
    if (little)
        return bits;
    bits = (bits >> 1 & 0x5555555555555555u) | (bits & 0x5555555555555555u) << 1;
    bits = (bits >> 2 & 0x3333333333333333u) | (bits & 0x3333333333333333u) << 2;
    return (bits >> 4 & 0x0f0f0f0f0f0f0f0fu) | (bits & 0x0f0f0f0f0f0f0f0fu) << 4;
#else
    uint8_t packed[8];
    uint64_t elements[8], bits;
    memcpy(elements, x, sizeof elements);
    for (int i = 0; i < 8; i++)
        packed[i] = pack8(elements[i], little);
    memcpy(&bits, packed, sizeof bits);
    return bits;
#endif
}

/* Bytes [begin, end) of elements [0, size) of x. */
static void pack(uint8_t *packed, const uint8_t *x, int64_t size, int64_t begin, int64_t end, int32_t little, bool past_caches)
{
    int64_t whole = size / 8 < end ? size / 8 : end, i = begin;
    while (i + 8 <= whole) {
        bool line = past_caches && (intptr_t)(packed + i) % 64 == 0 && i + 64 <= whole;
        uint64_t bits[8];
        for (int k = 0; k < (line ? 8 : 1); k++) {
            bits[k] = pack64(x + 8 * i + 64 * k, little);
            __builtin_prefetch(x + 8 * i + 64 * k + AHEAD, 0, 2);
        }
        if (line)
            stream_bytes(packed + i, bits, sizeof bits);
        else
            memcpy(packed + i, bits, sizeof *bits);
        i += line ? 64 : 8;
    }
    for (; i < end; i++) {
        uint64_t elements = 0;
        for (int64_t k = 8 * i; k < 8 * i + 8 && k < size; k++)
            elements |= (uint64_t)x[k] << k % 8 * 8;
        packed[i] = pack8(elements, little);
    }
}

void packbits_cpu(const struct packbits_args *a, int part, int parts)
{
    int64_t begin = part_begin(a->bytes, part, parts), end = part_begin(a->bytes, part + 1, parts);
    bool past_caches = streams(a->bytes);
#if SEGMENTS
    int64_t at = 0;
    for (int64_t segment = 0; segment < a->batch; segment++) {
        int64_t size = a->indptr[segment + 1] - a->indptr[segment], next = at + (size + 7) / 8;
        int64_t from = begin > at ? begin : at, to = end < next ? end : next;
        if (part == 0)
            a->new_indptr[segment] = (int32_t)at;
        if (from < to)
            pack(a->packed + at, a->x + a->indptr[segment], size, from - at, to - at, a->little, past_caches);
        at = next;
    }
    if (part == 0)
        a->new_indptr[a->batch] = (int32_t)at;
    begin = begin > at ? begin : at;
    if (begin < end)
        memset(a->packed + begin, 0, (size_t)(end - begin));
#else
    pack(a->packed, a->x, a->size, begin, end, a->little, past_caches);
#endif
    if (past_caches)
        stream_end();
}
