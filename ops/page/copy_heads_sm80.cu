/* SPDX-License-Identifier: Apache-2.0 */
/* copy_heads: copies heads of tokens from tensors to others, or into the slots that a page table gives them.
 *
 * A thread copies the same BYTES bytes of TOKENS tokens. threadIdx.x and blockIdx.y say which bytes, threadIdx.y and blockIdx.x
 * which tokens. All of its loads are under way before it asks where they go.
 *
 *   BYTES         1, 2, 4, 8, 16; divides widths and strides
 *   PAGED         1: segments lie in a paged cache
 *   TOKENS        1, 2
 *   POWERS_OF_TWO 1: the heads of both segments have so many pieces */
#include "pdl.cuh"
#include "vec.cuh"
#include "copy_heads_args.h"

/* As page_slot_of, for all tokens at once: three loads one after the other, not three for each token. */
DEVICE void find_slots(struct page_slot (&slots)[TOKENS], const struct copy_heads_args &a, int64_t token, int count)
{
#if PAGED
    const struct paged_tokens &p = a.tokens;
    int batch[TOKENS], first[TOKENS];
    uint32_t position[TOKENS] = {}, page_size = (uint32_t)p.page_size;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        batch[i] = i < count ? p.batch_indices[token + i] : -1;
        position[i] = i < count ? p.positions[token + i] : 0;
    }
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        first[i] = batch[i] >= 0 ? p.kv_indptr[batch[i]] : 0;
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        slots[i] = page_slot{batch[i] >= 0 ? p.kv_indices[first[i] + position[i] / page_size] : -1, position[i] % page_size};
#else
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        slots[i] = page_slot{token + i, 0};
#endif
}

#if PAGED && TOKENS > 1
#define BOUNDS __launch_bounds__(128, 16)
#else
#define BOUNDS __launch_bounds__(256)
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
    if (piece >= a.pieces || count <= 0)
        return;
    vec<u8, BYTES> data[TOKENS] = {};
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        if (i < count)
            data[i] = load_vec<BYTES>(from + i * s.from_stride[0]);
    struct page_slot slots[TOKENS];
    find_slots(slots, a, token, count);
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        if (i < count && slots[i].page >= 0)
            store_vec(to + slots[i].page * s.to_stride[0] + slots[i].slot * s.to_stride[1], data[i]);
}
