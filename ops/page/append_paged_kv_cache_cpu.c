/* SPDX-License-Identifier: Apache-2.0 */
/* append_paged_kv_cache on a CPU: copies the keys and values of tokens into the slots that the page table gives them. A part
 * takes a range of tokens. */
#include "types.h"
#include "append_paged_kv_cache_args.h"

static void copy_heads(char *to, int64_t to_stride, const char *from, int64_t from_stride, int32_t heads, int32_t bytes)
{
    for (int32_t head = 0; head < heads; head++)
        memcpy(to + head * to_stride, from + head * from_stride, (size_t)bytes);
}

void append_paged_kv_cache_cpu(const struct append_paged_kv_cache_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts);
    for (int64_t token = part_begin(a->nnz, part, parts); token < end; token++) {
        int32_t batch = a->batch_indices[token], position = a->positions[token];
        if (batch < 0)
            continue;
        int64_t page = a->kv_indices[a->kv_indptr[batch] + position / a->page_size], slot = position % a->page_size;
        copy_heads((char *)a->k_cache + page * a->k_cache_stride[0] + slot * a->k_cache_stride[1], a->k_cache_stride[2],
                   (const char *)a->key + token * a->key_stride[0], a->key_stride[1], a->num_heads, a->head_bytes);
        copy_heads((char *)a->v_cache + page * a->v_cache_stride[0] + slot * a->v_cache_stride[1], a->v_cache_stride[2],
                   (const char *)a->value + token * a->value_stride[0], a->value_stride[1], a->num_heads, a->head_bytes);
    }
}
