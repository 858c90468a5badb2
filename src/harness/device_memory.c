/* SPDX-License-Identifier: Apache-2.0 */
/* Memory on a CPU or a CUDA device. */
#include "harness/device_memory.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda.h"

enum { ALIGNMENT = 256 };

bool device_is_cuda(const struct device *device)
{
    return device && device->id.device_type == kDLCUDA;
}

flashinfer_status device_alloc(const struct device *device, size_t bytes, void **out)
{
    *out = NULL;
    if (!device_is_cuda(device)) {
        *out = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
        return *out ? FLASHINFER_OK : fail(FLASHINFER_MEMORY, "no memory for %zu bytes", bytes);
    }
    const struct cuda *driver;
    cuda_pointer pointer = 0;
    TRY(cuda_get(&driver));
    CUDA_TRY(driver->memory_alloc(&pointer, bytes ? bytes : 1), "cuMemAlloc");
    *out = (void *)(uintptr_t)pointer;
    return FLASHINFER_OK;
}

void device_free(const struct device *device, void *memory)
{
    if (!device_is_cuda(device))
        free(memory);
    else if (memory)
        cuda()->memory_free((cuda_pointer)(uintptr_t)memory);
}

flashinfer_status device_upload(const struct device *device, void *to, const void *from, size_t bytes)
{
    if (!device_is_cuda(device))
        memcpy(to, from, bytes);
    else if (bytes) {
        CUDA_TRY(cuda()->copy_to_device((cuda_pointer)(uintptr_t)to, from, bytes), "cuMemcpyHtoD");
        return device_wait(device);
    }
    return FLASHINFER_OK;
}

flashinfer_status device_download(const struct device *device, void *to, const void *from, size_t bytes)
{
    if (!device_is_cuda(device))
        memcpy(to, from, bytes);
    else if (bytes)
        CUDA_TRY(cuda()->copy_to_host(to, (cuda_pointer)(uintptr_t)from, bytes), "cuMemcpyDtoH");
    return FLASHINFER_OK;
}

/* Within the device; the memories do not overlap. */
static flashinfer_status copy(const struct device *device, void *to, const void *from, size_t bytes)
{
    if (!device_is_cuda(device)) {
        memcpy(to, from, bytes);
        return FLASHINFER_OK;
    }
    CUDA_TRY(cuda()->copy_async((cuda_pointer)(uintptr_t)to, (cuda_pointer)(uintptr_t)from, bytes, NULL), "cuMemcpyAsync");
    return device_wait(device);
}

flashinfer_status device_repeat(const struct device *device, void *to, size_t block, size_t all)
{
    for (size_t done = block; done && done < all; done *= 2)
        TRY(copy(device, (unsigned char *)to + done, to, done < all - done ? done : all - done));
    return FLASHINFER_OK;
}

flashinfer_status device_wait(const struct device *device)
{
    if (device_is_cuda(device))
        CUDA_TRY(cuda()->context_synchronize(), "waiting for the kernel");
    return FLASHINFER_OK;
}

flashinfer_status device_enter(const struct device *device)
{
    if (device_is_cuda(device) && device->context)
        CUDA_TRY(cuda()->context_set(device->context), "cuCtxSetCurrent");
    return FLASHINFER_OK;
}
