/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the nvfp4_kv_dequantize_paged kernels. */
#ifndef NVFP4_KV_DEQUANTIZE_PAGED_ARGS_H
#define NVFP4_KV_DEQUANTIZE_PAGED_ARGS_H

#include "integers.h"

/* Keys or values: codes and scales in pages, what they become, and strides between pages, slots and heads, or requests,
 * positions and heads. */
struct paged_half {
    const uint8_t *codes, *scales; /* [.., head_dim / 2], [.., head_dim / 16] */
    void *out;                     /* [batch, max_seq_len, num_kv_heads, head_dim] T */
    int64_t codes_stride[3], scales_stride[3], out_stride[3];
    const float *scale; /* [1]; NULL: scale_value */
    float scale_value;
};

struct nvfp4_kv_dequantize_paged_args {
    struct paged_half half[2];
    const int32_t *block_tables; /* [batch, max_pages] */
    const int32_t *seq_lens;     /* [batch] */
    int64_t tables_stride;
    int64_t batch, max_seq_len, num_kv_heads, head_dim, page_size, num_pages;
};

/* The page of a position, or -1 where the request has none. Positions and page_size are of 31 bits. */
ANYWHERE int64_t page_of(const struct nvfp4_kv_dequantize_paged_args *a, int64_t request, int64_t position)
{
    if (position >= a->seq_lens[request])
        return -1;
    int64_t page = a->block_tables[request * a->tables_stride + (uint32_t)position / (uint32_t)a->page_size];
    return page < a->num_pages ? page : -1;
}

#endif
