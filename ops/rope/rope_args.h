/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the rope kernels: what happens to a token is a list of segments, each some heads of a tensor, which are
 * rotated or copied to another one. Pair i of a head turns by position * base * (low + s * (1 - low)) / (2 pi) full turns, where
 * base = ratio^i and s = base * smooth[0] + smooth[1], at least 0 and at most 1. */
#ifndef ROPE_ARGS_H
#define ROPE_ARGS_H

#include "fetch_ahead.h"
#include "paged.h"

enum { ROPE_MAX_SEGMENTS = 5, ROPE_POWERS = 12 };

/* Of a launch: a kernel that knows its number takes no more. */
#ifndef SEGMENTS
#define SEGMENTS ROPE_MAX_SEGMENTS
#endif

struct rope_segment {
    const void *from;       /* [nnz, heads, width] T */
    void *to;               /* the same of OUT, or paged [pages, page_size, heads, width] */
    int64_t from_stride[2]; /* between tokens, heads; in elements, as all strides here */
    int64_t to_stride[3];   /* between tokens or pages, slots, heads */
    int32_t heads, width;
    int32_t pieces; /* of a head, for a GPU's threads: one or two runs of VEC elements, `half` elements apart */
    int32_t half;
    int32_t apart;       /* a thread's heads are so many apart; heads 0 to apart - 1 are first ones of threads */
    int32_t first_piece; /* the pieces of the first heads of all segments are numbered through */
    int32_t paged;
    float scale; /* what fp8 outputs are multiplied with */
};

/* What a kernel's constants leave out is not set. */
struct rope_args {
    int32_t nnz;
    int32_t num_segments, num_rotating; /* num_rotating: segments that rotate; they stand first */
    int32_t num_pairs;
    int32_t pieces, rotating_pieces; /* of a token's first heads */
    int32_t chunk_bits;              /* 2^chunk_bits blocks side by side have pieces of the same token */
    int32_t sharers;                 /* threads that fill the table: one for each pair, with CACHE 2 for each two; 0: none */
    const void *pos_ids;          /* [nnz] POS; without INDPTR */
    const void *indptr, *offsets; /* [batch + 1], [batch] POS; with INDPTR: requests, and the position of their first token */
    int64_t batch;
    const float *cos_sin; /* with CACHE: num_pairs cosines and as many sines for each position */
    int64_t cos_sin_stride;
    double power[ROPE_POWERS]; /* ratio^1, ratio^2, ratio^4, ratio^8, ..., as many as numbers below num_pairs need */
    double low, smooth[2];
    struct fetch_ahead ahead; /* whole tokens of each segment */
    struct paged_tokens tokens; /* with PAGED */
    struct rope_segment segment[SEGMENTS];
};

#endif
