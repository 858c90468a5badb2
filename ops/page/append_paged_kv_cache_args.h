/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the append_paged_kv_cache kernels. The copy knows no dtype: strides are in bytes. */
#ifndef APPEND_PAGED_KV_CACHE_ARGS_H
#define APPEND_PAGED_KV_CACHE_ARGS_H

#include "integers.h"

struct append_paged_kv_cache_args {
    void *k_cache, *v_cache;
    const void *key, *value;          /* [nnz, num_heads, head_bytes] */
    const int32_t *batch_indices;     /* [nnz] */
    const int32_t *positions;         /* [nnz] */
    const int32_t *kv_indices, *kv_indptr;
    int64_t k_cache_stride[3], v_cache_stride[3]; /* between pages, slots, heads */
    int64_t key_stride[2], value_stride[2];       /* between tokens, heads */
    int64_t nnz;
    int32_t num_heads, head_bytes, page_size;
};

#endif
