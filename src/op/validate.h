/* SPDX-License-Identifier: Apache-2.0 */
/* What the `validate` of ops shares: bringing integers that lie on the call's device to the host, and the rules that several ops
 * have for them. Each rule that is broken leaves a sentence with the argument, the entry and its value. */
#ifndef OP_VALIDATE_H
#define OP_VALIDATE_H

#include "op/op.h"
#include "op/paged_tensors.h"

/* A copy of a tensor of 32-bit integers as it is after all earlier work of the call's stream, for which this waits. The elements
 * must lie one after the other, as those of 1-D tensors do that are not declared STRIDED. The caller frees *out, after failure
 * too. */
flashinfer_status validate_fetch(const struct call *call, const DLTensor *tensor, int32_t **out);

/* The same for integers of 32 or 64 bits, as 64 bits. */
flashinfer_status validate_fetch_wide(const struct call *call, const DLTensor *tensor, int64_t **out);

/* 0 = indptr[0] <= indptr[1] <= ... <= indptr[batch] <= limit */
flashinfer_status validate_indptr(const struct call *call, const char *name, const int32_t *indptr, int64_t batch, int64_t limit,
                                  const char *limit_name);

/* The same of a tensor of 32 or 64 bits on the call's device, which may be NULL. */
flashinfer_status validate_starts(const struct call *call, const char *name, const DLTensor *starts, int64_t limit,
                                  const char *limit_name);

/* rows[i] < the first axis of the pool; below 0 is no row. Either may be NULL. */
flashinfer_status validate_rows(const struct call *call, const char *name, const DLTensor *rows, const DLTensor *pool,
                                const char *limit_name);

/* 0 <= indices[i] < limit */
flashinfer_status validate_indices(const struct call *call, const char *name, const int32_t *indices, int64_t count,
                                   int64_t limit, const char *limit_name);

/* A sound page table, which has a slot for each token that has a request. cache: the argument that has so many pages. */
flashinfer_status validate_paged_tokens(const struct call *call, const struct paged_tensors *t, int64_t pages, int64_t page_size,
                                        const char *cache);

#endif
