/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic of sizes: the counts that grids and workspaces are made of. */
#ifndef CORE_INTEGER_H
#define CORE_INTEGER_H

#include <stdint.h>

/* a / b rounded up; of a >= 0 and b > 0. */
static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Modulo 2^64: for strides, which may be any number where an axis has no two elements. */
static inline int64_t wrapping_product(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}
static inline int64_t wrapping_difference(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
