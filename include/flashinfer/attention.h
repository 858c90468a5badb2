/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over paged and ragged keys and values. What holds for all of it:
 *
 * - A cache is two tensors of pages, k_cache and v_cache; K and V of one fused 5-D cache are two views with strides. Request b
 *   owns the pages kv_indices[kv_indptr[b] .. kv_indptr[b + 1]); its kv_len is 0 without pages, else
 *   (pages - 1) * page_size + kv_last_page_len[b]. Slots at kv_len and beyond may hold anything: they do not matter.
 *   Ragged keys and values are two tensors of tokens, of which request b owns kv_indptr[b] .. kv_indptr[b + 1] - 1.
 * - Query head h reads KV head h / (num_qo_heads / num_kv_heads).
 * - A row is a query token and a head. Of kv_len tokens, token i of qo_len sees token j if, causal, j + qo_len <= kv_len + i,
 *   and if window_left >= 0, j + qo_len + window_left >= kv_len + i.
 * - With a custom mask, causal is ignored: a token sees what window and mask both let it see. With multi-item scoring, causal
 *   holds; a token whose place among all kv_len tokens is n >= prefix_len, and its place in its item p = token_pos_in_items[n -
 *   prefix_len] (0 beyond the end), sees of the tokens from prefix_len on only those above n - p.
 * - logit = q . k * sm_scale * q_scale * k_scale, with ALIBI plus slope * (j - i), where the slopes of heads 0, 1, ... are
 *   2^(-8 (head + 1) / n) for the first n = 2^floor(log2(num_qo_heads)), then 2^(-4 (2 (head - n) + 1) / n); then
 *   logits_soft_cap * tanh(logit / logits_soft_cap) if that is not 0. With ROPE_LLAMA, element e < head_dim_qk / 2 of q and k
 *   and the one half a row later are turned by position / rope_scale * rope_theta^(-2 e / head_dim_qk) first, and rounded to
 *   the dtype that is multiplied. out is the mean of v * v_scale weighted by exp(logit); with sinks, exp(sinks[head]) joins the
 *   sum of the weights.
 * - head_dim (of q and k, and of v) is a multiple of 16 up to 256, or 512. Keys and values have the dtype of q, e4m3 or e5m2.
 *   Those of e2m1 (u8, with k_cache_sf and v_cache_sf, or k_sf and v_sf) are declared, but no kernel serves them: UNSUPPORTED.
 * - 8-bit queries, keys and values are widened (exactly) to 16 bits: that of q, else f16. They never come without k_scale and
 *   v_scale.
 * - lse is the base-2 logarithm of the sum of the weights, or with return_lse_base_on_e the natural one. A row that sees nothing
 *   has out 0 and lse -inf (with sinks, sinks * log2(e)).
 * - Sums are float32; weights may be rounded to the dtype that values are widened to before they multiply it. A NaN in a query
 *   makes its own rows NaN.
 *   A NaN or infinity in a key or a value of a request, or logits beyond the range of float32, may reach every row of that
 *   request, masked or not, and no other request. What window_left hides from all query tokens of a request does not matter:
 *   pages that the window has left may hold anything, though kv_indices still names pages of the cache for them.
 *
 * What has no op of its own:
 * - A batch that mixes prefill and decode is one of batch_prefill: each request has as many query tokens as it likes.
 * - A cascade is a batch_prefill with lse for each level, whose requests are the groups of queries that share a prefix, causal in
 *   the last level only; merge_state puts the levels together.
 * - Block-sparse attention with blocks of R queries and C keys, in BSR form, is batch_prefill: a row of blocks is a request of R
 *   query tokens, a column of blocks a page of C tokens, so that kv_indptr and kv_indices are the matrix' indptr and indices and
 *   each kv_last_page_len is C; a mask inside the blocks is a custom mask. Blocks of various sizes have pages of one token.
 *
 * Attention is planned, then run: the plan holds what the shape of a captured CUDA graph depends on (maxima, heads, dtypes,
 * options) and costs a microsecond on the host; lengths and page tables are read on the device by each run. A graph that holds
 * a run may be replayed with other lengths and other pages, and batches may be padded with requests without pages. */
