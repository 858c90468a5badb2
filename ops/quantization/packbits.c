/* SPDX-License-Identifier: Apache-2.0 */
/* The op packbits. Its kernels are shared with segment_packbits: packbits_kernels.c. */
#include "ops/quantization/packbits_kernels.h"

#define OP packbits
DIMS(size);

static const struct op_arg args[] = {
    OUT(y, U8, "ceil(size/8)", .flags = DENSE),
    IN(x, BOOL | U8, "size", .fill = MASK),
    ENUM(bitorder, "BIG LITTLE"),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_packbits *a = from;
    *(struct packbits_view *)to = (struct packbits_view){.packed = a->y, .x = a->x, .bitorder = a->bitorder};
}

static const struct op_range ranges[] = {{"size", 0, 100000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "size=111 x:dtype=u8 bitorder=LITTLE"},
    {"one", "size=1 x:dtype=boolean"},
    {"llama_8b_mask", "size=16777216 x:dtype=boolean bitorder=LITTLE"},
    {"vocab", "size=128256 x:dtype=boolean"},
    {"large", "size=268435456 x:dtype=u8 bitorder=LITTLE"},
    {0},
};

DEFINE_OP("quantization", "y = eight elements of x in each byte", .kernels = packbits_kernels, .view = view, .ranges = ranges,
          .shapes = shapes, .reference = packbits_reference);
