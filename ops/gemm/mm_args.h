/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the mm kernels: out = a @ b + bias. */
#ifndef MM_ARGS_H
#define MM_ARGS_H

#include "integers.h"

/* Constant LOADER of mm_sm80: what its 16-byte copies may take for granted. */
#define MM_ANY_STRIDES 0
#define MM_COLUMNS_CONTIGUOUS 1 /* of b */
#define MM_ROWS_CONTIGUOUS 2    /* of b */

/* mm_small_m_sm80: columns and outputs of a tile, elements of k of a chunk and of each block of a cluster, and bytes of shared
 * memory, where sums of so many tiles are kept. */
#define MM_SMALL_M_COLUMNS 16
#define MM_SMALL_M_OUTPUTS (16 * MM_SMALL_M_COLUMNS)
#define MM_SMALL_M_CHUNK 64
#define MM_SMALL_M_PART(k, blocks) (((k) + (blocks) * MM_SMALL_M_CHUNK - 1) / ((blocks) * MM_SMALL_M_CHUNK) * MM_SMALL_M_CHUNK)
#define MM_SMALL_M_SMEM(warps, stages, sums) \
    (2 * (warps) * (stages) * MM_SMALL_M_COLUMNS * MM_SMALL_M_CHUNK + 4 * (2 * (warps) + (sums)) * MM_SMALL_M_OUTPUTS)

/* mm_cpu: columns of a panel, and the most rows of a block. */
#define MM_CPU_COLUMNS 48
#define MM_CPU_ROWS 256

struct mm_args {
    void *out;                        /* [m, n] OUT, columns contiguous */
    const void *a;                    /* [m, k] T, columns contiguous */
    const void *b;                    /* [k, n] T */
    const void *bias;                 /* [n] T; NULL: none */
    int64_t m, n, k;
    int64_t out_stride, a_stride;     /* between rows, in elements */
    int64_t b_k_stride, b_n_stride;   /* between rows and between columns of b, in elements */
};

#endif
