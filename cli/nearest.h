/* SPDX-License-Identifier: Apache-2.0 */
/* What a misspelt word may have meant. */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

#include "cli/options.h"

/* Each fills the buffer and returns it: "; near it: NAME", or "". Of ops there may be several, and where none is near,
 * or more than eight are, the command that names all. */
const char *nearest_op(const char *word, char *buffer, size_t size);
const char *nearest_option(const struct command *command, const char *word, char *buffer, size_t size);
const char *nearest_command(const char *word, char *buffer, size_t size);

#endif
