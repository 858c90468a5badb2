/* SPDX-License-Identifier: Apache-2.0 */
/* What a misspelt word may have meant. */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

#include "cli/options.h"

/* Each fills the buffer and returns it. Ops: their names, at least one. */
const char *nearest_op(const char *word, char *buffer, size_t size);
/* "; near it: NAME", or "". */
const char *nearest_option(const struct command *command, const char *word, char *buffer, size_t size);
const char *nearest_command(const char *word, char *buffer, size_t size);

#endif
