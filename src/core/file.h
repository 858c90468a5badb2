/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files. False on failure, with errno set. */
#ifndef CORE_FILE_H
#define CORE_FILE_H

#include "core/text.h"

/* Adds the contents of a regular file. */
bool file_read(const char *path, struct text *out);

/* Writes all of it to an open file. */
bool file_write(int file, const void *data, size_t size);

#endif
