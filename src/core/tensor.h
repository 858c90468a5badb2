/* SPDX-License-Identifier: Apache-2.0 */
/* Reading DLTensors: the few questions that checks and kernels ask of them. */
#ifndef CORE_TENSOR_H
#define CORE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/dtype.h"
#include "core/integer.h"

#define TENSOR_MAX_DIMS 8

/* By way of an integer: NULL may have an offset, of 0 or as a caller got it wrong. */
static inline void *tensor_data(const DLTensor *t) { return (void *)((uintptr_t)t->data + t->byte_offset); }

/* Of an optional tensor: NULL where none is given. */
static inline void *tensor_data_or_null(const DLTensor *t) { return t ? tensor_data(t) : NULL; }

static inline enum dtype tensor_dtype(const DLTensor *t) { return dtype_of(t->dtype); }

static inline bool tensor_is(const DLTensor *t, enum dtype dtype)
{
    const DLDataType type = dtype_dlpack(dtype);
    return !memcmp(&t->dtype, &type, sizeof type);
}

/* Negative axes count from the end. */
static inline int64_t tensor_shape(const DLTensor *t, int axis) { return t->shape[axis < 0 ? axis + t->ndim : axis]; }

int64_t tensor_packed_stride(const DLTensor *t, int axis); /* as if it had no strides */

/* That many elements behind the first; of a tensor without memory nothing that may be read. */
static inline void *tensor_at(const DLTensor *t, int64_t element)
{
    return (void *)((uintptr_t)tensor_data(t) + (uintptr_t)element * (uintptr_t)dtype_bytes(tensor_dtype(t)));
}

/* Stride of an axis in elements; of a tensor without elements, and of an axis of one, any number. */
static inline int64_t tensor_stride(const DLTensor *t, int axis)
{
    axis = axis < 0 ? axis + t->ndim : axis;
    return t->strides ? t->strides[axis] : tensor_packed_stride(t, axis);
}

/* Likewise in bytes, modulo 2^64. */
static inline int64_t tensor_stride_bytes(const DLTensor *t, int axis)
{
    return wrapping_product(tensor_stride(t, axis), dtype_bytes(tensor_dtype(t)));
}

int64_t tensor_elements(const DLTensor *t);

/* True if elements lie one after the other in row-major order; axes of size 0 or 1 have no say. */
bool tensor_is_dense(const DLTensor *t);

/* True if data and every stride but the last are multiples of `bytes`, a power of two. */
bool tensor_is_aligned(const DLTensor *t, int bytes);

/* Sees the leading axes, all but the last `keep`, as one axis. False if no single stride walks them. At most
 * one row has the stride of packed rows. */
bool tensor_rows(const DLTensor *t, int keep, int64_t *rows, int64_t *stride);

/* True if an element of a and one of b, or if b is NULL two different elements of a, share a byte. Exact for
 * views that slice axes of one dense buffer; true when in doubt. Empty tensors overlap nothing, nor does NULL
 * data where two tensors are compared. */
bool tensor_overlap(const DLTensor *a, const DLTensor *b);

/* "[2, 3, 64] f16 on cuda:0", with strides if it is not dense, for sentences. Returns buffer. */
char *tensor_describe(const DLTensor *t, char *buffer, size_t size);

#endif
