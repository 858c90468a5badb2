/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the block_scale_interleave kernels. */
#ifndef BLOCK_SCALE_INTERLEAVE_ARGS_H
#define BLOCK_SCALE_INTERLEAVE_ARGS_H

#include "integers.h"

struct block_scale_interleave_args {
    void *out;         /* [matrices, rows padded to 128, blocks padded to 4] elements in tiles of 128 x 4 */
    const void *input; /* [matrices, rows, blocks] */
    int64_t matrices, rows, blocks;
    int64_t matrix_stride, row_stride; /* of input, in elements */
};

#endif
