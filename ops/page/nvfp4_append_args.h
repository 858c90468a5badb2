/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the nvfp4_append kernels. */
#ifndef NVFP4_APPEND_ARGS_H
#define NVFP4_APPEND_ARGS_H

#include "paged.h"

enum { NVFP4_BLOCK = 16 };

/* Keys or values. Strides of caches are between pages, slots and heads, in bytes. */
struct nvfp4_half {
    const void *from;       /* [nnz, num_heads, blocks * NVFP4_BLOCK] T */
    uint8_t *codes;         /* [pages, page_size, num_heads, blocks * NVFP4_BLOCK / 2] */
    uint8_t *scales;        /* [pages, page_size, num_heads, blocks] */
    int64_t from_stride[2]; /* between tokens, heads; in elements */
    int64_t codes_stride[3], scales_stride[3];
    const float *scale; /* [1], of all keys or all values; NULL: scale_value */
    float scale_value;
};

struct nvfp4_append_args {
    struct nvfp4_half half[2];
    int64_t nnz;
    uint32_t num_heads, blocks; /* blocks: of a head */
    struct paged_tokens tokens;
    const void *slot_mapping; /* [nnz] SLOT; with MAPPED */
    int64_t num_slots;        /* of the cache */
};

#endif
