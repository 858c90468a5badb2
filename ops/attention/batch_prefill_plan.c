/* SPDX-License-Identifier: Apache-2.0 */
/* The op batch_prefill_plan: attention_plan.c over its arguments. */
#include "flashinfer/attention.h"
#include "ops/attention/attention_host.h"

#define OP batch_prefill_plan
DIMS(typical_batch);

static const struct op_arg args[] = {
    PLAN_OUT(plan),
    INT(max_total_qo, .min = 1),
    INT(max_batch_size, .min = 1),
    ENUM(kv_layout, "NHD HND"),
    IN(qo_indptr, I32, "typical_batch+1", .flags = OPTIONAL | HOST | DENSE, .fill = INDPTR("max_total_qo")),
    IN(kv_indptr, I32, "typical_batch+1", .flags = OPTIONAL | HOST | DENSE, .fill = INDPTR("max_total_qo")),
    INT(num_qo_heads, .min = 1),
    INT(num_kv_heads, .min = 1),
    INT(head_dim_qk, .min = 1),
    INT(page_size, .min = 1),
    INT(head_dim_vo, .value_of = "head_dim_qk", .flags = RARELY),
    FLAG(custom_mask),
    FLAG(causal),
    ENUM(pos_encoding_mode, "NONE ROPE_LLAMA ALIBI"),
    FLAG(use_fp16_qk_reduction),
    NUMBER(sm_scale),
    INT(window_left, .value = -1, .min = -1, .flags = HOST),
    NUMBER(logits_soft_cap),
    NUMBER(rope_scale, .value = 1),
    NUMBER(rope_theta, .value = 10000),
    DTYPE(q_data_type, F16 | BF16 | E4M3 | E5M2, .value = DTYPE_F16),
    DTYPE(kv_data_type, F16 | BF16 | E4M3 | E5M2 | U8, .dtype.like = "q_data_type"),
    DTYPE(o_data_type, F16 | BF16 | F32 | E4M3 | E5M2, .dtype.like = "q_data_type"),
    FLAG(multi_item_scoring),
    INT(token_pos_in_items_len),
    INT(fixed_split_size, .flags = RARELY),
    FLAG(disable_split_kv),
    {0},
};

static const char *const rules[] = {"num_qo_heads % num_kv_heads == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_batch_prefill_plan *a = from;
    *(struct attention_options *)to = (struct attention_options){
        .plan = a->plan,
        .max_total_qo = a->max_total_qo,
        .max_batch_size = a->max_batch_size,
        .qo_indptr = a->qo_indptr,
        .kv_indptr = a->kv_indptr,
        .kv_layout = a->kv_layout,
        .num_qo_heads = a->num_qo_heads,
        .num_kv_heads = a->num_kv_heads,
        .head_dim_qk = a->head_dim_qk,
        .head_dim_vo = a->head_dim_vo ? a->head_dim_vo : a->head_dim_qk,
        .page_size = a->page_size,
        .custom_mask = a->custom_mask,
        .causal = a->causal,
        .pos_encoding_mode = a->pos_encoding_mode,
        .multi_item_scoring = a->multi_item_scoring,
        .fixed_split_size = a->fixed_split_size,
        .disable_split_kv = a->disable_split_kv,
        .sm_scale = a->sm_scale,
        .logits_soft_cap = a->logits_soft_cap,
        .rope_scale = a->rope_scale,
        .rope_theta = a->rope_theta,
        .window_left = a->window_left,
        .q_data_type = a->q_data_type,
        .kv_data_type = a->kv_data_type,
        .o_data_type = a->o_data_type,
    };
}

static const struct op_kernel kernels[] = {
    {"batch_prefill_plan", OP_ANYWHERE, 0, 0, attention_fit_plan, attention_run_plan},
    {0},
};

static const struct op_range ranges[] = {
    {"max_total_qo", 1, 96, 0}, {"max_batch_size", 1, 8, 0},  {"typical_batch", 1, 8, 0}, {"num_qo_heads", 1, 14, 0},
    {"num_kv_heads", 1, 4, 0},  {"head_dim_qk", 16, 256, 16}, {"page_size", 1, 32, 0},    {"causal", 0, 1, 0},
    {"window_left", -1, 40, 0}, {"fixed_split_size", 0, 8, 0}, {"head_dim_vo", 16, 256, 16},
    {"token_pos_in_items_len", 0, 40, 0}, {0},
};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "max_total_qo=2048 max_batch_size=16 num_qo_heads=9 num_kv_heads=3 head_dim_qk=64 page_size=16 causal=1"},
    {"llama_8b", "max_total_qo=8192 max_batch_size=4 num_qo_heads=32 num_kv_heads=8 head_dim_qk=128 page_size=16 causal=1"},
    {0},
};

DEFINE_OP("attention", "plans batch_prefill: what its grid and workspace depend on", .rules = rules, .view = view,
          .kernels = kernels, .ranges = ranges, .shapes = shapes);
