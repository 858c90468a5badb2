/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors described for the bulk copies of sm_90 and later. */
#ifndef BACKEND_BULK_COPY_H
#define BACKEND_BULK_COPY_H

#include "core/status.h"
#include "core/tensor.h"
#include "tensor_map.h"

enum { TENSOR_MAP_MAX_AXES = 5 };

/* Axes of a view of a tensor's memory, innermost first; the innermost is contiguous. */
struct tensor_map_axis {
    int64_t size, stride; /* stride in elements; that of the first axis is not looked at */
    uint32_t box;         /* elements of this axis that one copy brings */
};

/* Such a view as the driver takes it, in bytes; 0 past its last axis. */
struct tensor_map_view {
    uint64_t address, size[TENSOR_MAP_MAX_AXES], stride[TENSOR_MAP_MAX_AXES - 1];
    uint32_t box[TENSOR_MAP_MAX_AXES];
    uint16_t type, axes;
};

/* NULL if the hardware can walk that view of 1 to 5 axes, which `view` then is, else why not. dtype: f16, bf16 or one of 8
 * bits. */
const char *tensor_map_fit(struct tensor_map_view *view, const void *data, enum dtype dtype, int axes,
                           const struct tensor_map_axis *axis);

/* Likewise, of the same view of another tensor. */
const char *tensor_map_move(struct tensor_map_view *view, const struct tensor_map_view *of, const void *data);

/* Rows of 128 bytes in shared memory, 16-byte chunks swizzled as wgmma takes them; what lies outside reads as 0. Touches no
 * device. */
flashinfer_status tensor_map_encode(struct tensor_map *map, const struct tensor_map_view *view);

#endif
