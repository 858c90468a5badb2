/* SPDX-License-Identifier: Apache-2.0 */
/* The op segment_packbits. Its kernels are shared with packbits: packbits_kernels.c. */
#include <stdlib.h>

#include "op/validate.h"
#include "ops/quantization/packbits_kernels.h"

#define OP segment_packbits
DIMS(size, batch, bytes);

static const struct op_arg args[] = {
    OUT(y, U8, "bytes", .flags = DENSE),    OUT(new_indptr, I32, "batch+1"),
    IN(x, BOOL | U8, "size", .fill = MASK), IN(indptr, I32, "batch+1", .fill = INDPTR("size")),
    ENUM(bitorder, "BIG LITTLE"),           {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_segment_packbits *a = from;
    *(struct packbits_view *)to = (struct packbits_view){
        .packed = a->y, .new_indptr = a->new_indptr, .x = a->x, .indptr = a->indptr, .bitorder = a->bitorder};
}

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_segment_packbits *a = call_args(call);
    const struct dims *d = call_dims(call);
    int32_t *indptr = NULL;
    flashinfer_status status = validate_fetch(call, a->indptr, &indptr);
    if (!status)
        status = validate_indptr(call, "indptr", indptr, d->batch, d->size, "size");
    free(indptr);
    return status;
}

static const struct op_range ranges[] = {{"size", 0, 20000, 0}, {"batch", 0, 100, 0}, {"bytes", 0, 3000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "size=111 batch=5 bytes=20 x:dtype=u8 bitorder=LITTLE"},
    {"llama_8b_masks", "size=16777216 batch=16 bytes=2097168 x:dtype=boolean bitorder=LITTLE"},
    {"trees", "size=1048576 batch=256 bytes=131328 x:dtype=boolean bitorder=LITTLE"},
    {"bounded", "size=1000 batch=3 bytes=4096 x:dtype=boolean"},
    {"large", "size=268435456 batch=8 bytes=33554440 x:dtype=u8 bitorder=LITTLE"},
    {0},
};

DEFINE_OP("quantization", "y = eight elements of x in each byte, each segment in whole bytes", .kernels = packbits_kernels,
          .view = view, .validate = validate, .ranges = ranges, .shapes = shapes, .reference = packbits_reference);
