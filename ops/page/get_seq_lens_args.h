/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the get_seq_lens kernels. */
#ifndef GET_SEQ_LENS_ARGS_H
#define GET_SEQ_LENS_ARGS_H

#include "integers.h"

struct get_seq_lens_args {
    int32_t *seq_lens;               /* [batch_size] */
    const int32_t *kv_indptr;        /* [batch_size + 1] */
    const int32_t *kv_last_page_len; /* [batch_size] */
    int32_t batch_size, page_size;
};

ANYWHERE int32_t seq_len(const struct get_seq_lens_args *a, int32_t batch)
{
    int32_t pages = a->kv_indptr[batch + 1] - a->kv_indptr[batch];
    return pages > 0 ? (pages - 1) * a->page_size + a->kv_last_page_len[batch] : 0;
}

#endif
