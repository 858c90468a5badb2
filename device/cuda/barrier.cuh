/* SPDX-License-Identifier: Apache-2.0 */
/* Barriers of some of a block's warps, and what blocks count each other with. */
#ifndef BARRIER_CUH
#define BARRIER_CUH

#include "types.cuh"

/* Barriers 1 to 15 of a block; `threads` is a multiple of 32. */
DEVICE void named_barrier_sync(uint32_t id, uint32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Adds to a counter of all blocks, and gives what it was. Who counts later sees what this thread wrote or saw before. */
DEVICE unsigned long long count_in(unsigned long long *counter, unsigned long long n)
{
    unsigned long long before;
    asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(before) : "l"(counter), "l"(n) : "memory");
    return before;
}

#endif
