/* SPDX-License-Identifier: Apache-2.0 */
/* Barriers of some of a block's warps. */
#ifndef BARRIER_CUH
#define BARRIER_CUH

#include "types.cuh"

/* Barriers 1 to 15 of a block; `threads` is a multiple of 32. */
DEVICE void named_barrier_sync(uint32_t id, uint32_t threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif
