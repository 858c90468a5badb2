/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of a grid bring to the L2 cache what later blocks will read. A kernel that reads much memory once can have no more
 * bytes on their way than it has registers for; with this it has more, and comes closer to the time of a copy. The same text for
 * kernels and their host sides. */
#ifndef FETCH_AHEAD_H
#define FETCH_AHEAD_H

#include "integers.h"

/* Block x fetches for block x + distance if x < blocks. */
struct fetch_ahead {
    uint32_t distance, blocks;
};

#ifndef __CUDACC_RTC__
/* A block fetches for the one whose input lies so many bytes further on. None fetches if that is more than a quarter of the grid:
 * as many blocks at its beginning find nothing in the cache. */
static inline struct fetch_ahead fetch_ahead(int64_t bytes, int64_t blocks, int64_t bytes_of_block)
{
    int64_t distance = bytes_of_block ? bytes / bytes_of_block : 0;
    if (distance == 0 || blocks < 4 * distance || blocks > INT32_MAX)
        return (struct fetch_ahead){0, 0};
    return (struct fetch_ahead){(uint32_t)distance, (uint32_t)(blocks - distance)};
}
#endif

#endif
