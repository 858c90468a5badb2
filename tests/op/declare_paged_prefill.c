/* SPDX-License-Identifier: Apache-2.0 */
/* Batch prefill over a paged KV cache: heads, dtypes and layout come from its plan. */
#include "tests/op/declarations.h"

#define OP paged_prefill
DIMS(tokens, batch, pages, num_indices, num_qo_heads, num_kv_heads);

static const struct op_arg args[] = {
    OUT(out, LIKE(o_data_type), "tokens num_qo_heads head_dim_vo"),
    OUT(lse, F32, "tokens num_qo_heads", .flags = OPTIONAL),
    IN(q, LIKE(q_data_type), "tokens num_qo_heads head_dim_qk"),
    IN(k_cache, LIKE(kv_data_type),
       "NHD: pages page_size num_kv_heads head_dim_qk | HND: pages num_kv_heads page_size head_dim_qk", .by = "kv_layout"),
    IN(v_cache, LIKE(kv_data_type),
       "NHD: pages page_size num_kv_heads head_dim_vo | HND: pages num_kv_heads page_size head_dim_vo", .by = "kv_layout"),
    IN(qo_indptr, I32, "batch+1", .flags = DENSE, .fill = INDPTR("tokens")),
    IN(paged_kv_indptr, I32, "batch+1", .flags = DENSE, .fill = INDPTR("num_indices")),
    IN(paged_kv_indices, I32, "num_indices", .flags = DENSE, .fill = BELOW("pages")),
    IN(paged_kv_last_page_len, I32, "batch", .flags = DENSE, .fill = LENGTHS(1, "page_size")),
    IN(custom_mask, U8, "mask_bytes", .flags = OPTIONAL | DENSE, .fill = MASK),
    IN(mask_indptr, I32, "batch+1", .flags = OPTIONAL | DENSE, .fill = INDPTR("mask_bytes"), .required_if = "mask_bytes > 0"),
    IN(sinks, F32, "num_qo_heads", .flags = OPTIONAL),
    NUMBER(q_scale, .value = 1),
    NUMBER(k_scale, .value = 1),
    NUMBER(v_scale, .value = 1),
    PLAN_IN(plan),
    {0},
};

static const char *const rules[] = {"batch <= max_batch_size", "tokens <= max_total_tokens", NULL};

static const struct op_range ranges[] = {{"tokens", 0, 99, 0},      {"batch", 1, 20, 0},      {"pages", 1, 40, 0},
                                         {"num_indices", 0, 60, 0}, {"mask_bytes", 0, 64, 0}, {0}};

DEFINE_OP("attention", "out = softmax(q k^T) v over the pages of each request", .plan = &op_paged_prefill_plan, .rules = rules,
          .ranges = ranges);
