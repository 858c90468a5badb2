/* SPDX-License-Identifier: Apache-2.0 */
/* mm with at most 16 rows of a: out[m][n] = dot(a[m], b[n]) + bias[n], where each column of b is contiguous
 * (the weights of a decoder).
 *
 * What limits it is reading b, once. A block of each multiprocessor takes COLUMNS columns after the other, as far apart as the
 * grid has them; its warps share k: in every round warp w takes the CHUNK elements from (round * WARPS + w) * CHUNK on. Each warp
 * has a ring of STAGES chunks in shared memory, all but one on their way, and waits for others only at the end of its columns,
 * when the next ones are on their way already. The first chunks of b are fetched before the kernels ahead have finished. Lane
 * 4g + t takes elements 8t .. 8t + 7 of half a chunk from column g of b and from rows g and g + 8 of a; two m16n8k16 take them as
 * they are, in an order of k that is the same for both operands. At the end the warps' sums are added in their order, so an
 * output's bits depend neither on m nor on n.
 *
 *   T      f16, bf16
 *   OUT    f16, bf16, f32
 *   WARPS  8, 16
 * Alignment: a, b and their strides are multiples of 8 elements, and so is k, at most 2^30. Shared memory:
 * MM_SMALL_M_SMEM(WARPS) bytes, dynamic. */
#include "mma.cuh"
#include "pdl.cuh"
#include "mm_args.h"

enum { COLUMNS = MM_SMALL_M_COLUMNS, STAGES = MM_SMALL_M_STAGES, GROUPS = COLUMNS / 8, ROWS = 16 };
enum { CHUNK = 64, STAGE = COLUMNS * CHUNK };

/* Where a warp is: its columns, elements of k, and stage. */
struct cursor {
    int64_t column;
    int at, stage;
};

DEVICE struct cursor first_of_warp()
{
    struct cursor c = {(int64_t)blockIdx.x * COLUMNS, (int)threadIdx.x / 32 * CHUNK, 0};
    return c;
}

/* To the next chunk; true from the last of these columns to the first of others. */
DEVICE bool advance(struct cursor &c, const struct mm_args &p)
{
    c.stage = c.stage + 1 == STAGES ? 0 : c.stage + 1;
    c.at += WARPS * CHUNK;
    if (c.at - (int)threadIdx.x / 32 * CHUNK < p.k)
        return false;
    c.at = (int)threadIdx.x / 32 * CHUNK;
    c.column += (int64_t)gridDim.x * COLUMNS;
    return true;
}

/* Where 16 bytes of a column lie in a stage: those that lanes read or write at once, in different banks. */
DEVICE int place(int column, int piece) { return column * CHUNK + (piece ^ (column & 1) << 2) * 8; }

/* Asks for the chunk; what lies outside of b is zero. */
DEVICE void fetch(T *ring, struct cursor &c, const struct mm_args &p)
{
    int column = threadIdx.x % 32 / 8, piece = threadIdx.x % 8, at = c.at + 8 * piece;
    const T *from = (const T *)p.b + (c.column + column) * p.b_n_stride + at;
    uint32_t to = shared_address(ring + c.stage * STAGE + place(column, piece));
    if (c.column < p.n) {
#pragma unroll
        for (int i = 0; i < COLUMNS; i += 4) {
            bool inside = at < p.k && c.column + column + i < p.n;
            cp_async_16(to + i * CHUNK * (int)sizeof(T), inside ? from + i * p.b_n_stride : (const T *)p.b, inside ? 16 : 0);
        }
    }
    cp_async_commit();
    advance(c, p);
}

/* This lane's elements of a chunk of a row of a. */
DEVICE void load_a(uint4 (&x)[2], const struct mm_args &p, int row, int at)
{
#pragma unroll
    for (int c = 0; c < 2; c++) {
        x[c] = make_uint4(0, 0, 0, 0);
        if (row < p.m && at + 32 * c < p.k)
            x[c] = *(const uint4 *)((const T *)p.a + row * p.a_stride + at + 32 * c);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) mm_small_m_sm80(const __grid_constant__ struct mm_args p)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, parity = 0;
    T *ring = (T *)dynamic + warp * STAGES * STAGE;
    float(*partial)[WARPS][ROWS][COLUMNS] = (float(*)[WARPS][ROWS][COLUMNS])((T *)dynamic + WARPS * STAGES * STAGE);
    struct cursor here = first_of_warp(), ahead = here;
    float sum[GROUPS][4] = {};

#pragma unroll 1
    for (int i = 0; i < STAGES - 1; i++)
        fetch(ring, ahead, p);
    pdl_launch();
    pdl_wait();
    while (here.column < p.n) {
        uint4 low[2], high[2];
        load_a(low, p, g, here.at + 8 * t);
        load_a(high, p, g + 8, here.at + 8 * t);
        cp_async_wait<STAGES - 2>();
        __syncwarp();
        fetch(ring, ahead, p);
#pragma unroll
        for (int c = 0; c < 2; c++) {
            uint32_t a0[4] = {low[c].x, high[c].x, low[c].y, high[c].y}, a1[4] = {low[c].z, high[c].z, low[c].w, high[c].w};
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                uint4 w = *(const uint4 *)(ring + here.stage * STAGE + place(8 * i + g, 4 * c + t));
                uint32_t b0[2] = {w.x, w.y}, b1[2] = {w.z, w.w};
                mma_m16n8k16(sum[i], a0, b0, T());
                mma_m16n8k16(sum[i], a1, b1, T());
            }
        }
        int64_t column = here.column;
        if (!advance(here, p))
            continue;
#pragma unroll
        for (int i = 0; i < GROUPS; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                partial[parity][warp][g + j / 2 * 8][8 * i + 2 * t + j % 2] = sum[i][j];
                sum[i][j] = 0.0f;
            }
        __syncthreads();
        for (int i = threadIdx.x; i < ROWS * COLUMNS; i += 32 * WARPS) {
            int row = i / COLUMNS;
            int64_t n = column + i % COLUMNS;
            if (row < p.m && n < p.n) {
                float y = 0.0f;
#pragma unroll
                for (int j = 0; j < WARPS; j++)
                    y += partial[parity][j][row][i % COLUMNS];
                if (p.bias)
                    y += to_float(((const T *)p.bias)[n]);
                from_float((OUT *)p.out + row * p.out_stride + n, y);
            }
        }
        parity ^= 1;
    }
}
