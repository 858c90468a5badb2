/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the kernels of batch_prefill and batch_decode. Strides are in elements. A packed row is a query token and
 * one of the query heads that read the same KV head: row = token * group + head. */
#ifndef ATTENTION_ARGS_H
#define ATTENTION_ARGS_H

#include "integers.h"

enum {
    ATTENTION_CPU_ROWS = 96,       /* packed rows of a part of a CPU kernel */
    ATTENTION_DECODE_SMEM = 65536, /* dynamic, of a block of batch_decode_sm80 */
};
#define ATTENTION_DECODE_PART_BYTES(head_dim) (16 * 4 * ((head_dim) + 10) + 16) /* of a partial result */
#define ATTENTION_PREFILL_SMEM(head_dim) (256 * (head_dim) + 2320)             /* dynamic, of a block of batch_prefill_sm80 */

/* n / d = n * factor >> shift for 0 <= n < 2^31: shift = 31 + ceil(log2(d)), factor = ceil(2^shift / d). */
struct attention_divisor {
    uint32_t factor, shift;
};

struct attention_args {
    void *out;         /* [total_q, num_kv_heads * group, head_dim] T */
    float *lse;        /* [total_q, num_kv_heads * group], or NULL */
    const void *q;     /* [total_q, num_kv_heads * group, head_dim] T */
    const void *k, *v; /* pages of T */
    const int32_t *qo_indptr;                                /* [batch + 1]; decode: NULL */
    const int32_t *kv_indptr, *kv_indices, *kv_last_page_len; /* [batch + 1], [any], [batch] */
    const float *sinks;                                      /* [num_kv_heads * group], or NULL */
    const float *q_scale, *k_scale, *v_scale;                /* one element, or NULL: 1 */
    void *workspace;                                         /* batch_decode_sm80: partial results; any bytes before */
    int64_t out_token, out_head, lse_token, lse_head, q_token, q_head;
    int64_t k_page, k_slot, k_head, v_page, v_slot, v_head;
    float logit_factor, out_factor; /* the scales that are given by value */
    float soft_cap;                 /* 0: none */
    struct attention_divisor by_page_size, by_group;
    int32_t batch, num_kv_heads, group, page_size;
    int32_t window_left; /* -1: none */
    int32_t causal;      /* decode: 0 */
    int32_t whole;       /* decode: a request's keys and values are never divided */
};

#endif
