/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the kernels of prefill and decode. Strides are in elements. A packed row is a query token and
 * one of the query heads that read the same KV head: row = token * group + head. */
#ifndef ATTENTION_ARGS_H
#define ATTENTION_ARGS_H

#include "integers.h"
#include "tensor_map.h"

enum {
    ATTENTION_CPU_ROWS = 96, /* packed rows of a part of a CPU kernel */
};

/* Of batch_decode_stream_sm80 and _sm90: tokens of a tile whose keys have so many bytes each; bytes of a stage of a warp, a tile
 * of keys and one of values; what all stages are aligned to; whether queries lie in shared memory; bytes of a partial result of
 * so many rows. */
#define ATTENTION_STREAM_TILE(row_bytes) ((row_bytes) <= 128 ? 32 : 16)
#define ATTENTION_STREAM_STAGE_BYTES(row_bytes) (2 * ATTENTION_STREAM_TILE(row_bytes) * (row_bytes))
#define ATTENTION_STREAM_ALIGNMENT 1024
#define ATTENTION_STREAM_QUERIES_SHARED(row_tiles, head_dim) ((row_tiles) == 4 || (row_tiles) * (head_dim) > 256)
#define ATTENTION_STREAM_PART_BYTES(rows, head_dim) ((16 + 8 * (rows) + 4 * (rows) * (head_dim) + 127) / 128 * 128)

/* Of batch_prefill_sm80: tiles of keys and of values in shared memory; columns of values of a block; bytes
 * of a row in shared memory, padded where there is no swizzle; bands of 16 rows of a warp; whether queries lie in shared
 * memory, too; and the dynamic shared memory of a block. */
#define ATTENTION_PREFILL_STAGES 2
#define ATTENTION_PREFILL_COLUMNS(head_dim_vo) ((head_dim_vo) > 256 ? 256 : (head_dim_vo))
#define ATTENTION_ROW_BYTES(head_dim) (2 * (head_dim) + ((head_dim) % 64 ? 16 : 0))
#define ATTENTION_PREFILL_BANDS(tile_q) ((tile_q) == 128 ? 2 : 1)
#define ATTENTION_QUERIES_SHARED(head_dim, tile_q, converts) ((head_dim) > 128 || (tile_q) == 128 || (converts))
#define ATTENTION_PREFILL_SMEM(head_dim, head_dim_vo, tile_q, keys, converts, rope)                                    \
    ((keys) *                                                                                                          \
         (ATTENTION_PREFILL_STAGES *                                                                                   \
              (ATTENTION_ROW_BYTES(head_dim) + ATTENTION_ROW_BYTES(ATTENTION_PREFILL_COLUMNS(head_dim_vo))) + 32) +    \
     (ATTENTION_QUERIES_SHARED(head_dim, tile_q, converts) ? (tile_q) * ATTENTION_ROW_BYTES(head_dim) : 0) +           \
     ((rope) ? 4 * (head_dim) : 0) + (tile_q) / ATTENTION_PREFILL_BANDS(tile_q) / 2 + 192)

/* Of batch_prefill_sm90: warpgroups that compute (special: WINDOW, SOFT_CAP or hooks), keys of a tile, buffers of queries, and
 * the dynamic shared memory of a block. */
#define ATTENTION_PREFILL_WARPGROUPS(head_dim, special) ((head_dim) == 64 && !(special) ? 3 : 2)
#define ATTENTION_PREFILL_KEYS(head_dim, gather, hooks) \
    ((hooks) ? 64 : (head_dim) == 64 && (gather) ? 96 : (head_dim) < 256 ? 128 : (gather) ? 64 : 80)
#define ATTENTION_PREFILL_BUFFERS(head_dim, hooks) ((head_dim) <= 128 && !(hooks) ? 2 : 1)
#define ATTENTION_PREFILL_SM90_SMEM(head_dim, head_dim_vo, warpgroups, gather, hooks)                \
    (ATTENTION_PREFILL_BUFFERS(head_dim, hooks) * (warpgroups) * (128 * (head_dim) + 16) +           \
     4 * ATTENTION_PREFILL_KEYS(head_dim, gather, hooks) * ((head_dim) + (head_dim_vo)) + ((hooks) ? 328 : 304))

/* n / d = n * factor >> shift for 0 <= n < 2^31: shift = 31 + ceil(log2(d)), factor = ceil(2^shift / d). */
struct attention_divisor {
    uint32_t factor, shift;
};

/* The order of a batch's tiles, which batch_prefill_schedule_sm90 writes: entries by falling kv_len. */
struct attention_scheduled {
    int32_t first_q, qo_len, kv_len, first_page;
};
struct attention_schedule {
    int32_t *next;  /* number of the next tile to be taken */
    int32_t *first; /* [batch + 1]: tiles, of one KV head, before each entry */
    struct attention_scheduled *request; /* [batch] */
};

