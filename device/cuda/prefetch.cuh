/* SPDX-License-Identifier: Apache-2.0 */
/* Brings to the L2 cache what a block that begins later will read: more bytes are on their way than there are registers for, and
 * DRAM reads whole rows of a tensor. Before sm_90 it does nothing. See fetch_ahead.h. */
#ifndef PREFETCH_CUH
#define PREFETCH_CUH

#include "types.cuh"

/* Bytes that lie one after the other; address and `bytes` are multiples of 16. By one thread. */
DEVICE void bulk_prefetch(const void *global, uint32_t bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
#endif
}

#endif
