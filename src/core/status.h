/* SPDX-License-Identifier: Apache-2.0 */
/* The error sentence of a thread. A function that fails says why exactly once, where it knows most:
 *
 *     return fail(FLASHINFER_INVALID, "rmsnorm: eps is %g, must be at least 0", eps);
 *
 * and callers pass the status on with TRY(). */
#ifndef CORE_STATUS_H
#define CORE_STATUS_H

#include "flashinfer/core.h"

/* Records the sentence for flashinfer_last_error() and returns status. */
flashinfer_status fail(flashinfer_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define TRY(call)                         \
    do {                                  \
        flashinfer_status try_ = (call);  \
        if (try_ != FLASHINFER_OK)        \
            return try_;                  \
    } while (0)

#endif
