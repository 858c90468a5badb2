/* SPDX-License-Identifier: Apache-2.0 */
/* softmax by one block a row. Shared memory: 32 floats. */
#include "reduce.cuh"
#include "scan.cuh"

DEVICE float row_max(float x, float *scratch) { return block_max(x, scratch); }
DEVICE float row_sum(float x, float *scratch) { return block_sum(x, scratch); }
DEVICE uint32_t row_min(uint32_t x, float *scratch) { return ~block_max(~x, (uint32_t *)scratch); }

#include "softmax.cuh"

extern "C" __global__ void __launch_bounds__(1024) softmax_sm80(const __grid_constant__ struct softmax_args a)
{
    __shared__ float scratch[32];
    pdl_wait();
    softmax_part(a, blockIdx.x, 0, a.vocab, scratch);
}
