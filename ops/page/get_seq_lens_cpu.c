/* SPDX-License-Identifier: Apache-2.0 */
/* get_seq_lens on a CPU: lengths of requests from their page tables. A part takes a range of requests. */
#include "types.h"
#include "get_seq_lens_args.h"

void get_seq_lens_cpu(const struct get_seq_lens_args *a, int part, int parts)
{
    int64_t begin = part_begin(a->batch_size, part, parts), count = part_begin(a->batch_size, part + 1, parts) - begin;
    int32_t *restrict lens = a->seq_lens + begin, page_size = a->page_size;
    const int32_t *indptr = a->kv_indptr + begin, *last = a->kv_last_page_len + begin;
    for (int64_t i = 0; i < count; i++) { /* as seq_len, without a branch, so that the compiler makes vectors of it */
        int32_t pages = indptr[i + 1] - indptr[i], len = (pages - 1) * page_size + last[i];
        lens[i] = pages > 0 ? len : 0;
    }
}
