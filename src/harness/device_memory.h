/* SPDX-License-Identifier: Apache-2.0 */
/* Memory on the device that a problem is put on, with blocking copies. `device` NULL or a CPU: plain memory.
 */
#ifndef HARNESS_DEVICE_MEMORY_H
#define HARNESS_DEVICE_MEMORY_H

#include <stdbool.h>

#include "core/device.h"

bool device_is_cuda(const struct device *device);

/* Aligned to 256 bytes; contents undefined. */
flashinfer_status device_alloc(const struct device *device, size_t bytes, void **out);
void device_free(const struct device *device, void *memory);

flashinfer_status device_upload(const struct device *device, void *to, const void *from, size_t bytes);
flashinfer_status device_download(const struct device *device, void *to, const void *from, size_t bytes);

/* The first `block` bytes of `to` again and again, up to `all`. */
flashinfer_status device_repeat(const struct device *device, void *to, size_t block, size_t all);

/* Waits for all work on the device. */
flashinfer_status device_wait(const struct device *device);

/* Makes the device's context current on this thread. */
flashinfer_status device_enter(const struct device *device);

#endif
