/* SPDX-License-Identifier: Apache-2.0 */
/* softmax by a cluster of SOFTMAX_BLOCKS blocks a row: one alone leaves most of the machine idle where rows are few and long.
 * Each adds up what the blocks found in their order, so that all have the same bits. Shared memory: 35 floats. */
#include "cluster.cuh"
#include "reduce.cuh"
#include "scan.cuh"
#include "softmax_args.h"

/* What each block of the cluster found; each of the three is written once. */
struct found {
    float max, sum;
    uint32_t first;
};
DEVICE struct found *found()
{
    __shared__ struct found of_block;
    return &of_block;
}

DEVICE float row_max(float x, float *scratch)
{
    x = block_max(x, scratch);
    if (threadIdx.x == 0)
        found()->max = x;
    cluster_sync();
    for (int block = 0; block < SOFTMAX_BLOCKS; block++)
        x = fmaxf(x, cluster_load(&found()->max, block));
    return x;
}

DEVICE float row_sum(float x, float *scratch)
{
    x = block_sum(x, scratch);
    if (threadIdx.x == 0)
        found()->sum = x;
    cluster_sync();
    x = 0.0f;
    for (int block = 0; block < SOFTMAX_BLOCKS; block++)
        x += cluster_load(&found()->sum, block);
    return x;
}

DEVICE uint32_t row_min(uint32_t x, float *scratch)
{
    x = ~block_max(~x, (uint32_t *)scratch);
    if (threadIdx.x == 0)
        found()->first = x;
    cluster_sync();
    for (int block = 0; block < SOFTMAX_BLOCKS; block++)
        x = min(x, cluster_load(&found()->first, block));
    return x;
}

#include "softmax.cuh"

extern "C" __global__ void __launch_bounds__(1024) softmax_sm90(const __grid_constant__ struct softmax_args a)
{
    __shared__ float scratch[32];
    int64_t part = (a.vocab + SOFTMAX_BLOCKS * VEC - 1) / (SOFTMAX_BLOCKS * VEC) * VEC;
    int64_t begin = blockIdx.x % SOFTMAX_BLOCKS * part, end = begin + part;

    pdl_wait();
    softmax_part(a, blockIdx.x / SOFTMAX_BLOCKS, begin, end < a.vocab ? end : a.vocab, scratch);
    cluster_sync(); /* nobody leaves while another reads what it found */
}