#ifndef FLASHINFER_ATTENTION_H
#define FLASHINFER_ATTENTION_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rotary or linear position encoding inside the kernel. */
enum {
    FLASHINFER_POS_ENCODING_NONE = 0,
    FLASHINFER_POS_ENCODING_ROPE_LLAMA = 1, /* rotates q at position kv_len - qo_len + i and k at j */
    FLASHINFER_POS_ENCODING_ALIBI = 2
};

/* Plans batch_prefill and batch_prefill_ragged: any number of query tokens per request. Upstream's plan takes the page table
 * too; here run alone does. */
struct flashinfer_batch_prefill_plan {
    size_t size;
    flashinfer_plan *plan;         /* written */
    int64_t max_total_qo;          /* query tokens of one run, >= 1 */
    int32_t max_batch_size;        /* requests of one run, >= 1 */
    int32_t kv_layout;             /* FLASHINFER_NHD, FLASHINFER_HND */
    const DLTensor *qo_indptr;     /* optional, host: [batch + 1] i32, a typical run's; only helps to choose a kernel */
    const DLTensor *kv_indptr;     /* optional, host: [batch + 1] i32, likewise, in pages */
    int32_t num_qo_heads;          /* a multiple of num_kv_heads */
    int32_t num_kv_heads;          /* >= 1 */
    int32_t head_dim_qk;           /* a multiple of 16 up to 256, or 512 */
    int32_t page_size;             /* tokens, >= 1; of no effect in batch_prefill_ragged */
    int32_t head_dim_vo;           /* of v, likewise; 0: head_dim_qk */
    int32_t custom_mask;           /* 1: runs take packed_custom_mask; causal is ignored */
    int32_t causal;                /* 0 or 1 */
    int32_t pos_encoding_mode;     /* FLASHINFER_POS_ENCODING_* */
    int32_t use_fp16_qk_reduction; /* 1: q . k may be summed in f16 */
    double sm_scale;               /* >= 0; 0: 1 / sqrt(head_dim_qk) */
    flashinfer_number window_left; /* tokens to the left of its own that a row sees, or -1: all; absent: -1 */
    double logits_soft_cap;        /* >= 0; 0: off */
    double rope_scale;             /* >= 0; 0: 1 */
    double rope_theta;             /* >= 0; 0: 10000 */
    DLDataType q_data_type;        /* f16, bf16, e4m3, e5m2; zero: f16 */
    DLDataType kv_data_type;       /* f16, bf16, e4m3, e5m2, u8 (two e2m1 a byte); zero: q_data_type */
    DLDataType o_data_type;        /* f16, bf16, f32, e4m3, e5m2; zero: q_data_type */
    int32_t multi_item_scoring;    /* 1: runs take prefix_len, token_pos_in_items and max_item_len */
    int64_t token_pos_in_items_len; /* columns of token_pos_in_items */
    int32_t fixed_split_size;      /* pages; 0: the kernel splits keys and values as it likes; else as disable_split_kv */
    int32_t disable_split_kv;      /* 1: a row's keys and values are never divided, so its bits do not depend on the batch */
};
FLASHINFER_DECLARE_OP(batch_prefill_plan);

