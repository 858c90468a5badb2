/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of chunk_gated_delta_rule on sm_80 share: where a sequence's tiles lie, how rows of q and k come to shared
 * memory, and products with them. */
#ifndef GATED_DELTA_COPIES_SM80_CUH
#define GATED_DELTA_COPIES_SM80_CUH

#include "gated_delta_chunk.cuh"
#include "mma.cuh"

/* Of a sequence's first tile, among those of a head. */
DEVICE int64_t first_tile(const struct gated_delta_args &a, int64_t sequence)
{
    return sequence_begin(&a, sequence) / CHUNK + sequence;
}

/* Where a row's 16-byte piece lies in slabs. */
DEVICE uint32_t at_slab(uint32_t slabs, int row, int piece)
{
    return slabs + piece / 8 * SLAB_BYTES + row * 128 + ((piece ^ row) % 8) * 16;
}

/* From there 2 k pieces further, if the piece was 0 or 1. */
DEVICE uint32_t pieces_on(uint32_t at, int k)
{
    return (at ^ (k % 4 << 5)) + k / 4 * SLAB_BYTES;
}

enum { ROW_PIECES = HEAD_DIM / 8 };

/* The first piece that a thread copies of a head's rows from a token on. */
DEVICE const T *first_piece(const struct head_rows &rows, int64_t token, int head)
{
    int row = threadIdx.x / ROW_PIECES, piece = threadIdx.x % ROW_PIECES;
    return (const T *)rows.data + (token + row) * rows.token + head * rows.head + piece * 8;
}

/* 64 rows to slabs, by so many threads; those from `length` on become 0. */
template <int threads> DEVICE void copy_rows(uint32_t slabs, const T *from, int64_t stride, int length)
{
    enum { STEP = threads / ROW_PIECES };
    int row = threadIdx.x / ROW_PIECES;
    uint32_t to = at_slab(slabs, row, threadIdx.x % ROW_PIECES);
#pragma unroll
    for (int i = 0; i < CHUNK; i += STEP)
        cp_async_16_or_zero(to + i * 128, from + i * stride, row + i < length);
}

/* d += a b, for 16 columns of b: d and a in flat arrays, b from ldmatrix_x4. */
template <typename Type> DEVICE void multiply_16(float *d, const uint32_t *a, const uint32_t (&b)[4], Type type)
{
    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
    mma_m16n8k16((float (&)[4])d[0], (const uint32_t (&)[4])*a, low, type);
    mma_m16n8k16((float (&)[4])d[4], (const uint32_t (&)[4])*a, high, type);
}

/* Where a lane points, for ldmatrix_x4: rows as columns of b. */
DEVICE uint32_t at_rows(uint32_t slabs)
{
    return at_slab(slabs, lane_id() % 8 + lane_id() / 16 * 8, lane_id() / 8 % 2);
}

/* d += a M^T for 16 columns of d, the i-th 16 rows of M, and the k-th 16 columns of M; rows: at_rows of it. */
DEVICE void multiply_rows(float *d, const uint32_t *a, uint32_t rows, int i, int k)
{
    uint32_t b[4];
    ldmatrix_x4(b, pieces_on(rows, k) + i * 16 * 128);
    multiply_16(d, a, b, T());
}

#endif
