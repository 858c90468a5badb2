/* SPDX-License-Identifier: Apache-2.0 */
/* packed = eight elements of x in each byte, segments padded to whole bytes, bytes after the last one 0. A thread writes WORDS
 * times four bytes, blockDim.x of them apart.
 *
 *   SEGMENTS 0: one; 1: as new_indptr says, which segment_indptr_sm80 wrote
 *   ALIGNED  1: x lies at a multiple of 16 bytes and packed at one of 4 */
#include "pdl.cuh"
#include "vec.cuh"
#include "packbits_args.h"

enum { WORDS = 2 };

/* 32 elements from a place on, read as whole words: they and the word after them are there. */
DEVICE void load_words(uint64_t (&elements)[4], const uint8_t *x, int64_t at)
{
#if SEGMENTS
    int shift = (int)(at & 7) * 8;
    const uint64_t *words = (const uint64_t *)(x + (at & ~7));
    uint64_t word[5];
#pragma unroll
    for (int i = 0; i < 5; i++)
        word[i] = i < 4 || shift ? words[i] : 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        elements[i] = shift ? word[i] >> shift | word[i + 1] << (64 - shift) : word[i];
#else
    vec_elements<uint64_t, 4> words;
    words.all = load_vec_by<4, 2>((const uint64_t *)(x + at));
#pragma unroll
    for (int i = 0; i < 4; i++)
        elements[i] = words.at[i];
#endif
}

/* Elements [at, at + 8) of those before end; the others are 0. */
DEVICE uint64_t load8(const uint8_t *x, int64_t at, int64_t end)
{
    uint64_t elements = 0;
    for (int i = 0; i < 8 && at + i < end; i++)
        elements |= (uint64_t)x[at + i] << i * 8;
    return elements;
}

/* The last of segments low to high that begins at or before that byte; low does. */
DEVICE int64_t find_segment(const int32_t *new_indptr, int64_t low, int64_t high, int64_t byte)
{
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (new_indptr[middle] <= byte)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* The first element of a byte, and the end of its segment. */
struct place {
    int64_t at, end;
};

DEVICE struct place place_of(const struct packbits_args &a, int64_t low, int64_t high, int64_t byte)
{
#if SEGMENTS
    if (a.batch == 0)
        return place{0, 0};
    int64_t segment = find_segment(a.new_indptr, low, high, byte);
    return place{a.indptr[segment] + (byte - a.new_indptr[segment]) * 8, a.indptr[segment + 1]};
#else
    return place{byte * 8, a.size};
#endif
}

extern "C" __global__ void __launch_bounds__(256) packbits_sm80(const __grid_constant__ struct packbits_args a)
{
    int64_t block = (int64_t)blockIdx.x * blockDim.x * 4 * WORDS, low = 0, high = 0;
    pdl_launch();
    pdl_wait();
#if SEGMENTS
    /* Where the block begins and ends, most often in the same segment: then its threads have nothing to look for. */
    if (a.batch > 0) {
        low = find_segment(a.new_indptr, 0, a.batch - 1, block);
        high = find_segment(a.new_indptr, low, a.batch - 1, block + blockDim.x * 4 * WORDS - 1);
    }
#endif
    uint64_t elements[WORDS][4];
    bool whole[WORDS];
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        int64_t byte = block + (i * blockDim.x + threadIdx.x) * 4;
        struct place place = place_of(a, low, high, byte);
        whole[i] = ALIGNED && byte + 4 <= a.bytes && place.at + 32 <= place.end && (!SEGMENTS || place.at + 40 <= a.size);
        if (whole[i])
            load_words(elements[i], a.x, place.at);
    }
#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        int64_t byte = block + (i * blockDim.x + threadIdx.x) * 4;
        if (whole[i]) {
            uint32_t word = 0;
#pragma unroll
            for (int k = 0; k < 4; k++)
                word |= (uint32_t)pack8(elements[i][k], a.little) << k * 8;
            *(uint32_t *)(a.packed + byte) = word;
            continue;
        }
        for (int64_t last = byte + 4; byte < last && byte < a.bytes; byte++) {
            struct place place = place_of(a, low, high, byte);
            a.packed[byte] = pack8(load8(a.x, place.at, place.end), a.little);
        }
    }
}
