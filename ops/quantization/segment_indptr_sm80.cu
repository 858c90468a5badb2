/* SPDX-License-Identifier: Apache-2.0 */
/* new_indptr = where segments of bits begin in bytes, each padded to whole ones. One block walks them. */
#include "pdl.cuh"
#include "scan.cuh"
#include "packbits_args.h"

extern "C" __global__ void __launch_bounds__(1024) segment_indptr_sm80(const __grid_constant__ struct packbits_args a)
{
    __shared__ uint64_t scratch[32];
    uint64_t total = 0;
    pdl_launch();
    pdl_wait();
    for (int64_t first = 0; first < a.batch; first += blockDim.x) {
        int64_t segment = first + threadIdx.x;
        uint64_t bytes = segment < a.batch ? ((uint64_t)(a.indptr[segment + 1] - a.indptr[segment]) + 7) / 8 : 0;
        uint64_t before = block_sum_before(bytes, scratch);
        if (segment < a.batch)
            a.new_indptr[segment] = (int32_t)(total + before);
        total += block_sum(bytes, scratch);
    }
    if (threadIdx.x == 0)
        a.new_indptr[a.batch] = (int32_t)total;
}
