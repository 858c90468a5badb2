/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode on a CPU. A part is one request and some of its KV heads, whose keys and values lie side by side in a page: the
 * parts of a request, parts / batch, share them out. If those are more than its KV heads, a part is ROWS of the query heads
 * that read one.
 *
 *   T, HEAD_DIM as in attention_cpu.h */
#ifdef __AVX512F__ /* whose shuffles and registers it takes */
#define FEW_ROWS 4
#else
#define FEW_ROWS 0
#endif
#include "attention_cpu.h"

void batch_decode_cpu(const struct attention_args *a, int part, int parts)
{
    int per_request = parts / a->batch, piece = part % per_request;
    struct task t = {.request = part / per_request, .kv_heads = 1, .first_q = part / per_request, .qo_len = 1};
    t.kv_len = kv_length(a, t.request);
    if (per_request > a->num_kv_heads) {
        int pieces = per_request / a->num_kv_heads;
        t.kv_head = piece / pieces;
        t.row = piece % pieces * ROWS;
        t.rows = a->group - t.row < ROWS ? a->group - t.row : ROWS;
    } else {
        t.kv_head = (int)part_begin(a->num_kv_heads, piece, per_request);
        t.kv_heads = (int)part_begin(a->num_kv_heads, piece + 1, per_request) - t.kv_head;
        t.rows = a->group;
    }
    attend(a, &t);
}
