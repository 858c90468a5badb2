/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, and temporary ones. False on failure, or -1 for a descriptor, with errno set. */
#ifndef CORE_FILE_H
#define CORE_FILE_H

#include "core/text.h"

/* Adds the contents of a regular file. */
bool file_read(const char *path, struct text *out);
bool file_read_open(int file, struct text *out);

/* Writes all of it to an open file. */
bool file_write(int file, const void *data, size_t size);

/* Makes and opens a file, or a folder, of a new name in `parent`, to be renamed or removed soon. While the descriptor is open
 * it is locked. One that is not locked belongs to a process that has ended: the next call for the same parent removes it. */
int file_temporary(const char *parent, char *path, size_t size);
int folder_temporary(const char *parent, char *path, size_t size);

/* With the files in it; closes the descriptor. */
void folder_remove(int folder, const char *path);

#endif
