/* SPDX-License-Identifier: Apache-2.0 */
/* Structures of callers, who may have been compiled with a shorter or a longer one. */
#ifndef CORE_STRUCTURE_H
#define CORE_STRUCTURE_H

#include "core/status.h"

/* Copies a structure, which starts with its size, into one of `size` bytes; what the caller's lacks is 0. `what` names it. */
flashinfer_status structure_read(void *out, size_t size, const void *in, const char *what);

#endif
