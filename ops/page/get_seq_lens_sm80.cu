/* SPDX-License-Identifier: Apache-2.0 */
/* get_seq_lens: lengths of requests from their page tables. A thread has a request. */
#include "pdl.cuh"
#include "get_seq_lens_args.h"

extern "C" __global__ void __launch_bounds__(128) get_seq_lens_sm80(const __grid_constant__ struct get_seq_lens_args a)
{
    int batch = blockIdx.x * blockDim.x + threadIdx.x;

    pdl_launch();
    pdl_wait();
    if (batch < a.batch_size)
        a.seq_lens[batch] = seq_len(&a, batch);
}
