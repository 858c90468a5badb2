/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the get_batch_indices_positions kernels. */
#ifndef GET_BATCH_INDICES_POSITIONS_ARGS_H
#define GET_BATCH_INDICES_POSITIONS_ARGS_H

#include "integers.h"

struct get_batch_indices_positions_args {
    int32_t *batch_indices, *positions; /* [nnz] */
    const int32_t *append_indptr;       /* [batch_size + 1] */
    const int32_t *seq_lens;            /* [batch_size] */
    int64_t nnz;
    int32_t batch_size;
};

#endif
