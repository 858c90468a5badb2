/* SPDX-License-Identifier: Apache-2.0 */
/* A call by the same values as an earlier one, tensors at the same addresses, is found by these alone: nothing is unpacked, and
 * nothing else is looked at. Strings, pointers and plans are not compared; calls with them are unpacked. */
#ifndef FFI_TOLD_H
#define FFI_TOLD_H

#include "bindings/ffi_call.h"

/* Of a call: what is told of it. */
struct ffi_told {
    const struct op *op;
    const struct ffi_any *values;
    int32_t num_values;
    DLDevice stream_device; /* whose current stream it runs on; 0: none */
};

/* 0: the call cannot be told. */
uint64_t ffi_told_hash(const struct op *op, const struct ffi_any *values, int32_t num_values);

/* call_told.write; context is a struct ffi_told. */
int ffi_told_write(const void *context, uint64_t *words, int max);

/* Whether the call was made again, *status telling what became of it. */
bool ffi_told_again(uint64_t hash, const struct op *op, const struct ffi_environment *environment, const struct ffi_any *values,
                    int32_t num_values, flashinfer_status *status);

#endif
