/* SPDX-License-Identifier: Apache-2.0 */
/* Names that users give to kernels, constants and arguments, which become C's. */
#ifndef CORE_IDENTIFIER_H
#define CORE_IDENTIFIER_H

#include <stdbool.h>
#include <string.h>

enum { IDENTIFIER_MAX = 60 };

/* Letters, digits and _, no digit first, 1 to IDENTIFIER_MAX of them. NULL is none. */
static inline bool is_identifier(const char *name)
{
    size_t length = name ? strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") : 0;
    return length > 0 && length <= IDENTIFIER_MAX && !name[length] && !(*name >= '0' && *name <= '9');
}

#endif
