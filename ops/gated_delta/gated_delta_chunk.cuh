/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels share that take the gated delta rule by chunks of 64 tokens. Rows of q, k and v lie in shared memory in slabs of
 * 64 elements: 64 rows of 128 bytes, whose 16-byte piece c lies at c ^ (row % 8). */
#ifndef GATED_DELTA_CHUNK_CUH
#define GATED_DELTA_CHUNK_CUH

#include "gated_delta_args.h"
#include "types.cuh"

enum { CHUNK = GATED_DELTA_CHUNK, SLAB_BYTES = CHUNK * 128 };

DEVICE int lane_id()
{
    return threadIdx.x % 32;
}
DEVICE int warp_id()
{
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
}

#endif
