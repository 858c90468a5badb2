/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the block_quantize kernels. */
#ifndef BLOCK_QUANTIZE_ARGS_H
#define BLOCK_QUANTIZE_ARGS_H

#include "integers.h"

/* What a scale is. */
#define SCALE_E4M3 0  /* global_scale * amax / 6 */
#define SCALE_E8M0 1  /* the least power of two that holds the block */
#define SCALE_F32 2   /* amax / LARGEST */
#define SCALE_POWER 3 /* that, rounded up to a power of two, as f32 */

struct block_quantize_args {
    void *out;                 /* [groups, rows, out_columns] codes */
    void *scales;              /* bytes in `layout` for each group, or [rows, blocks] f32 */
    const void *input;         /* [groups, rows, columns] T; GATED: [..., 2 * columns], gates and what they scale */
    const int32_t *mask;       /* [groups]: rows that count; the others are not touched. NULL: all */
    const float *global_scale; /* NULL: global_value */
    int64_t groups, rows, columns;
    int64_t out_columns; /* at least columns: what is added is taken for 0 */
    int64_t blocks;      /* out_columns / BLOCK */
    int64_t scale_rows, scale_blocks; /* rows and blocks, with the padding that is written */
    int64_t out_stride[2], input_stride[2]; /* between groups and rows; out's in bytes, input's in elements */
    int64_t scale_stride[2]; /* bytes: between groups; f32: between rows and blocks, in elements */
    int64_t global_stride[2]; /* between groups and rows; 0: the same */
    float global_value, least_amax;
    int32_t layout, inverse; /* inverse: global_scale is the decoding scale */
};

#endif
