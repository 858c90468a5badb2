/* SPDX-License-Identifier: Apache-2.0 */
/* packed = eight elements of x in each byte, segments padded to whole bytes, bytes after the last one 0. A thread writes BYTES bytes,
 * blockDim.x apart.
 *
 *   SEGMENTS 0: one; 1: as new_indptr says, which segment_indptr_sm80 wrote
 *   ALIGNED  1: x lies at a multiple of 8 bytes
 *   BYTES    1 to 4 */
#include "pdl.cuh"
#include "packbits_args.h"

/* Elements [at, at + 8) of those before end; the others are 0. */
DEVICE uint64_t load8(const uint8_t *x, int64_t at, int64_t end)
{
    uint64_t elements = 0;
    int shift = at % 8 * 8;
    if (ALIGNED && at + 8 <= end) {
        elements = *(const uint64_t *)(x + at - at % 8);
        if (shift == 0)
            return elements;
        elements >>= shift;
        if (at - at % 8 + 16 <= end)
            return elements | *(const uint64_t *)(x + at - at % 8 + 8) << (64 - shift);
        for (int i = 8 - at % 8; i < 8; i++)
            elements |= (uint64_t)x[at + i] << i * 8;
        return elements;
    }
    for (int i = 0; i < 8 && at + i < end; i++)
        elements |= (uint64_t)x[at + i] << i * 8;
    return elements;
}

/* The last segment that begins at or before that byte. */
DEVICE int64_t find_segment(const int32_t *new_indptr, int64_t batch, int64_t byte)
{
    int64_t low = 0, high = batch;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (new_indptr[middle] <= byte)
            low = middle;
        else
            high = middle;
    }
    return low;
}

extern "C" __global__ void __launch_bounds__(256) packbits_sm80(const __grid_constant__ struct packbits_args a)
{
    int64_t first = (int64_t)blockIdx.x * blockDim.x * BYTES + threadIdx.x;
    pdl_launch();
    pdl_wait();
    uint64_t elements[BYTES] = {};
#pragma unroll
    for (int i = 0; i < BYTES; i++) {
        int64_t byte = first + i * blockDim.x, at = byte * 8, end = a.size;
        if (byte >= a.bytes)
            break;
#if SEGMENTS
        int64_t segment = find_segment(a.new_indptr, a.batch, byte);
        at = a.batch ? a.indptr[segment] + (byte - a.new_indptr[segment]) * 8 : 0;
        end = a.batch ? a.indptr[segment + 1] : 0;
#endif
        elements[i] = load8(a.x, at, end);
    }
#pragma unroll
    for (int i = 0; i < BYTES; i++) {
        int64_t byte = first + i * blockDim.x;
        if (byte < a.bytes)
            a.packed[byte] = pack8(elements[i], a.little);
    }
}
