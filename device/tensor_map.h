/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor as the bulk copies of sm_90 see it, encoded by the driver on the host, part of a kernel's argument. */
#ifndef TENSOR_MAP_H
#define TENSOR_MAP_H

#include "integers.h"

struct __attribute__((aligned(64))) tensor_map {
    uint64_t word[16];
};

#endif
