/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that copy heads of tokens, which ops share. */
#ifndef COPY_HEADS_KERNELS_H
#define COPY_HEADS_KERNELS_H

#include "flashinfer/page.h"
#include "harness/reference.h"
#include "op/op.h"

/* A copy into elements first ... first + width of another tensor's heads. */
struct copy_heads_pair {
    const DLTensor *from; /* [nnz, heads, width], [nnz, 1, width] for the same in each head, or [nnz, width] for one head */
    const DLTensor *to; /* [nnz, heads, any], or the cache: [pages, page_size, heads, any], with kv_layout, or [pages, page_size,
                           any] */
    int64_t first;
};

/* What the ops are seen as. */
struct copy_heads_view {
    struct copy_heads_pair pair[2];
    struct paged_tensors paged; /* NULL: `to` is no cache */
    int32_t kv_layout;
};

extern const struct op_kernel copy_heads_kernels[];

flashinfer_status copy_heads_validate(const struct call *call);
void copy_heads_reference(const struct reference *r);
void copy_heads_cost(const struct call *call, double *bytes, double *operations);

#define COPY_DTYPES (F16 | BF16 | F32 | E4M3 | E5M2 | U8 | I8)

#endif
