/* SPDX-License-Identifier: Apache-2.0 */
/* Sums and maxima over a warp or a block, in a fixed order; every thread gets the result. */
#ifndef REDUCE_CUH
#define REDUCE_CUH

#include "types.cuh"

DEVICE float warp_sum(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

DEVICE float warp_max(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* scratch: 32 floats of shared memory. The first sum of a kernel: nobody has used scratch since the last barrier. */
DEVICE float block_sum_first(float x, float *scratch)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0f);
}

/* These start with a barrier, so scratch may be reused at once. */
DEVICE float block_sum(float x, float *scratch)
{
    __syncthreads();
    return block_sum_first(x, scratch);
}

DEVICE float block_max(float x, float *scratch)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : -INFINITY);
}

#endif
