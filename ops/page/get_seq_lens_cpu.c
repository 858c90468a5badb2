/* SPDX-License-Identifier: Apache-2.0 */
/* get_seq_lens on a CPU: lengths of requests from their page tables. A part takes a range of requests. */
#include "types.h"
#include "get_seq_lens_args.h"

void get_seq_lens_cpu(const struct get_seq_lens_args *a, int part, int parts)
{
    int32_t end = (int32_t)part_begin(a->batch_size, part + 1, parts);
    for (int32_t batch = (int32_t)part_begin(a->batch_size, part, parts); batch < end; batch++)
        a->seq_lens[batch] = seq_len(a, batch);
}
