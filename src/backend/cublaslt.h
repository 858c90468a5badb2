/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt, opened with dlopen when it is first asked for: the copy that the process has loaded already, else
 * what the loader finds, else the toolkit's. */
#ifndef BACKEND_CUBLASLT_H
#define BACKEND_CUBLASLT_H

#include "backend/matmul.h"
#include "core/device.h"

enum { CUBLASLT_WORKSPACE = 32 << 20 }; /* more is of no use */

/* NULL if cuBLASLt can be used, else why not. */
const char *cublaslt_missing(void);

/* Whether cuBLASLt does products of that shape on that device, which must exist: NULL, or why it does not. Its choice is made
 * once for each of the latest shapes. Touches no tensor and enqueues nothing. */
const char *cublaslt_fit(const struct matmul_shape *shape, const struct device *device);

flashinfer_status cublaslt_run(const struct matmul_shape *shape, const struct device *device, void *stream,
                               const struct matmul_data *data);

#endif
