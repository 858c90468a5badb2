/* SPDX-License-Identifier: Apache-2.0 */
/* Where the tensors of a call lie: strides, alignment, devices, overlap. */
#ifndef TESTS_FUZZ_ORACLE_MEMORY_H
#define TESTS_FUZZ_ORACLE_MEMORY_H

#include "op/op.h"

/* One tensor for itself: NULL, or what is wrong. */
const char *oracle_memory(const struct op_arg *arg, const DLTensor *tensor, bool loosely);

/* All tensors together: on the device, and no output where another tensor is. `device` NULL: on whatever device. */
const char *oracle_places(const struct op *op, const void *args, const DLDevice *device);

#endif
