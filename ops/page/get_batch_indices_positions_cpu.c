/* SPDX-License-Identifier: Apache-2.0 */
/* get_batch_indices_positions on a CPU: finds the request of each new token and its position there. A part takes a range of
 * entries and walks along append_indptr. */
#include <stdbool.h>

#include "types.h"
#include "get_batch_indices_positions_args.h"

void get_batch_indices_positions_cpu(const struct get_batch_indices_positions_args *a, int part, int parts)
{
    int32_t *restrict indices = a->batch_indices, *restrict positions = a->positions;
    int64_t entry = part_begin(a->nnz, part, parts), end = part_begin(a->nnz, part + 1, parts);
    for (int32_t batch = -1; batch <= a->batch_size; batch++) {
        /* Before the first request and after the last one there are entries of none. */
        bool is_request = batch >= 0 && batch < a->batch_size;
        int64_t last = batch == a->batch_size ? end : a->append_indptr[batch + 1];
        int32_t offset = is_request ? a->seq_lens[batch] - a->append_indptr[batch + 1] : 0;
        for (; entry < end && entry < last; entry++) {
            indices[entry] = is_request ? batch : -1;
            positions[entry] = is_request ? (int32_t)entry + offset : 0;
        }
    }
}
