/* SPDX-License-Identifier: Apache-2.0 */
/* A growing sequence of bytes, always followed by a NUL. Running out of memory is remembered, and reported
 * once, by text_check. */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

struct text { /* {0} is empty */
    char *data;
    size_t size, capacity;
    bool failed;
};

void text_add(struct text *text, const void *data, size_t size);
void text_print(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for exactly `size` bytes more, which the caller fills; NULL if there is no memory. */
char *text_extend(struct text *text, size_t size);

/* FLASHINFER_MEMORY if anything that was added did not fit into memory. */
flashinfer_status text_check(const struct text *text);

void text_free(struct text *text);

#endif
