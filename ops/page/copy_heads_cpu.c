/* SPDX-License-Identifier: Apache-2.0 */
/* copy_heads on a CPU: copies heads of tokens from tensors to others, or into the slots that a page table gives them. A part
 * takes a range of tokens.
 *
 *   PAGED 1: segments lie in a paged cache */
#include "stream.h"
#include "copy_heads_args.h"

/* Heads that lie one after the other in both tensors are one. */
static void copy_heads(char *to, const char *from, const struct copy_segment *s, bool past_caches)
{
    int64_t heads = s->heads, width = s->width;
    if (s->from_stride[1] == width && s->to_stride[2] == width) {
        width *= heads;
        heads = 1;
    }
    for (int64_t head = 0; head < heads; head++)
        write_out(to + head * s->to_stride[2], from + head * s->from_stride[1], width, past_caches);
}

void copy_heads_cpu(const struct copy_heads_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts), bytes = 0;
    for (int i = 0; i < COPY_MAX_SEGMENTS; i++)
        bytes += a->nnz * a->segment[i].heads * a->segment[i].width;
    bool past_caches = streams(bytes);
    for (int64_t token = part_begin(a->nnz, part, parts); token < end; token++) {
        struct page_slot at = {token, 0};
        if (PAGED)
            at = page_slot_of(&a->tokens, token);
        if (at.page < 0)
            continue;
        for (int i = 0; i < COPY_MAX_SEGMENTS; i++) {
            const struct copy_segment *s = &a->segment[i];
            copy_heads((char *)s->to + at.page * s->to_stride[0] + at.slot * s->to_stride[1],
                       (const char *)s->from + token * s->from_stride[0], s, past_caches);
        }
    }
    if (past_caches)
        stream_end();
}