/* Attention of any number of query tokens of each request over the pages of its keys and values. */
struct flashinfer_batch_prefill {
    size_t size;
    DLTensor *out;                      /* [total_q, num_qo_heads, head_dim_vo], o_data_type */
    DLTensor *lse;                      /* optional: [total_q, num_qo_heads] f32 */
    const flashinfer_plan *plan;        /* of batch_prefill_plan */
    const DLTensor *q;                  /* [total_q, num_qo_heads, head_dim_qk], q_data_type; total_q <= max_total_qo */
    const DLTensor *k_cache;            /* NHD: [pages, page_size, num_kv_heads, head_dim_qk]; HND: heads before slots;
                                           kv_data_type */
    const DLTensor *v_cache;            /* the same with head_dim_vo */
    const DLTensor *qo_indptr;          /* [batch + 1] i32: request b has the query tokens qo_indptr[b] .. qo_indptr[b + 1] - 1;
                                           starts at 0, ends at most at total_q; rows past its end are not written */
    const DLTensor *kv_indptr;          /* [batch + 1] i32, into kv_indices; starts at 0 */
    const DLTensor *kv_indices;         /* [any] i32: ids of pages */
    const DLTensor *kv_last_page_len;   /* [batch] i32: tokens on the last page, 1 to page_size; any if there is none */
    const DLTensor *packed_custom_mask; /* with custom_mask, [bytes] u8: bit n % 8 (0 is the lowest) of byte n / 8 says whether
                                           token n / kv_len sees token n % kv_len; each request starts on a byte */
    const DLTensor *mask_indptr;        /* with custom_mask, [batch + 1] i32: where each request's bytes start */
    const DLTensor *prefix_len;         /* with multi_item_scoring, [batch] i32: tokens before the first item */
    const DLTensor *token_pos_in_items; /* with multi_item_scoring, [batch, token_pos_in_items_len] i32: places in their items */
    const DLTensor *max_item_len;       /* with multi_item_scoring, [batch] i32; not read: the kernels need no bound */
    flashinfer_number q_scale;          /* >= 0; absent: 1; may be an f32 tensor of 1 or num_qo_heads elements */
    flashinfer_number k_scale;          /* >= 0; absent: 1, if keys have 16 bits; may be an f32 tensor of 1 or num_kv_heads */
    flashinfer_number v_scale;          /* likewise, of values */
    flashinfer_number window_left;      /* by value; absent: the plan's */
    const DLTensor *sinks;              /* optional: [num_qo_heads] f32, natural logits */
    const DLTensor *k_cache_sf;         /* e4m3 scales of 16 elements each, like k_cache with head_dim_qk / 16; of u8 caches */
    const DLTensor *v_cache_sf;         /* likewise */
    double skip_softmax_threshold_scale_factor; /* >= 0; 0: off. Else tiles whose weights all stay small may be left out */
    int32_t return_lse_base_on_e;       /* 1: lse is a natural logarithm */
};
FLASHINFER_DECLARE_OP(batch_prefill);

/* The same over keys and values that lie one token behind the other. */
struct flashinfer_batch_prefill_ragged {
    size_t size;
    DLTensor *out;                      /* [total_q, num_qo_heads, head_dim_vo], o_data_type */
    DLTensor *lse;                      /* optional: [total_q, num_qo_heads] f32 */
    const flashinfer_plan *plan;        /* of batch_prefill_plan */
    const DLTensor *q;                  /* [total_q, num_qo_heads, head_dim_qk], q_data_type; total_q <= max_total_qo */
    const DLTensor *k;                  /* NHD: [total_kv, num_kv_heads, head_dim_qk], kv_data_type; HND: heads before tokens */
    const DLTensor *v;                  /* the same with head_dim_vo */
    const DLTensor *qo_indptr;          /* [batch + 1] i32, as in batch_prefill */
    const DLTensor *kv_indptr;          /* [batch + 1] i32, into the tokens of k and v; starts at 0, ends at most at total_kv */
    const DLTensor *packed_custom_mask; /* these five as in batch_prefill */
    const DLTensor *mask_indptr;
    const DLTensor *prefix_len;
    const DLTensor *token_pos_in_items;
    const DLTensor *max_item_len;
    const DLTensor *v_indptr;           /* optional: [batch + 1] i32, into the tokens of v alone */
    const DLTensor *o_indptr;           /* optional: [batch + 1] i32, into the tokens of out */
    flashinfer_number q_scale;          /* >= 0; absent: 1; may be an f32 tensor of 1 or num_qo_heads elements */
    flashinfer_number k_scale;          /* >= 0; absent: 1, if keys have 16 bits; may be an f32 tensor of 1 or num_kv_heads */
    flashinfer_number v_scale;          /* likewise, of values */
    double o_scale;                     /* 1e-10 to 1e10: out is divided by it; 0: 1 */
    flashinfer_number window_left;      /* by value; absent: the plan's */
    const DLTensor *sinks;              /* optional: [num_qo_heads] f32, natural logits */
    const DLTensor *k_sf;               /* e4m3 scales of 16 elements each, like k with head_dim_qk / 16; of u8 keys */
    const DLTensor *v_sf;               /* likewise */
    int32_t return_lse_base_on_e;       /* 1: lse is a natural logarithm */
};
FLASHINFER_DECLARE_OP(batch_prefill_ragged);

