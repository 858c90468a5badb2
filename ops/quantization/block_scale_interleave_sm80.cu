/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of a matrix are moved to tiles of 128 rows by 4 columns; padding is 0.
 *
 * Block (x, y, z) has tile rows x and the y-th COLUMNS columns of matrix z. They are read along rows in pieces of VEC elements,
 * and pass through shared memory; then 32 lanes write a tile in order, each four rows that lie 32 apart.
 *
 *   T       u8, or bf16 for any two bytes
 *   VEC     elements of a piece: a power of two; divides columns and strides
 *   ALIGNED 1: out lies at a multiple of 16 bytes
 *   IN_PLACE 1: out is input, where rows are as long as in tiles; a cluster has 128 of them */
#include "cluster.cuh"
#include "pdl.cuh"
#include "vec.cuh"
#include "block_scale_interleave_args.h"

enum { ROWS = 128, COLUMNS = 64 / sizeof(T), THREADS = 256, TILES = COLUMNS / 4, PITCH = COLUMNS + 4 };
enum { PIECES = ROWS * COLUMNS / VEC / THREADS, BY = VEC < 4 ? VEC : 4 };

extern "C" __global__ void __launch_bounds__(THREADS)
    block_scale_interleave_sm80(const __grid_constant__ struct block_scale_interleave_args a)
{
    __shared__ uint4 memory[(ROWS * PITCH * sizeof(T) + 15) / 16];
    T *tiles = (T *)memory;
    int64_t row_tiles = (a.blocks + 3) / 4, first_row = (int64_t)blockIdx.x * ROWS, first_column = (int64_t)blockIdx.y * COLUMNS;
    const T *input = (const T *)a.input + blockIdx.z * a.matrix_stride + first_row * a.row_stride + first_column;
    T *out = (T *)a.out + ((blockIdx.z * (int64_t)gridDim.x + blockIdx.x) * row_tiles + blockIdx.y * TILES) * 512;
    vec<T, VEC> piece[PIECES] = {};

    pdl_launch();
    pdl_wait();
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int at = (i * THREADS + threadIdx.x) * VEC, row = at / COLUMNS, column = at % COLUMNS;
        if (first_row + row < a.rows && first_column + column < a.blocks)
            piece[i] = load_vec<VEC>(input + row * a.row_stride + column);
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int at = (i * THREADS + threadIdx.x) * VEC;
        store_vec_by<BY>(tiles + at / COLUMNS * PITCH + at % COLUMNS, piece[i]);
    }
#if IN_PLACE
    cluster_sync();
#else
    __syncthreads();
#endif
    for (int tile = threadIdx.x / 32; tile < TILES && (int)blockIdx.y * TILES + tile < row_tiles; tile += THREADS / 32) {
        int row = threadIdx.x % 32;
        vec_accesses<T, 16, 4> four;
#pragma unroll
        for (int i = 0; i < 4; i++)
            four.at[i] = load_vec<4>(tiles + (row + 32 * i) * PITCH + tile * 4);
        store_vec_by<(ALIGNED ? 16 / sizeof(T) : 1)>(out + tile * 512 + row * 16, four.all);
    }
}
