/* SPDX-License-Identifier: Apache-2.0 */
/* Integer sums, maxima and running sums over a warp or a block; every thread gets the result. `scratch` is
 * shared memory for 32 values; each function starts with a barrier, so scratch may be reused at once. */
#ifndef SCAN_CUH
#define SCAN_CUH

#include "types.cuh"

/* In three parts of at most 27 bits, whose sums over 32 lanes fit in 32. */
DEVICE uint64_t warp_sum(uint64_t x)
{
    uint64_t low = __reduce_add_sync(0xffffffffu, (uint32_t)x & 0x7ffffff);
    uint64_t middle = __reduce_add_sync(0xffffffffu, (uint32_t)(x >> 27) & 0x7ffffff);
    uint64_t high = __reduce_add_sync(0xffffffffu, (uint32_t)(x >> 54));
    return low + (middle << 27) + (high << 54);
}

/* The sum over this lane and those before it. */
DEVICE uint64_t warp_running_sum(uint64_t x)
{
#pragma unroll 1
    for (int step = 1; step < 32; step *= 2) {
        uint64_t before = __shfl_up_sync(0xffffffffu, x, step);
        x += threadIdx.x % 32 >= step ? before : 0;
    }
    return x;
}

/* The same of numbers whose sum fits in 32 bits, in fewer instructions. */
DEVICE uint32_t warp_running_count(uint32_t x)
{
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        uint32_t before = __shfl_up_sync(0xffffffffu, x, step);
        x += threadIdx.x % 32 >= step ? before : 0;
    }
    return x;
}

DEVICE uint64_t block_sum(uint64_t x, uint64_t *scratch)
{
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0);
}

DEVICE uint32_t block_max(uint32_t x, uint32_t *scratch)
{
    x = __reduce_max_sync(0xffffffffu, x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return __reduce_max_sync(0xffffffffu, threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0);
}

/* The sum over the threads before this one. */
DEVICE uint64_t block_sum_before(uint64_t x, uint64_t *scratch)
{
    uint64_t running = warp_running_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 31)
        scratch[threadIdx.x / 32] = running;
    __syncthreads();
    uint64_t warps = warp_sum(threadIdx.x % 32 < threadIdx.x / 32 ? scratch[threadIdx.x % 32] : 0);
    return warps + running - x;
}

#endif
