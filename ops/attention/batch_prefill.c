/* SPDX-License-Identifier: Apache-2.0 */
/* The op batch_prefill. Kernels: batch_prefill_sm90.cu, batch_decode_stream_sm90.cu and batch_decode_stream_sm80.cu for few
 * query tokens, batch_prefill_sm80.cu, batch_prefill_cpu.c; their host side is shared with batch_decode. */
#include "flashinfer/attention.h"
#include "harness/reference.h"
#include "ops/attention/attention_host.h"

#define OP batch_prefill
DIMS(total_q, batch);

#define CACHE(head_dim) \
    "NHD: num_pages page_size num_kv_heads " head_dim " | HND: num_pages num_kv_heads page_size " head_dim, .by = "kv_layout"

static const struct op_arg args[] = {
    OUT(out, LIKE(o_data_type), "total_q num_qo_heads head_dim_vo"),
    OUT(lse, F32, "total_q num_qo_heads", .flags = OPTIONAL),
    PLAN_IN(plan),
    IN(q, LIKE(q_data_type), "total_q num_qo_heads head_dim_qk",
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)),
    IN(k_cache, LIKE(kv_data_type), CACHE("head_dim_qk"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(v_cache, LIKE(kv_data_type), CACHE("head_dim_vo"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(qo_indptr, I32, "batch+1", .fill = INDPTR("total_q")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("num_pages")),
    IN(kv_last_page_len, I32, "batch", .fill = LENGTHS(1, "page_size")),
    IN(packed_custom_mask, U8, "mask_bytes", .flags = OPTIONAL, .required_if = "custom_mask", .fill = MASK),
    IN(mask_indptr, I32, "batch+1", .flags = OPTIONAL, .required_if = "custom_mask", .fill = INDPTR("mask_bytes")),
    IN(prefix_len, I32, "batch", .flags = OPTIONAL, .required_if = "multi_item_scoring",
       .fill = LENGTHS(0, "token_pos_in_items_len")),
    IN(token_pos_in_items, I32, "batch token_pos_in_items_len", .flags = OPTIONAL, .required_if = "multi_item_scoring",
       .fill = LENGTHS(0, "token_pos_in_items_len")),
    IN(max_item_len, I32, "batch", .flags = OPTIONAL, .required_if = "multi_item_scoring"),
    NUMBER(q_scale, .value = 1, .shape = "num_qo_heads"),
    NUMBER(k_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(v_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    INT(window_left, .min = -1, .flags = OPTIONAL | HOST),
    IN(sinks, F32, "num_qo_heads", .flags = OPTIONAL),
    IN(k_cache_sf, E4M3, CACHE("head_dim_qk//16"), .flags = OPTIONAL),
    IN(v_cache_sf, E4M3, CACHE("head_dim_vo//16"), .flags = OPTIONAL),
    NUMBER(skip_softmax_threshold_scale_factor),
    FLAG(return_lse_base_on_e),
    {0},
};

static const char *const rules[] = {"total_q <= max_total_qo", "batch <= max_batch_size", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_batch_prefill *a = from;
    *(struct attention_view *)to = (struct attention_view){
        .out = a->out,
        .lse = a->lse,
        .q = a->q,
        .k_cache = a->k_cache,
        .v_cache = a->v_cache,
        .qo_indptr = a->qo_indptr,
        .kv_indptr = a->kv_indptr,
        .kv_indices = a->kv_indices,
        .kv_last_page_len = a->kv_last_page_len,
        .sinks = a->sinks,
        .packed_custom_mask = a->packed_custom_mask,
        .mask_indptr = a->mask_indptr,
        .prefix_len = a->prefix_len,
        .token_pos_in_items = a->token_pos_in_items,
        .q_scale = &a->q_scale,
        .k_scale = &a->k_scale,
        .v_scale = &a->v_scale,
        .window_left = &a->window_left,
        .lse_in_base_e = a->return_lse_base_on_e,
    };
}

static const struct op_range ranges[] = {
    {"total_q", 0, 96, 0}, {"batch", 1, 8, 0}, {"num_pages", 1, 48, 0}, {"num_indices", 0, 48, 0},
    {"mask_bytes", 18450, 19450, 0}, {0},
};

/* What these models give. */
#define UNMASKED " -packed_custom_mask -mask_indptr -prefix_len -token_pos_in_items -max_item_len"
#define UNSCALED " -k_cache_sf -v_cache_sf"
#define USUAL UNMASKED UNSCALED " -sinks"
#define HEADS(qo, kv, dim) " num_qo_heads=" #qo " num_kv_heads=" #kv " head_dim_qk=" #dim
#define LENGTHS_OF(batch, total_q, page_size, pages)                                                                         \
    " batch=" #batch " max_batch_size=" #batch " total_q=" #total_q " max_total_qo=" #total_q " page_size=" #page_size \
    " num_pages=" #pages " num_indices=" #pages

static const struct op_shape shapes[] = {
    {"smollm2_135m_short", "q_data_type=bf16 causal=1" HEADS(9, 3, 64) LENGTHS_OF(4, 100, 16, 8) USUAL},
    {"smollm2_135m", "q_data_type=bf16 causal=1" HEADS(9, 3, 64) LENGTHS_OF(4, 1200, 16, 76) USUAL},
    {"llama_8b", "q_data_type=bf16 causal=1" HEADS(32, 8, 128) LENGTHS_OF(2, 4096, 16, 256) USUAL},
    {"llama_8b_chunk", "q_data_type=f16 causal=1" HEADS(32, 8, 128) LENGTHS_OF(4, 512, 16, 512) USUAL},
    {"mha_all", "q_data_type=f16 kv_layout=HND" HEADS(16, 16, 64) LENGTHS_OF(8, 512, 5, 512)},
    {"gemma_local", "q_data_type=bf16 causal=1 window_left=100 logits_soft_cap=50" HEADS(8, 4, 256) LENGTHS_OF(2, 300, 16, 40)},
    {"small_pages", "q_data_type=bf16 causal=1" HEADS(32, 8, 128) LENGTHS_OF(2, 600, 1, 900)},
    {"large_pages", "q_data_type=f16 kv_layout=HND" HEADS(12, 4, 64) LENGTHS_OF(2, 600, 64, 20)},
    {"small_pages_64", "q_data_type=bf16 causal=1" HEADS(12, 4, 64) LENGTHS_OF(2, 1600, 1, 1700)},
    {"gemma", "q_data_type=bf16 causal=1" HEADS(16, 4, 256) LENGTHS_OF(2, 900, 16, 60) USUAL},
    {"deepseek", "q_data_type=bf16 causal=1 head_dim_vo=128" HEADS(16, 16, 192) LENGTHS_OF(2, 600, 16, 60) USUAL},
    {"many_requests", "q_data_type=bf16 causal=1" HEADS(4, 1, 128) LENGTHS_OF(100, 1600, 16, 300) USUAL},
    {"mqa", "q_data_type=bf16 causal=1" HEADS(7, 1, 128) LENGTHS_OF(3, 300, 1, 900)},
    {"token_tree", "q_data_type=bf16 custom_mask=1 mask_bytes=12800" HEADS(32, 8, 128) LENGTHS_OF(4, 64, 16, 400) UNSCALED},
    {"items",
     "q_data_type=f16 multi_item_scoring=1 token_pos_in_items_len=200" HEADS(8, 4, 64) LENGTHS_OF(3, 600, 16, 60) UNSCALED},
    {"bloom", "q_data_type=bf16 causal=1 pos_encoding_mode=ALIBI" HEADS(32, 32, 128) LENGTHS_OF(2, 300, 16, 40) USUAL},
    {"rope", "q_data_type=f16 causal=1 pos_encoding_mode=ROPE_LLAMA" HEADS(32, 8, 128) LENGTHS_OF(2, 300, 16, 40) USUAL},
    {"e4m3_cache",
     "q_data_type=bf16 kv_data_type=e4m3 causal=1 k_scale=0.7 v_scale=1.3" HEADS(32, 8, 128) LENGTHS_OF(2, 300, 16, 40) USUAL},
    {"llama_8b_verify", "q_data_type=bf16 causal=1 typical_batch=4" HEADS(32, 8, 128) LENGTHS_OF(4, 32, 16, 256) USUAL},
    {"llama_8b_few", "q_data_type=bf16 causal=1 typical_batch=1" HEADS(32, 8, 128) LENGTHS_OF(1, 64, 16, 64) USUAL},
    {"smollm2_135m_chunk", "q_data_type=bf16 causal=1 typical_batch=1" HEADS(9, 3, 64) LENGTHS_OF(1, 100, 16, 100) USUAL},
    {"head_512", "q_data_type=bf16 causal=1" HEADS(8, 1, 512) LENGTHS_OF(2, 100, 16, 40) USUAL},
    {"group_64", "q_data_type=f16 causal=1" HEADS(128, 2, 64) LENGTHS_OF(2, 100, 16, 40) USUAL},
    {0},
};

DEFINE_OP("attention", "out = softmax(q k * scale) v over the pages of each request, any number of query tokens each",
          .rules = rules, .view = view, .hooks = ATTENTION_HOOKS,
          .kernels = batch_prefill_kernels, .plan = &op_batch_prefill_plan,
          .validate = attention_validate, .ranges = ranges, .shapes = shapes, .reference = attention_reference,
          .make = attention_make, .cost = attention_cost);