/* Plans batch_decode: one query token, the newest, per request. Upstream's plan takes the page table too; here run alone does. */
struct flashinfer_batch_decode_plan {
    size_t size;
    flashinfer_plan *plan;         /* written */
    int32_t max_batch_size;        /* requests of one run, >= 1 */
    int32_t kv_layout;             /* FLASHINFER_NHD, FLASHINFER_HND */
    const DLTensor *kv_indptr;     /* optional, host: [batch + 1] i32, in pages, a typical run's; only helps to choose a kernel */
    int32_t num_qo_heads;          /* a multiple of num_kv_heads */
    int32_t num_kv_heads;          /* >= 1 */
    int32_t head_dim;              /* a multiple of 16 up to 256, or 512 */
    int32_t page_size;             /* tokens, >= 1 */
    int32_t pos_encoding_mode;     /* FLASHINFER_POS_ENCODING_* */
    flashinfer_number window_left; /* tokens to the left of its own that a row sees, or -1: all; absent: -1 */
    int32_t window_right;          /* of no effect: the newest token has none to its right */
    double logits_soft_cap;        /* >= 0; 0: off */
    DLDataType q_data_type;        /* f16, bf16, e4m3, e5m2; zero: f16 */
    DLDataType kv_data_type;       /* f16, bf16, e4m3, e5m2, u8 (two e2m1 a byte); zero: q_data_type */
    DLDataType o_data_type;        /* f16, bf16, f32, e4m3, e5m2; zero: q_data_type */
    double sm_scale;               /* >= 0; 0: 1 / sqrt(head_dim) */
    double rope_scale;             /* >= 0; 0: 1 */
    double rope_theta;             /* >= 0; 0: 10000 */
    int32_t fixed_split_size;      /* pages; 0: the kernel splits keys and values as it likes; else as disable_split_kv, or, where
                                      exec.kernel names batch_decode_stream_sm80 or _sm90, split at its multiples */
    int32_t disable_split_kv;      /* 1: a row's keys and values are never divided, so its bits do not depend on the batch */
    int32_t q_len_per_req;         /* query tokens per request, causal among themselves; 0: 1 */
};
FLASHINFER_DECLARE_OP(batch_decode_plan);

