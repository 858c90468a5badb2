/* SPDX-License-Identifier: Apache-2.0 */
/* get_batch_indices_positions: finds the request of each new token and its position there. A thread per entry, which searches
 * append_indptr by bisection. */
#include "pdl.cuh"
#include "get_batch_indices_positions_args.h"

extern "C" __global__ void __launch_bounds__(128)
    get_batch_indices_positions_sm80(const __grid_constant__ struct get_batch_indices_positions_args a)
{
    int64_t entry = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int batch = -1, position = 0;

    pdl_launch();
    pdl_wait();
    if (entry >= a.nnz)
        return;
    if (entry >= a.append_indptr[0] && entry < a.append_indptr[a.batch_size]) {
        int low = 0, high = a.batch_size; /* append_indptr[low] <= entry < append_indptr[high] */
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (a.append_indptr[middle] <= entry)
                low = middle;
            else
                high = middle;
        }
        batch = low;
        position = (int)entry - a.append_indptr[low + 1] + a.seq_lens[low];
    }
    a.batch_indices[entry] = batch;
    a.positions[entry] = position;
}
