/* SPDX-License-Identifier: Apache-2.0 */
/* mm with at most 16 rows of a: out[m][n] = dot(a[m], b[n]) + bias[n], where each column of b is contiguous
 * (the weights of a decoder).
 *
 * What limits it is reading b, once. A block takes 8 * GROUPS columns; its warps share k: in every round,
 * warp w takes the CHUNKS chunks of 32 elements from (round * WARPS + w) * CHUNKS on, and each lane keeps all
 * its 16-byte loads of the next round in flight while it multiplies this one. Lane 4g + t loads elements 8t
 * .. 8t + 7 of a chunk from column g of b and from rows g and g + 8 of a; two m16n8k16 take them as they are,
 * in an order of k that is the same for both operands. The first round of b is fetched before the kernels
 * ahead have finished. At the end the warps' sums are added in their order, so an output's bits depend
 * neither on m nor on n.
 *
 *   T       f16, bf16
 *   OUT     f16, bf16, f32
 *   WARPS   1..16
 *   CHUNKS  1..4
 *   GROUPS  1, 2
 * Alignment: a, b and their strides are multiples of 8 elements, and so is k. Shared memory: 512 * WARPS *
 * GROUPS bytes. */
#include "mma.cuh"
#include "pdl.cuh"
#include "mm_args.h"

enum { COLUMNS = 8 * GROUPS, ROWS = 16, CHUNK = 32 };

/* This lane's elements of one round of b: columns column + 8i + g. */
DEVICE void load_b(uint32_t (&w)[CHUNKS][GROUPS][4], const struct mm_args &p, int64_t column, int64_t at)
{
    const T *b = (const T *)p.b;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            if (at + c * CHUNK < p.k && column + 8 * i < p.n)
                load_constant_16(w[c][i], b + (column + 8 * i) * p.b_n_stride + at + c * CHUNK);
            else
                w[c][i][0] = w[c][i][1] = w[c][i][2] = w[c][i][3] = 0;
        }
}

/* This lane's elements of one round of a row of a. */
DEVICE void load_a(uint4 (&x)[CHUNKS], const struct mm_args &p, int64_t row, int64_t at)
{
    const T *a = (const T *)p.a + row * p.a_stride;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        x[c] = make_uint4(0, 0, 0, 0);
        if (row < p.m && at + c * CHUNK < p.k)
            x[c] = *(const uint4 *)(a + at + c * CHUNK);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) mm_small_m_sm80(const __grid_constant__ struct mm_args p)
{
    __shared__ float partial[WARPS][ROWS][COLUMNS];
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    int64_t first = (int64_t)blockIdx.x * COLUMNS, column = first + g;
    int64_t at = (int64_t)warp * CHUNKS * CHUNK + 8 * t;
    float sum[GROUPS][4] = {};
    uint32_t w[CHUNKS][GROUPS][4];

    load_b(w, p, column, at);
    pdl_launch();
    pdl_wait();
    for (; at - 8 * t < p.k; at += WARPS * CHUNKS * CHUNK) {
        uint32_t next[CHUNKS][GROUPS][4];
        uint4 low[CHUNKS], high[CHUNKS];
        load_a(low, p, g, at);
        load_a(high, p, g + 8, at);
        load_b(next, p, column, at + WARPS * CHUNKS * CHUNK);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            uint32_t a0[4] = {low[c].x, high[c].x, low[c].y, high[c].y};
            uint32_t a1[4] = {low[c].z, high[c].z, low[c].w, high[c].w};
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                uint32_t b0[2] = {w[c][i][0], w[c][i][1]}, b1[2] = {w[c][i][2], w[c][i][3]};
                mma_m16n8k16(sum[i], a0, b0, T());
                mma_m16n8k16(sum[i], a1, b1, T());
#pragma unroll
                for (int j = 0; j < 4; j++)
                    w[c][i][j] = next[c][i][j];
            }
        }
    }

#pragma unroll
    for (int i = 0; i < GROUPS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            partial[warp][g + j / 2 * 8][8 * i + 2 * t + j % 2] = sum[i][j];
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += 32 * WARPS) {
        int row = i / COLUMNS;
        int64_t n = first + i % COLUMNS;
        if (row < p.m && n < p.n) {
            float y = 0.0f;
#pragma unroll
            for (int j = 0; j < WARPS; j++)
                y += partial[j][row][i % COLUMNS];
            if (p.bias)
                y += to_float(((const T *)p.bias)[n]);
            from_float((OUT *)p.out + row * p.out_stride + n, y);
        }
    }
}
