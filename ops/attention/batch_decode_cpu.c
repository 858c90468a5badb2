/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode on a CPU. A part is one request, one KV head and up to ROWS of the query heads that read it.
 *
 *   T, HEAD_DIM as in attention_cpu.h */
#include "attention_cpu.h"

void batch_decode_cpu(const struct attention_args *a, int part, int parts)
{
    int tiles = (a->group + ROWS - 1) / ROWS, tile = part % tiles, pair = part / tiles;
    struct task t = {
        .request = pair / a->num_kv_heads, .kv_head = pair % a->num_kv_heads, .qo_len = 1, .row = (int64_t)tile * ROWS};
    t.first_q = t.request;
    t.kv_len = kv_length(a, t.request);
    t.rows = a->group - t.row < ROWS ? a->group - t.row : ROWS;
    attend(a, &t);
    (void)parts;
}
