/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of a pack: every CPU kernel that the named shapes of all ops lead to, with every dtype, but that arguments
 * whose default is another one's dtype keep it, and those of a list. */
#ifndef HARNESS_PACK_H
#define HARNESS_PACK_H

#include "harness/spec_list.h"

/* Adds to the list and writes all of it as a pack, *count kernels. `threads` at once, 0: as many as there are processors. */
flashinfer_status pack_build(struct spec_list *list, const char *level, int threads, const char *path, int *count);

#endif
