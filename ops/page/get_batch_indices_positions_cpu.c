/* SPDX-License-Identifier: Apache-2.0 */
/* get_batch_indices_positions on a CPU: finds the request of each new token and its position there. A part takes a range of
 * entries and walks along append_indptr. */
#include "stream.h"
#include "get_batch_indices_positions_args.h"

enum { PIECE = 256 }; /* elements, made in the first cache */

/* to[i] = first + i * step, past the caches. */
static void fill(int32_t *to, int64_t count, int32_t first, int32_t step)
{
    int32_t piece[PIECE];
    for (int64_t at = 0, n; at < count; at += n, first += (int32_t)n * step) {
        n = count - at < PIECE ? count - at : PIECE;
        for (int32_t i = 0; i < (int32_t)n; i++)
            piece[i] = first + i * step;
        stream(to + at, piece, n * (int64_t)sizeof *to);
    }
}

void get_batch_indices_positions_cpu(const struct get_batch_indices_positions_args *a, int part, int parts)
{
    int32_t *restrict indices = a->batch_indices, *restrict positions = a->positions;
    int64_t entry = part_begin(a->nnz, part, parts), end = part_begin(a->nnz, part + 1, parts);
    bool past_caches = streams(a->nnz * (int64_t)sizeof *indices);
    for (int32_t batch = -1; batch <= a->batch_size; batch++) {
        /* Before the first request and after the last one there are entries of none. */
        bool is_request = batch >= 0 && batch < a->batch_size;
        int64_t last = batch == a->batch_size ? end : a->append_indptr[batch + 1];
        int32_t offset = is_request ? a->seq_lens[batch] - a->append_indptr[batch + 1] : 0;
        last = last < end ? last : end;
        if (past_caches && entry < last) {
            fill(indices + entry, last - entry, is_request ? batch : -1, 0);
            fill(positions + entry, last - entry, is_request ? (int32_t)entry + offset : 0, is_request);
            entry = last;
        }
        for (; entry < last; entry++) {
            indices[entry] = is_request ? batch : -1;
            positions[entry] = is_request ? (int32_t)entry + offset : 0;
        }
    }
    if (past_caches)
        stream_end();
}