/* Attention of the newest query token, or tokens, of each request over the pages of its keys and values. */
struct flashinfer_batch_decode {
    size_t size;
    DLTensor *out;                    /* [batch * q_len_per_req, num_qo_heads, head_dim], o_data_type */
    DLTensor *lse;                    /* optional: [batch * q_len_per_req, num_qo_heads] f32 */
    const flashinfer_plan *plan;      /* of batch_decode_plan */
    const DLTensor *q;                /* [batch * q_len_per_req, num_qo_heads, head_dim], q_data_type; batch <= max_batch_size;
                                         a request's tokens are its last, one after the other */
    const DLTensor *k_cache;          /* NHD: [pages, page_size, num_kv_heads, head_dim]; HND: heads before slots; kv_data_type */
    const DLTensor *v_cache;          /* the same */
    const DLTensor *kv_indptr;        /* [batch + 1] i32, into kv_indices; starts at 0 */
    const DLTensor *kv_indices;       /* [any] i32: ids of pages */
    const DLTensor *kv_last_page_len; /* [batch] i32: tokens on the last page, 1 to page_size; any if there is none */
    flashinfer_number q_scale;        /* >= 0; absent: 1; may be an f32 tensor of 1 or num_qo_heads elements */
    flashinfer_number k_scale;        /* >= 0; absent: 1, if keys have 16 bits; may be an f32 tensor of 1 or num_kv_heads */
    flashinfer_number v_scale;        /* likewise, of values */
    flashinfer_number window_left;    /* by value; absent: the plan's */
    const DLTensor *sinks;            /* optional: [num_qo_heads] f32, natural logits */
    const DLTensor *k_cache_sf;       /* e4m3 scales of 16 elements each, like k_cache with head_dim / 16; of u8 caches */
    const DLTensor *v_cache_sf;       /* likewise */
    double skip_softmax_threshold_scale_factor; /* >= 0; 0: off. Else tiles whose weights all stay small may be left out */
    int32_t return_lse_base_on_e;     /* 1: lse is a natural logarithm */
};
FLASHINFER_DECLARE_OP(batch_decode);

/* One request, without a plan: every call takes all options. */
struct flashinfer_single_prefill_with_kv_cache {
    size_t size;
    DLTensor *out;                      /* [qo_len, num_qo_heads, head_dim_vo] f16, bf16, f32, e4m3, e5m2 */
    DLTensor *lse;                      /* optional: [qo_len, num_qo_heads] f32 */
    const DLTensor *q;                  /* [qo_len, num_qo_heads, head_dim_qk] f16, bf16, e4m3, e5m2 */
    const DLTensor *k;                  /* NHD: [kv_len, num_kv_heads, head_dim_qk] f16, bf16, e4m3, e5m2, u8 (two e2m1 a byte);
                                           HND: heads before tokens */
    const DLTensor *v;                  /* the same with head_dim_vo */
    const DLTensor *scale_q;            /* optional: [num_qo_heads] f32, of 8-bit queries */
    const DLTensor *scale_k;            /* optional: [num_kv_heads] f32, of 8-bit keys */
    const DLTensor *scale_v;            /* optional: [num_kv_heads] f32, of 8-bit values */
    const DLTensor *custom_mask;        /* optional: [qo_len, kv_len] bool: which tokens see which; causal is ignored */
    const DLTensor *packed_custom_mask; /* optional: [(qo_len * kv_len + 7) / 8] u8, the same in bits, the lowest first */
    int32_t causal;                     /* 0 or 1 */
    int32_t kv_layout;                  /* FLASHINFER_NHD, FLASHINFER_HND */
    int32_t pos_encoding_mode;          /* FLASHINFER_POS_ENCODING_* */
    int32_t use_fp16_qk_reduction;      /* 1: q . k may be summed in f16 */
    double sm_scale;                    /* >= 0; 0: 1 / sqrt(head_dim_qk) */
    flashinfer_number window_left;      /* tokens to the left of its own that a row sees, or -1: all; absent: -1 */
    double logits_soft_cap;             /* >= 0; 0: off */
    double rope_scale;                  /* >= 0; 0: 1 */
    double rope_theta;                  /* >= 0; 0: 10000 */
    const DLTensor *k_sf;               /* e4m3 scales of 16 elements each, like k with head_dim_qk / 16; of u8 keys */
    const DLTensor *v_sf;               /* likewise */
    flashinfer_number k_scale;          /* >= 0; absent: 1, if keys have 16 bits or scale_k is given; may be an f32 tensor of 1 or
                                           num_kv_heads elements */
    flashinfer_number v_scale;          /* likewise, of values */
    int32_t return_lse_base_on_e;       /* 1: lse is a natural logarithm */
};
FLASHINFER_DECLARE_OP(single_prefill_with_kv_cache);

