/* SPDX-License-Identifier: Apache-2.0 */
/* packed = eight elements of x in each byte, segments padded to whole bytes, bytes after the last one 0, on a CPU. A part takes a
 * range of bytes; the first part also writes new_indptr.
 *
 *   SEGMENTS 0: one; 1: as indptr says */
#include "types.h"
#include "packbits_args.h"

/* Bytes [begin, end) of elements [0, size) of x. */
static void pack(uint8_t *packed, const uint8_t *x, int64_t size, int64_t begin, int64_t end, int32_t little)
{
    int64_t whole = size / 8 < end ? size / 8 : end, i = begin;
    for (; i < whole; i++) {
        uint64_t elements;
        memcpy(&elements, x + 8 * i, sizeof elements);
        packed[i] = pack8(elements, little);
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
#if SEGMENTS
    int64_t at = 0;
    for (int64_t segment = 0; segment < a->batch; segment++) {
        int64_t size = a->indptr[segment + 1] - a->indptr[segment], next = at + (size + 7) / 8;
        int64_t from = begin > at ? begin : at, to = end < next ? end : next;
        if (part == 0)
            a->new_indptr[segment] = (int32_t)at;
        if (from < to)
            pack(a->packed + at, a->x + a->indptr[segment], size, from - at, to - at, a->little);
        at = next;
    }
    if (part == 0)
        a->new_indptr[a->batch] = (int32_t)at;
    begin = begin > at ? begin : at;
    if (begin < end)
        memset(a->packed + begin, 0, (size_t)(end - begin));
#else
    pack(a->packed, a->x, a->size, begin, end, a->little);
#endif
}
