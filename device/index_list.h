/* SPDX-License-Identifier: Apache-2.0 */
/* Integers of 32 or 64 bits, as a caller has them: offsets of sequences, rows of pools. */
#ifndef INDEX_LIST_H
#define INDEX_LIST_H

#include "integers.h"

/* i32, or i64 if wide. data may be NULL. */
struct index_list {
    const void *data;
    int32_t wide;
};

ANYWHERE int64_t index_at(const struct index_list *list, int64_t i)
{
    return list->wide ? ((const int64_t *)list->data)[i] : ((const int32_t *)list->data)[i];
}

#endif
