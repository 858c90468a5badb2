/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels need to know of the device they run on. Devices are found once and stay where they are. */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <stdbool.h>
#include <string.h>

#include "core/status.h"

struct device {
    DLDevice id;        /* kDLCPU 0, or kDLCUDA n */
    int32_t arch;       /* CUDA: 10 * major + minor (90 for Hopper). CPU: 0 */
    int32_t sms;        /* CUDA: streaming multiprocessors. CPU: processors this process may use */
    int32_t smem_block; /* CUDA: bytes of shared memory a block may have. CPU: 0 */
    int32_t smem_sm;    /* CUDA: bytes of shared memory of one multiprocessor. CPU: 0 */
    int64_t l2_bytes;   /* of the last-level cache */
    void *context;      /* CUDA: the primary context, retained; NULL for a device that is only imagined */
    char name[96];      /* "NVIDIA H200"; the CPU's brand */
    char isa[96];       /* CUDA: "sm_90a". CPU: what compiled code depends on: "x86-64-v4 avx512_bf16 " and a hash of
                           all feature bits and the model */
};

/* kDLCPU or kDLCUDA for what is reached like them: pinned and managed memory. */
static inline DLDevice device_canonical(DLDevice id)
{
    switch ((int)id.device_type) {
    case kDLCPU:
    case kDLCUDAHost:
        return (DLDevice){kDLCPU, 0};
    case kDLCUDAManaged:
        return (DLDevice){kDLCUDA, id.device_id};
    default:
        return id;
    }
}

static inline bool device_equal(DLDevice a, DLDevice b)
{
    return !memcmp(&a, &b, sizeof a);
}

/* "cpu", "cuda:1", "device type 4". Returns buffer. */
char *device_text(DLDevice id, char *buffer, size_t size);

/* The device that tensors of this DLPack device live on. */
flashinfer_status device_get(DLDevice id, const struct device **out);

/* A CUDA device of that architecture that need not exist, to choose and compile kernels for it. */
flashinfer_status device_imagine(int32_t arch_number, struct device *out);

#endif
