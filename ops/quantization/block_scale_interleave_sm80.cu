/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of a matrix are moved to tiles of 128 rows by 4 columns; padding is 0.
 *
 * A thread moves four neighbours of a row in each of TILES tiles of a row of tiles; its place in a tile is its place in the block of
 * 128 threads, so that a block writes a tile as one piece. Block (x, y, z) has tile rows x and tiles y * TILES on of matrix z.
 *
 *   T       u8, or bf16 for any two bytes
 *   ALIGNED 1: out is a multiple of four elements */
#include "pdl.cuh"
#include "vec.cuh"
#include "block_scale_interleave_args.h"

enum { TILES = 8 };

extern "C" __global__ void __launch_bounds__(128)
    block_scale_interleave_sm80(const __grid_constant__ struct block_scale_interleave_args a)
{
    int64_t tiles = (a.blocks + 3) / 4, first = (int64_t)blockIdx.y * TILES;
    int64_t row = (int64_t)blockIdx.x * 128 + threadIdx.x % 4 * 32 + threadIdx.x / 4;
    const T *input = (const T *)a.input + blockIdx.z * a.matrix_stride + row * a.row_stride;
    T *out = (T *)a.out + ((blockIdx.z * (int64_t)gridDim.x + blockIdx.x) * tiles * 128 + threadIdx.x) * 4;
    vec_elements<T, 4> four[TILES] = {};

    pdl_launch();
    pdl_wait();
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (row < a.rows && (first + i) * 4 + k < a.blocks)
                four[i].at[k] = input[(first + i) * 4 + k];
#pragma unroll
    for (int i = 0; i < TILES; i++)
        if (first + i < tiles) {
#if ALIGNED
            store_vec(out + (first + i) * 512, four[i].all);
#else
#pragma unroll
            for (int k = 0; k < 4; k++)
                out[(first + i) * 512 + k] = four[i].at[k];
#endif
        }
}
