/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops share that quantize keys and values into a paged cache. */
#ifndef NVFP4_APPEND_KERNELS_H
#define NVFP4_APPEND_KERNELS_H

#include "flashinfer/page.h"
#include "harness/reference.h"
#include "op/op.h"

/* What the ops are seen as. */
struct nvfp4_append_view {
    const DLTensor *cache[2], *cache_sf[2], *append[2]; /* of keys, of values */
    struct paged_tensors paged;                         /* or slot_mapping */
    const DLTensor *slot_mapping;
    flashinfer_number scale[2];
    int32_t kv_layout;
};

extern const struct op_kernel nvfp4_append_kernels[];

void nvfp4_append_reference(const struct reference *r);
void nvfp4_append_cost(const struct call *call, double *bytes, double *operations);

#define NVFP4_CACHE(width) \
    "NHD: pages page_size num_kv_heads " width " | HND: pages num_kv_heads page_size " width, .by = "kv_layout"
#define NVFP4_SCALE .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.001, 9)

#endif
