/* SPDX-License-Identifier: Apache-2.0 */
/* The op batch_prefill_ragged: batch_prefill over keys and values that lie one request behind the other, by the same kernels. */
#include "flashinfer/attention.h"
#include "harness/reference.h"
#include "ops/attention/attention_host.h"

#define OP batch_prefill_ragged
DIMS(total_q, total_kv, batch);

#define TOKENS(head_dim) "NHD: total_kv num_kv_heads " head_dim " | HND: num_kv_heads total_kv " head_dim, .by = "kv_layout"

static const struct op_arg args[] = {
    OUT(out, LIKE(o_data_type), "total_q num_qo_heads head_dim_vo"),
    OUT(lse, F32, "total_q num_qo_heads", .flags = OPTIONAL),
    PLAN_IN(plan),
    IN(q, LIKE(q_data_type), "total_q num_qo_heads head_dim_qk",
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)),
    IN(k, LIKE(kv_data_type), TOKENS("head_dim_qk"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(v, LIKE(kv_data_type), TOKENS("head_dim_vo"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(qo_indptr, I32, "batch+1", .fill = INDPTR("total_q")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("total_kv")),
    IN(packed_custom_mask, U8, "mask_bytes", .flags = OPTIONAL, .required_if = "custom_mask", .fill = MASK),
    IN(mask_indptr, I32, "batch+1", .flags = OPTIONAL, .required_if = "custom_mask", .fill = INDPTR("mask_bytes")),
    IN(prefix_len, I32, "batch", .flags = OPTIONAL, .required_if = "multi_item_scoring",
       .fill = LENGTHS(0, "token_pos_in_items_len")),
    IN(token_pos_in_items, I32, "batch token_pos_in_items_len", .flags = OPTIONAL, .required_if = "multi_item_scoring",
       .fill = LENGTHS(0, "token_pos_in_items_len")),
    IN(max_item_len, I32, "batch", .flags = OPTIONAL, .required_if = "multi_item_scoring"),
    IN(v_indptr, I32, "batch+1", .flags = OPTIONAL, .fill = INDPTR("total_kv")),
    IN(o_indptr, I32, "batch+1", .flags = OPTIONAL, .fill = INDPTR("total_q")),
    NUMBER(q_scale, .value = 1, .shape = "num_qo_heads"),
    NUMBER(k_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(v_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(o_scale, .value = 1, .min = 1e-10, .max = 1e10),
    INT(window_left, .min = -1, .flags = OPTIONAL | HOST),
    IN(sinks, F32, "num_qo_heads", .flags = OPTIONAL),
    IN(k_sf, E4M3, TOKENS("head_dim_qk//16"), .flags = OPTIONAL),
    IN(v_sf, E4M3, TOKENS("head_dim_vo//16"), .flags = OPTIONAL),
    FLAG(return_lse_base_on_e),
    {0},
};

static const char *const rules[] = {"total_q <= max_total_qo", "batch <= max_batch_size", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_batch_prefill_ragged *a = from;
    *(struct attention_view *)to = (struct attention_view){
        .out = a->out,
        .lse = a->lse,
        .q = a->q,
        .k_cache = a->k,
        .v_cache = a->v,
        .qo_indptr = a->qo_indptr,
        .kv_indptr = a->kv_indptr,
        .sinks = a->sinks,
        .packed_custom_mask = a->packed_custom_mask,
        .mask_indptr = a->mask_indptr,
        .prefix_len = a->prefix_len,
        .token_pos_in_items = a->token_pos_in_items,
        .v_indptr = a->v_indptr,
        .o_indptr = a->o_indptr,
        .q_scale = &a->q_scale,
        .k_scale = &a->k_scale,
        .v_scale = &a->v_scale,
        .o_scale = a->o_scale,
        .window_left = &a->window_left,
        .lse_in_base_e = a->return_lse_base_on_e,
    };
}

static const struct op_range ranges[] = {
    {"total_q", 0, 96, 0}, {"batch", 1, 8, 0}, {"total_kv", 0, 400, 0}, {"mask_bytes", 4820, 5820, 0}, {0},
};

/* What these models give. */
#define USUAL                                                                                                                \
    " page_size=1 -packed_custom_mask -mask_indptr -prefix_len -token_pos_in_items -max_item_len -v_indptr -o_indptr -sinks" \
    " -k_sf -v_sf"
#define HEADS(qo, kv, dim) " num_qo_heads=" #qo " num_kv_heads=" #kv " head_dim_qk=" #dim
#define LENGTHS_OF(batch, total_q, total_kv) \
    " batch=" #batch " max_batch_size=" #batch " total_q=" #total_q " max_total_qo=" #total_q " total_kv=" #total_kv

static const struct op_shape shapes[] = {
    {"smollm2_135m_short", "q_data_type=bf16 causal=1" HEADS(9, 3, 64) LENGTHS_OF(4, 100, 100) USUAL},
    {"smollm2_135m", "q_data_type=bf16 causal=1" HEADS(9, 3, 64) LENGTHS_OF(4, 1200, 1200) USUAL},
    {"llama_8b", "q_data_type=bf16 causal=1" HEADS(32, 8, 128) LENGTHS_OF(2, 4096, 4096) USUAL},
    {"llama_8b_chunk", "q_data_type=f16 causal=1" HEADS(32, 8, 128) LENGTHS_OF(4, 512, 8192) USUAL},
    {"mha_all", "q_data_type=f16 kv_layout=HND" HEADS(16, 16, 64) LENGTHS_OF(8, 512, 2500) USUAL},
    {"gemma_local",
     "q_data_type=bf16 causal=1 window_left=100 logits_soft_cap=50" HEADS(8, 4, 256) LENGTHS_OF(2, 300, 640) USUAL},
    {"mqa", "q_data_type=bf16 causal=1" HEADS(7, 1, 128) LENGTHS_OF(3, 300, 900) USUAL},
    {"deepseek", "q_data_type=bf16 causal=1 head_dim_vo=128" HEADS(16, 16, 192) LENGTHS_OF(2, 600, 900) USUAL},
    {"phi", "q_data_type=f16 causal=1" HEADS(32, 32, 80) LENGTHS_OF(2, 600, 600) USUAL},
    {"all_e4m3",
     "q_data_type=e4m3 o_data_type=bf16 causal=1 q_scale=0.9 k_scale=0.7 v_scale=1.3" HEADS(32, 8, 128) LENGTHS_OF(2, 300, 600)
         USUAL},
    {0},
};

DEFINE_OP("attention", "out = softmax(q k * scale) v over the keys of each request, any number of query tokens each",
          .rules = rules, .view = view, .hooks = ATTENTION_HOOKS,
          .kernels = batch_prefill_kernels, .plan = &op_batch_prefill_plan,
          .validate = attention_validate, .ranges = ranges, .shapes = shapes, .reference = attention_reference,
          .make = attention_make, .cost = attention_cost);
