/* SPDX-License-Identifier: Apache-2.0 */
/* The op batch_decode. Kernels: batch_decode_stream_sm90.cu, batch_decode_stream_sm80.cu, batch_prefill_sm80.cu for what
 * they do not serve, batch_decode_cpu.c; their host side is shared with batch_prefill. */
#include "flashinfer/attention.h"
#include "harness/reference.h"
#include "ops/attention/attention_host.h"

#define OP batch_decode
DIMS(batch);

#define CACHE(head_dim) \
    "NHD: num_pages page_size num_kv_heads " head_dim " | HND: num_pages num_kv_heads page_size " head_dim, .by = "kv_layout"

static const struct op_arg args[] = {
    OUT(out, LIKE(o_data_type), "batch*q_len_per_req num_qo_heads head_dim"),
    OUT(lse, F32, "batch*q_len_per_req num_qo_heads", .flags = OPTIONAL),
    PLAN_IN(plan),
    IN(q, LIKE(q_data_type), "batch*q_len_per_req num_qo_heads head_dim",
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)),
    IN(k_cache, LIKE(kv_data_type), CACHE("head_dim"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(v_cache, LIKE(kv_data_type), CACHE("head_dim"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("num_pages")),
    IN(kv_last_page_len, I32, "batch", .fill = LENGTHS(1, "page_size")),
    NUMBER(q_scale, .value = 1, .shape = "num_qo_heads"),
    NUMBER(k_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(v_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    INT(window_left, .min = -1, .flags = OPTIONAL | HOST),
    IN(sinks, F32, "num_qo_heads", .flags = OPTIONAL),
    IN(k_cache_sf, E4M3, CACHE("head_dim//16"), .flags = OPTIONAL),
    IN(v_cache_sf, E4M3, CACHE("head_dim//16"), .flags = OPTIONAL),
    NUMBER(skip_softmax_threshold_scale_factor),
    FLAG(return_lse_base_on_e),
    {0},
};

static const char *const rules[] = {"batch <= max_batch_size", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_batch_decode *a = from;
    *(struct attention_view *)to = (struct attention_view){
        .out = a->out,
        .lse = a->lse,
        .q = a->q,
        .k_cache = a->k_cache,
        .v_cache = a->v_cache,
        .kv_indptr = a->kv_indptr,
        .kv_indices = a->kv_indices,
        .kv_last_page_len = a->kv_last_page_len,
        .sinks = a->sinks,
        .q_scale = &a->q_scale,
        .k_scale = &a->k_scale,
        .v_scale = &a->v_scale,
        .window_left = &a->window_left,
        .lse_in_base_e = a->return_lse_base_on_e,
    };
}

static const struct op_range ranges[] = {{"batch", 1, 24, 0}, {"num_pages", 1, 96, 0}, {"num_indices", 0, 96, 0}, {0}};

/* What these models give. */
#define USUAL " -sinks -k_cache_sf -v_cache_sf"
#define HEADS(qo, kv, dim) " num_qo_heads=" #qo " num_kv_heads=" #kv " head_dim=" #dim
#define LENGTHS_OF(batch, page_size, pages) \
    " batch=" #batch " max_batch_size=" #batch " page_size=" #page_size " num_pages=" #pages " num_indices=" #pages

static const struct op_shape shapes[] = {
    {"smollm2_135m_batch_1", "q_data_type=bf16" HEADS(9, 3, 64) LENGTHS_OF(1, 16, 25) USUAL},
    {"smollm2_135m_batch_16", "q_data_type=bf16" HEADS(9, 3, 64) LENGTHS_OF(16, 16, 400) USUAL},
    {"smollm2_135m_batch_128", "q_data_type=bf16" HEADS(9, 3, 64) LENGTHS_OF(128, 16, 3200) USUAL},
    {"llama_1b_batch_16", "q_data_type=bf16" HEADS(32, 8, 64) LENGTHS_OF(16, 16, 512) USUAL},
    {"llama_8b_batch_1", "q_data_type=f16" HEADS(32, 8, 128) LENGTHS_OF(1, 16, 512) USUAL},
    {"llama_8b_batch_16", "q_data_type=bf16" HEADS(32, 8, 128) LENGTHS_OF(16, 16, 2048) USUAL},
    {"mha", "q_data_type=f16 kv_layout=HND" HEADS(16, 16, 64) LENGTHS_OF(5, 5, 500)},
    {"mqa", "q_data_type=bf16" HEADS(40, 1, 128) LENGTHS_OF(3, 1, 1800)},
    {"llama_8b_e4m3",
     "q_data_type=bf16 kv_data_type=e4m3 k_scale=0.7 v_scale=1.3" HEADS(32, 8, 128) LENGTHS_OF(16, 16, 2048) USUAL},
    {"head_256", "q_data_type=bf16" HEADS(16, 8, 256) LENGTHS_OF(4, 16, 800) USUAL},
    {"verify", "q_data_type=bf16 q_len_per_req=4" HEADS(32, 8, 128) LENGTHS_OF(16, 16, 2048) USUAL},
    {"verify_e4m3",
     "q_data_type=bf16 kv_data_type=e4m3 q_len_per_req=8 k_scale=0.7 v_scale=1.3" HEADS(32, 8, 128) LENGTHS_OF(16, 16, 2048)
         USUAL},
    {"rope", "q_data_type=bf16 pos_encoding_mode=ROPE_LLAMA" HEADS(32, 8, 128) LENGTHS_OF(4, 16, 200) USUAL},
    {"head_96", "q_data_type=f16" HEADS(32, 32, 96) LENGTHS_OF(4, 16, 200) USUAL},
    {"head_512", "q_data_type=bf16" HEADS(8, 1, 512) LENGTHS_OF(4, 16, 200) USUAL},
    {"group_64", "q_data_type=f16" HEADS(128, 2, 64) LENGTHS_OF(3, 16, 100) USUAL},
    {0},
};

DEFINE_OP("attention", "out = softmax(q k * scale) v over the pages of each request, q_len_per_req query tokens each",
          .rules = rules,
          .view = view, .hooks = ATTENTION_HOOKS,
          .kernels = batch_decode_kernels, .plan = &op_batch_decode_plan, .validate = attention_validate,
          .ranges = ranges, .shapes = shapes, .reference = attention_reference, .make = attention_make, .cost = attention_cost);
