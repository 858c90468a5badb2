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

/* By all threads of all blocks: nobody leaves while another reads what it has. */
DEVICE void cluster_leave()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

/* Where, in the shared memory of a block of the cluster, lies what lies at `at` in this one's. */
DEVICE uint32_t cluster_address(const void *at, int block)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((uint32_t)__cvta_generic_to_shared(at)), "r"(block));
    return there;
}

/* What lies there. */
DEVICE uint32_t cluster_load(const uint32_t *at, int block)
{
    uint32_t there = cluster_address(at, block), x;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(there) : "memory");
    return x;
}

DEVICE float cluster_load(const float *at, int block) { return __uint_as_float(cluster_load((const uint32_t *)at, block)); }

DEVICE void cluster_load(float2 &x, uint32_t there)
{
    asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(there));
}

DEVICE void cluster_load(float4 &x, uint32_t there)
{
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(there));
}

/* Sets what lies there. */
DEVICE void cluster_store(float *at, int block, float x)
{
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(cluster_address(at, block)), "f"(x) : "memory");
}

#endif