/* What a constant of the generic kernels chooses: what hides logits beside causal and window, and position encodings. */
enum { ATTENTION_MASK_NONE, ATTENTION_MASK_CUSTOM, ATTENTION_MASK_ITEMS };
enum { ATTENTION_POS_NONE, ATTENTION_POS_ROPE, ATTENTION_POS_ALIBI };

enum { ATTENTION_OUT_F32, ATTENTION_OUT_F16, ATTENTION_OUT_BF16, ATTENTION_OUT_E4M3, ATTENTION_OUT_E5M2 };

/* Of the generic kernels only. */
struct attention_modes {
    const int32_t *v_indptr, *o_indptr; /* [batch + 1], instead of kv_indptr for v and of qo_indptr for out; or NULL */
    const uint8_t *mask;                /* bits, the lowest first, or if mask_row is not 0 bytes */
    const int32_t *mask_indptr;         /* [batch + 1]: the byte at which a request's bits start; NULL: one request */
    const int32_t *prefix_len, *token_pos; /* [batch], [batch, token_pos_len] */
    int64_t mask_row, token_pos_row;       /* strides */
    int32_t token_pos_len;
    float lse_factor;             /* lse is in base 2 times this */
    double rope_ratio, rope_unit; /* pair i turns by rope_unit * rope_ratio^i full turns a token */
    int32_t q_scale_step, k_scale_step, v_scale_step; /* 1: a scale for each head; 0: one */
    int32_t out; /* ATTENTION_OUT_, of CPU kernels whose O is not T */
};

/* Of batch_decode_stream_sm80 and _sm90; the last two of batch_prefill_sm90, too. */
struct attention_stream {
    int32_t unit_tiles;  /* tiles that are never divided; 0: as the kernel likes */
    struct attention_divisor by_unit; /* by them, or by 1 */
    int32_t num_parts;   /* partial results that the workspace has room for */
    int32_t num_indices; /* of kv_indices */
    int32_t ahead;       /* 1: it is launched while the kernel before it runs */
};

struct attention_args {
    void *out;         /* [total_q, num_kv_heads * group, head_dim] T */
    float *lse;        /* [total_q, num_kv_heads * group], or NULL */
    const void *q;     /* [total_q, num_kv_heads * group, head_dim] T */
    const void *k, *v; /* pages of T */
    const int32_t *qo_indptr; /* [batch + 1]; NULL: one request of qo_len, or decode */
    const int32_t *kv_indptr; /* [batch + 1]; NULL: one request of kv_len */
    const int32_t *kv_indices, *kv_last_page_len; /* [any], [batch]; NULL: ragged, kv_indptr counts slots of the only page */
    const float *sinks;                                      /* [num_kv_heads * group], or NULL */
    const float *q_scale, *k_scale, *v_scale;                /* one element, or NULL: 1 */
    void *workspace;                                         /* batch_decode_stream_: partial results; any bytes before */
    int64_t out_token, out_head, lse_token, lse_head, q_token, q_head;
    int64_t k_page, k_slot, k_head, v_page, v_slot, v_head;
    float logit_factor, out_factor; /* the scales that are given by value */
    float soft_cap;                 /* 0: none */
    struct attention_divisor by_page_size, by_group;
    int32_t batch, num_kv_heads, group;
    int32_t page_size; /* ragged: more than any token's number */
    int32_t qo_len, kv_len;
    int32_t window_left; /* -1: none */
    int32_t causal;
    struct attention_modes modes;
    struct attention_stream stream;
};

/* batch_decode_stream_sm90. */
struct attention_stream_sm90_args {
    struct tensor_map k, v; /* 128 bytes of head_dim, page_size, all of head_dim, num_kv_heads, pages */
    struct attention_args a;
};

/* batch_prefill_schedule_sm90. */
struct attention_schedule_args {
    struct attention_args a;
    struct attention_schedule schedule;
    int32_t tile_tokens;
    int32_t blocks; /* of the kernel that follows; the first tiles are theirs */
};

/* batch_prefill_sm90: the same seen through bulk copies. */
struct attention_sm90_args {
    struct tensor_map q; /* head_dim, group, num_kv_heads, total_q; a box has 64 elements of group heads of q_tokens */
    /* head_dim, page_size, num_kv_heads, pages; a box has 64 elements of box_tokens. PAGED: 64 elements, 8 tokens, slabs of 64
     * elements, groups of 8 tokens, pages; a box has all of head_dim. */
    struct tensor_map k, v;
    struct attention_args a;
    struct attention_schedule schedule;
    int32_t q_tokens;   /* of a warpgroup: as many as 64 rows hold */
    int32_t box_tokens; /* a multiple of 8 that divides page_size and the keys of a tile; 0: k and v are not used */
    int32_t k_head_slabs, v_head_slabs; /* PAGED: from a head to the next one */
};

#endif
