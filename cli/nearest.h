/* SPDX-License-Identifier: Apache-2.0 */
/* What a misspelt word may have meant. */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

enum { VARIABLE_NAME = 64 };

/* Fills the buffer with "; near it: NAME, NAME" and returns it; where no op is near, or more than eight are, it names the command
 * that names all. */
const char *nearest_op(const char *word, char *buffer, size_t size);

/* Fills the buffer with "; near it: PREFIXcandidate", unless an earlier candidate is nearer (*least, at first INT_MAX), or the
 * word has little in common with it. */
void nearest_take(const char *word, const char *prefix, const char *candidate, int *least, char *buffer, size_t size);

/* Whether "NAME=VALUE" of the environment looks like a variable of the library's and is none; the buffer then says which one is
 * near, or is empty. */
bool is_unread_variable(const char *setting, char name[VARIABLE_NAME], char *near, size_t size);

#endif
