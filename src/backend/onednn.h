/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN (libdnnl), versions 2 and 3, opened with dlopen when it is first asked for. It runs on threads of
 * its own. */
#ifndef BACKEND_ONEDNN_H
#define BACKEND_ONEDNN_H

#include "backend/matmul.h"
#include "core/status.h"

/* NULL if oneDNN can be used, else why not. */
const char *onednn_missing(void);

/* Whether oneDNN does products of that shape: NULL, or why it does not. Its choice is made once for each of the latest shapes. */
const char *onednn_fit(const struct matmul_shape *shape);

flashinfer_status onednn_run(const struct matmul_shape *shape, const struct matmul_data *data);

#endif
