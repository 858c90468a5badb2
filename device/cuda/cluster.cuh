/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters of blocks, from sm_90 on: a barrier over one, and shared memory of another block of it. */
#ifndef CLUSTER_CUH
#define CLUSTER_CUH

#include "types.cuh"

/* By all threads of all blocks; what was written to shared memory before is seen after. */
DEVICE void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* What lies in the shared memory of a block of the cluster where `at` lies in this one's. */
DEVICE uint32_t cluster_load(const uint32_t *at, int block)
{
    uint32_t there, x;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((uint32_t)__cvta_generic_to_shared(at)), "r"(block));
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(there) : "memory");
    return x;
}

DEVICE float cluster_load(const float *at, int block) { return __uint_as_float(cluster_load((const uint32_t *)at, block)); }

#endif
