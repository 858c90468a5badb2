/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the block_dequantize kernels. */
#ifndef BLOCK_DEQUANTIZE_ARGS_H
#define BLOCK_DEQUANTIZE_ARGS_H

#include "integers.h"

struct block_dequantize_args {
    void *out;                 /* [rows, columns] T */
    const void *codes;         /* [rows, columns] CODE */
    const uint8_t *scales;     /* bytes in `layout` */
    const float *global_scale; /* [1]; NULL: global_value */
    int64_t rows, columns, blocks;
    int64_t out_stride, code_stride; /* between rows, in elements, pairs of e2m1 being one */
    float global_value;
    int32_t layout;
};

#endif
