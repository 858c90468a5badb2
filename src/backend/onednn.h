/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN (libdnnl), versions 2 and 3, opened with dlopen when it is first asked for. It runs on threads of
 * its own. */
#ifndef BACKEND_ONEDNN_H
#define BACKEND_ONEDNN_H

#include "backend/matmul.h"
#include "core/status.h"

/* NULL if oneDNN can be used, else why not. */
const char *onednn_missing(void);

struct onednn_plan;

/* How oneDNN does products of that shape; made once for each. NULL, or why it does not. */
const char *onednn_plan(const struct matmul_shape *shape, struct onednn_plan **out);

flashinfer_status onednn_run(struct onednn_plan *plan, const struct matmul_data *data);

#endif
