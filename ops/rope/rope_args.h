/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the rope kernels: what happens to a token is a list of segments, each some heads of a tensor, which are
 * rotated or copied to another one. Pair i of a head turns by position * base * (low + s * (1 - low)) / (2 pi) full turns, where
 * base = ratio^i and s = base * smooth[0] + smooth[1], at least 0 and at most 1. */
#ifndef ROPE_ARGS_H
#define ROPE_ARGS_H

#include "fetch_ahead.h"
#include "paged.h"

enum { ROPE_MAX_SEGMENTS = 5, ROPE_POWERS = 12 };

/* CACHE, how a GPU's kernel comes by cosines and sines: it works them out; or reads them, a thread those of a pair for all of its
 * block, or four at once, as rows lie at multiples of 16 bytes; or each thread reads what it needs. */
#define ROPE_WORKED_OUT 0
#define ROPE_CACHED 1
#define ROPE_CACHED_BY_FOUR 2
#define ROPE_CACHED_BY_EACH 3

/* Threads of a GPU's block at most. With outputs of 8 bits blocks are small, so that others load while one waits. */
enum { ROPE_MAX_THREADS = 320, ROPE_MAX_QUANTIZING_THREADS = 160 };

/* Floats that a block's table of cosines takes, and as many that of sines. */
#define ROPE_TABLE_FLOATS(num_pairs) (((num_pairs) + 7) / 4 * 4)

/* Segments that the launch argument has room for: a GPU's kernel is compiled for those of its calls and takes no more. */
#ifndef SEGMENTS
#define SEGMENTS ROPE_MAX_SEGMENTS
#endif

struct rope_segment {
    const void *from;       /* [nnz, heads, width] T */
    void *to;               /* the same of OUT, or paged [pages, page_size, heads, width] */
    int64_t from_stride[2]; /* between tokens, heads; in elements, as all strides here */
    int64_t to_stride[3];   /* between tokens or pages, slots, heads */
    int32_t heads, width;
    int32_t pieces; /* of a head, for a GPU's threads: two runs of VEC elements, or one at its end, `half` elements apart */
    int32_t half;
    int32_t apart;       /* a thread has heads h, h + apart, ...: heads 0 to apart - 1 are threads' first ones */
    int32_t first_piece; /* number of its first piece: those of threads' first heads are counted through all segments */
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
