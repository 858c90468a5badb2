/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors that say where new tokens of a batch go in a paged cache, as views of ops hold them. */
#ifndef OP_PAGED_TENSORS_H
#define OP_PAGED_TENSORS_H

#include "core/tensor.h"
#include "paged.h"

struct paged_tensors {
    const DLTensor *batch_indices, *positions, *kv_indices, *kv_indptr; /* NULL: the op writes into no paged cache */
};

/* Of an op's struct. */
#define PAGED_TENSORS_OF(a) {(a)->batch_indices, (a)->positions, (a)->kv_indices, (a)->kv_indptr}

/* The same for a kernel. */
static inline struct paged_tokens paged_tokens_of(const struct paged_tensors *t, int64_t page_size)
{
    return (struct paged_tokens){.batch_indices = tensor_data(t->batch_indices),
                                 .positions = tensor_data(t->positions),
                                 .kv_indices = tensor_data(t->kv_indices),
                                 .kv_indptr = tensor_data(t->kv_indptr),
                                 .page_size = page_size};
}

#endif