/* The one query token is the newest. */
struct flashinfer_single_decode_with_kv_cache {
    size_t size;
    DLTensor *out;                 /* [num_qo_heads, head_dim], dtype of q */
    DLTensor *lse;                 /* optional: [num_qo_heads] f32 */
    const DLTensor *q;             /* [num_qo_heads, head_dim] f16, bf16, e4m3, e5m2 */
    const DLTensor *k;             /* NHD: [kv_len, num_kv_heads, head_dim] f16, bf16, e4m3, e5m2; HND: heads before tokens */
    const DLTensor *v;             /* the same */
    int32_t kv_layout;             /* FLASHINFER_NHD, FLASHINFER_HND */
    int32_t pos_encoding_mode;     /* FLASHINFER_POS_ENCODING_* */
    int32_t use_tensor_cores;      /* of no effect: kernels use them where they help */
    flashinfer_number q_scale;     /* >= 0; absent: 1; may be an f32 tensor of 1 or num_qo_heads elements */
    flashinfer_number k_scale;     /* >= 0; absent: 1, if keys have 16 bits; may be an f32 tensor of 1 or num_kv_heads */
    flashinfer_number v_scale;     /* likewise, of values */
    flashinfer_number window_left; /* tokens to the left of its own that the row sees, or -1: all; absent: -1 */
    double logits_soft_cap;        /* >= 0; 0: off */
    double sm_scale;               /* >= 0; 0: 1 / sqrt(head_dim) */
    double rope_scale;             /* >= 0; 0: 1 */
    double rope_theta;             /* >= 0; 0: 10000 */
    int32_t return_lse_base_on_e;  /* 1: lse is a natural logarithm */
};
FLASHINFER_DECLARE_OP(single_decode_with_kv_cache);

/* States: the v and s (the out and lse above) of attention over some of the keys. Merged, they are those of attention over all:
 * s_merged = log2(sum of 2^s), v_merged = sum of 2^(s - s_merged) * v. A state whose s is -inf counts for nothing, whatever its
 * v holds; if all are, v_merged is 0 and s_merged -inf. An s that is NaN or +inf makes its row NaN. */

/* Two states into a third. */
struct flashinfer_merge_state {
    size_t size;
    DLTensor *v_merged;  /* [tokens, num_heads, head_dim], dtype of v_a */
    DLTensor *s_merged;  /* [tokens, num_heads] f32 */
    const DLTensor *v_a; /* [tokens, num_heads, head_dim] f16, bf16 or f32 */
    const DLTensor *s_a; /* [tokens, num_heads] f32, base 2 */
    const DLTensor *v_b; /* like v_a */
    const DLTensor *s_b; /* like s_a */
};
FLASHINFER_DECLARE_OP(merge_state);

/* Another state into one. */
struct flashinfer_merge_state_in_place {
    size_t size;
    DLTensor *v;             /* [tokens, num_heads, head_dim] f16, bf16 or f32; v and s become those of both */
    DLTensor *s;             /* [tokens, num_heads] f32, base 2 */
    const DLTensor *v_other; /* like v */
    const DLTensor *s_other; /* like s */
    const DLTensor *mask;    /* optional: [tokens] bool or u8; tokens with 0 keep their v and s */
};
FLASHINFER_DECLARE_OP(merge_state_in_place);

/* Any number of states of each token. */
struct flashinfer_merge_states {
    size_t size;
    DLTensor *v_merged; /* [tokens, num_heads, head_dim], dtype of v */
    DLTensor *s_merged; /* [tokens, num_heads] f32 */
    const DLTensor *v;  /* [tokens, num_states, num_heads, head_dim] f16, bf16 or f32 */
    const DLTensor *s;  /* [tokens, num_states, num_heads] f32, base 2 */
};
FLASHINFER_DECLARE_OP(merge_states);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_ATTENTION_H */
