/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor maps, encoded by the driver. */
#include "backend/bulk_copy.h"

#include "backend/cuda.h"

enum { MAX_AXES = 5, ALIGNMENT = 16 };
enum { TYPE_U8 = 0, TYPE_F16 = 6, TYPE_BF16 = 9, INTERLEAVE_NONE = 0, SWIZZLE_128B = 3, L2_PROMOTION_128B = 2, FILL_ZERO = 0 }; /* of cuda.h */
#define MAX_STRIDE_BYTES (INT64_C(1) << 40)

/* The stride of an axis with one element has no say. */
static bool counts(const struct tensor_map_axis *axis) { return axis->size > 1; }

const char *tensor_map_fit(const void *data, enum dtype dtype, int axes, const struct tensor_map_axis *axis)
{
    const int64_t bytes = dtype_bytes(dtype);
    if ((uintptr_t)data % ALIGNMENT)
        return "a tensor does not begin at a multiple of 16 bytes";
    for (int i = 0; i < axes; i++) {
        const int64_t stride = axis[i].stride;
        if (axis[i].size > UINT32_MAX)
            return "an axis has more elements than bulk copies count";
        if (i > 0 && counts(&axis[i]) && (stride < 0 || stride >= MAX_STRIDE_BYTES / bytes || stride * bytes % ALIGNMENT))
            return "a stride is no multiple of 16 bytes that bulk copies can take";
    }
    return NULL;
}

flashinfer_status tensor_map_encode(struct tensor_map *map, enum dtype dtype, void *data, int axes,
                                    const struct tensor_map_axis *axis)
{
    uint64_t size[MAX_AXES], stride[MAX_AXES];
    uint32_t box[MAX_AXES], step[MAX_AXES] = {1, 1, 1, 1, 1};
    int bytes = dtype_bytes(dtype), type = bytes == 1 ? TYPE_U8 : dtype == DTYPE_F16 ? TYPE_F16 : TYPE_BF16;
    for (int i = 0; i < axes; i++) {
        size[i] = axis[i].size > 0 ? (uint64_t)axis[i].size : 1;
        box[i] = axis[i].box;
        if (i > 0)
            stride[i - 1] = counts(&axis[i]) ? (uint64_t)axis[i].stride * (uint64_t)bytes : ALIGNMENT;
    }
    struct cuda_tensor_map encoded;
    CUDA_TRY(cuda()->tensor_map_tiled(&encoded, type, (uint32_t)axes, data, size, stride, box, step, INTERLEAVE_NONE,
                                      SWIZZLE_128B, L2_PROMOTION_128B, FILL_ZERO),
             "cuTensorMapEncodeTiled");
    for (int i = 0; i < 16; i++)
        map->word[i] = encoded.word[i];
    return FLASHINFER_OK;
}
