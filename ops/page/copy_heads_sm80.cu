/* SPDX-License-Identifier: Apache-2.0 */
/* copy_heads: copies heads of tokens from tensors to others, or into the slots that a page table gives them.
 *
 * A thread copies the same BYTES bytes of TOKENS tokens. threadIdx.x and blockIdx.y say which bytes, threadIdx.y and blockIdx.x
 * which tokens. All of its loads are under way before it asks where they go. Where a page table says so and a thread has
 * several, a thread for each token of the block finds that out before, while the others load.
 *
 *   BYTES         1, 2, 4, 8, 16; divides widths and strides
 *   PAGED         1: segments lie in a paged cache
 *   TOKENS        1, 2, 3
 *   POWERS_OF_TWO 1: the heads of both segments have so many pieces */
#include "pdl.cuh"
#include "prefetch.cuh"
#include "vec.cuh"
#include "copy_heads_args.h"

#define SHARES (PAGED && TOKENS > 1)
enum { MAX_THREADS = SHARES ? 128 : 256 };

/* Of the tokens of a block. Before a barrier. */
DEVICE void find_slots(int2 (&slots)[SHARES ? MAX_THREADS * TOKENS : 1], const struct copy_heads_args &a)
{
    int tokens = blockDim.y * TOKENS;
    int64_t first = (int64_t)blockIdx.x * tokens;
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < tokens && first + i < a.nnz; i += blockDim.x * blockDim.y) {
        struct page_slot slot = page_slot_of(&a.tokens, first + i);
        slots[i] = make_int2((int)slot.page, (int)slot.slot);
    }
}

DEVICE struct page_slot slot_of(const int2 (&slots)[SHARES ? MAX_THREADS * TOKENS : 1], const struct copy_heads_args &a,
                                int64_t token, int i)
{
#if SHARES
    int2 slot = slots[threadIdx.y * TOKENS + i];
    return page_slot{slot.x, slot.y};
#elif PAGED
    return page_slot_of(&a.tokens, token + i);
#else
    return page_slot{token + i, 0};
#endif
}

#if SHARES
#define BOUNDS __launch_bounds__(MAX_THREADS, 12)
#else
#define BOUNDS __launch_bounds__(MAX_THREADS)
#endif

extern "C" __global__ void BOUNDS copy_heads_sm80(const __grid_constant__ struct copy_heads_args a)
{
    uint32_t piece = blockIdx.y * blockDim.x + threadIdx.x;
    int64_t token = ((int64_t)blockIdx.x * blockDim.y + threadIdx.y) * TOKENS;
    const struct copy_segment &s = a.segment[piece >= a.segment[1].first_piece];
    uint32_t in_segment = piece - s.first_piece;
    uint32_t head = POWERS_OF_TWO ? in_segment >> (31 - __clz(s.pieces)) : in_segment / s.pieces;
    uint32_t at = (POWERS_OF_TWO ? in_segment & (s.pieces - 1) : in_segment % s.pieces) * BYTES;
    const u8 *from = (const u8 *)s.from + token * s.from_stride[0] + head * s.from_stride[1] + at;
    u8 *to = (u8 *)s.to + head * s.to_stride[2] + at;
    int count = (int)min((int64_t)TOKENS, a.nnz - token);

    pdl_launch();
    pdl_wait();
    __shared__ int2 slots[SHARES ? MAX_THREADS * TOKENS : 1];
    if (piece >= a.pieces)
        count = 0;
    vec<u8, BYTES> data[TOKENS] = {};
    if (SHARES)
        find_slots(slots, a);
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        if (i < count)
            data[i] = load_vec<BYTES>(from + i * s.from_stride[0]);
    if (TOKENS > 1 && blockIdx.x < a.ahead.blocks && count > 0 && piece == s.first_piece && threadIdx.y == 0) {
        uint32_t bytes = blockDim.y * TOKENS * (uint32_t)s.from_stride[0];
        bulk_prefetch(from + (int64_t)a.ahead.distance * bytes, bytes);
    }
    if (SHARES)
        __syncthreads();
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        if (i >= count)
            return;
        struct page_slot slot = slot_of(slots, a, token, i);
        if (slot.page >= 0)
            store_vec(to + slot.page * s.to_stride[0] + slot.slot * s.to_stride[1], data[i]);
    }
}
