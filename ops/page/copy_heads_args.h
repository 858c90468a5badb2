/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the copy_heads kernels. The copy knows no dtype: widths and strides are in bytes. */
#ifndef COPY_HEADS_ARGS_H
#define COPY_HEADS_ARGS_H

#include "fetch_ahead.h"
#include "paged.h"

enum { COPY_MAX_SEGMENTS = 2 };

/* Heads of a token that are copied from a tensor to another one, or to a paged cache. */
struct copy_segment {
    const void *from;       /* [nnz, heads, width] */
    void *to;               /* the same, or [pages, page_size, heads, width] */
    int64_t from_stride[2]; /* between tokens, heads */
    int64_t to_stride[3];   /* between tokens or pages, slots, heads */
    int64_t heads, width;
    uint32_t pieces;      /* of a head, of BYTES bytes each */
    uint32_t first_piece; /* number of its first piece: those of all heads are counted through both segments */
};

struct copy_heads_args {
    struct copy_segment segment[COPY_MAX_SEGMENTS];
    int64_t nnz;
    uint32_t pieces; /* of a token */
    struct fetch_ahead ahead; /* whole tokens of both segments */
    struct paged_tokens tokens; /* with PAGED */
};

#endif
