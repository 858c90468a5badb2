/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of a grid bring to the L2 cache what blocks that begin later will read: kernels with one read of much memory,
 * whose bytes on their way are bound by registers, come closer to a copy by it. The same text for kernels and their host
 * sides. */
#ifndef FETCH_AHEAD_H
#define FETCH_AHEAD_H

#include "integers.h"

/* Block x fetches for block x + distance if x < blocks. */
struct fetch_ahead {
    uint32_t distance, blocks;
};

#ifndef __CUDACC_RTC__
/* `bytes` of what blocks read are between a block and the one it fetches for. None fetches where that is more than a quarter of
 * the grid, whose first blocks find nothing in the cache. */
static inline struct fetch_ahead fetch_ahead(int64_t bytes, int64_t blocks, int64_t bytes_of_block)
{
    int64_t distance = bytes_of_block ? bytes / bytes_of_block : 0;
    if (distance == 0 || blocks < 4 * distance || blocks > INT32_MAX)
        return (struct fetch_ahead){0, 0};
    return (struct fetch_ahead){(uint32_t)distance, (uint32_t)(blocks - distance)};
}
#endif

#endif
