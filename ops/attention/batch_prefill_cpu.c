/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill on a CPU. A part is a tile of up to ROWS packed rows of one request and one KV head, found from qo_indptr;
 * parts beyond the last tile do nothing. Later rows of causal attention see more: they come first.
 *
 *   T, HEAD_DIM as in attention_cpu.h */
#define FEW_ROWS 0
#include "attention_cpu.h"

void batch_prefill_cpu(const struct attention_args *a, int part, int parts)
{
    struct task t = {.kv_head = part % a->num_kv_heads, .kv_heads = 1};
    int64_t tile = (parts - 1 - part) / a->num_kv_heads;
    for (; t.request < a->batch; t.request++) {
        t.first_q = first_query(a, t.request);
        t.qo_len = first_query(a, t.request + 1) - t.first_q;
        int64_t rows = t.qo_len * a->group, tiles = (rows + ROWS - 1) / ROWS;
        if (tile < tiles) {
            t.kv_len = kv_length(a, t.request);
            t.row = tile * ROWS;
            t.rows = rows - t.row < ROWS ? rows - t.row : ROWS;
            attend(a, &t);
            return;
        }
        tile -= tiles;
    }
}
