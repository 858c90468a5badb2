/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the TVM-FFI C ABI that bindings/tvm_ffi.c speaks: values as calls pass them, and the functions that it finds with
 * dlsym. tests/abi/tvm_ffi.sh compares it with the real header. */
#ifndef TVM_FFI_ABI_H
#define TVM_FFI_ABI_H

#include <stddef.h>

#include "flashinfer/dlpack.h"

enum ffi_type {
    FFI_NONE = 0,
    FFI_INT = 1,
    FFI_BOOL = 2,
    FFI_FLOAT = 3,
    FFI_POINTER = 4,
    FFI_DATA_TYPE = 5,
    FFI_DEVICE = 6,
    FFI_DLTENSOR = 7,
    FFI_RAW_STRING = 8,
    FFI_SMALL_STRING = 11,
    FFI_STRING = 65,
    FFI_TENSOR = 70
};

/* A value. `size` is the length of a small string, whose bytes lie in `bytes`; else 0. */
struct ffi_any {
    int32_t type;
    uint32_t size;
    union {
        int64_t i;
        double f;
        void *pointer;
        const char *string;
        struct ffi_object *object;
        DLDataType dtype;
        DLDevice device;
        char bytes[8];
    } value;
};

/* What stands before the content of a string or a tensor. */
struct ffi_object {
    uint64_t references;
    int32_t type;
    uint32_t padding;
    void (*deleter)(void *self, int flags);
};

struct ffi_bytes { /* content of a string */
    const char *data;
    size_t size;
};

typedef void (*ffi_raise)(const char *kind, const char *message);                   /* TVMFFIErrorSetRaisedFromCStr */
typedef void *(*ffi_stream)(int32_t device_type, int32_t device_id);                /* TVMFFIEnvGetStream */
typedef int (*ffi_tensor_alloc)(const DLTensor *prototype, struct ffi_object **out); /* TVMFFIEnvTensorAlloc */
typedef int (*ffi_object_release)(struct ffi_object *object);                       /* TVMFFIObjectDecRef */

#endif
