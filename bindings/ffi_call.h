/* SPDX-License-Identifier: Apache-2.0 */
/* A call of an op by values: what bindings/tvm_ffi.c does for TVM-FFI, and bindings/python.c for CPython. */
#ifndef FFI_CALL_H
#define FFI_CALL_H

#include "bindings/tvm_ffi_abi.h"
#include "op/op.h"

enum { FFI_OPTIONS = 5 }; /* that may follow the arguments of an op */

/* What a call wants of the framework that its tensors belong to. */
struct ffi_environment {
    void *(*stream)(int32_t device_type, int32_t device_id); /* the current one */
    /* A tensor like prototype: its handle, and where its elements lie. Not 0: none could be allocated. */
    int (*allocate)(const DLTensor *prototype, void **handle, void **data);
    void (*release)(void *handle);
};

/* NULL: the value is no tensor. */
static inline const DLTensor *ffi_tensor(const struct ffi_any *value)
{
    if (value->type == FFI_TENSOR)
        return (const DLTensor *)(value->value.object + 1);
    return value->type == FFI_DLTENSOR ? value->value.pointer : NULL;
}

/* values: the arguments in the order of the declaration, then the options. Their types are those that tvm_ffi.c lists. kind: the
 * exception of Python that a failed call raises, "ValueError"; else as it was. */
flashinfer_status ffi_call(const struct op *op, const struct ffi_environment *environment, const struct ffi_any *values,
                           int32_t num_values, const char **kind);

#endif
