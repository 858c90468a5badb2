/* SPDX-License-Identifier: Apache-2.0 */
/* Where the tokens of a batch lie in a paged cache: the same text for kernels on both targets. */
#ifndef PAGED_H
#define PAGED_H

#include "integers.h"

/* Token t has position positions[t] of request batch_indices[t]; below 0: of none. */
struct paged_tokens {
    const int32_t *batch_indices, *positions; /* [nnz] */
    const int32_t *kv_indices, *kv_indptr;
    int64_t page_size;
};

/* page is below 0 for a token of no request. */
struct page_slot {
    int64_t page, slot;
};

/* Of the token at this position of a request. */
ANYWHERE struct page_slot page_slot_at(const struct paged_tokens *p, int32_t batch, int32_t at)
{
    uint32_t position = (uint32_t)at, page_size = (uint32_t)p->page_size, nth = position / page_size;
    struct page_slot s = {-1, position - nth * page_size};
    if (batch >= 0)
        s.page = p->kv_indices[p->kv_indptr[batch] + nth];
    return s;
}

ANYWHERE struct page_slot page_slot_of(const struct paged_tokens *p, int64_t token)
{
    return page_slot_at(p, p->batch_indices[token], p->positions[token]);
}

#endif
