/* SPDX-License-Identifier: Apache-2.0 */
/* The op batch_decode_plan: attention_plan.c over its arguments. */
#include "flashinfer/attention.h"
#include "ops/attention/attention_host.h"

#define OP batch_decode_plan
DIMS(typical_batch);

static const struct op_arg args[] = {
    PLAN_OUT(plan),
    INT(max_batch_size, .min = 1),
    ENUM(kv_layout, "NHD HND"),
    IN(kv_indptr, I32, "typical_batch+1", .flags = OPTIONAL | HOST | DENSE),
    INT(num_qo_heads, .min = 1),
    INT(num_kv_heads, .min = 1),
    INT(head_dim, .min = 1),
    INT(page_size, .min = 1),
    ENUM(pos_encoding_mode, "NONE ROPE_LLAMA ALIBI"),
    INT(window_left, .value = -1, .min = -1, .flags = HOST),
    INT(window_right),
    NUMBER(logits_soft_cap),
    DTYPE(q_data_type, F16 | BF16 | E4M3 | E5M2, .value = DTYPE_F16),
    DTYPE(kv_data_type, F16 | BF16 | E4M3 | E5M2 | U8, .dtype.like = "q_data_type"),
    DTYPE(o_data_type, F16 | BF16 | F32 | E4M3 | E5M2, .dtype.like = "q_data_type"),
    NUMBER(sm_scale),
    NUMBER(rope_scale, .value = 1),
    NUMBER(rope_theta, .value = 10000),
    INT(fixed_split_size),
    FLAG(disable_split_kv),
    INT(q_len_per_req, .value = 1, .min = 1),
    {0},
};

static const char *const rules[] = {"num_qo_heads % num_kv_heads == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_batch_decode_plan *a = from;
    *(struct attention_options *)to = (struct attention_options){
        .plan = a->plan,
        .is_decode = true,
        .max_total_qo = (int64_t)a->max_batch_size * a->q_len_per_req,
        .max_batch_size = a->max_batch_size,
        .kv_layout = a->kv_layout,
        .num_qo_heads = a->num_qo_heads,
        .num_kv_heads = a->num_kv_heads,
        .head_dim_qk = a->head_dim,
        .head_dim_vo = a->head_dim,
        .page_size = a->page_size,
        .pos_encoding_mode = a->pos_encoding_mode,
        .fixed_split_size = a->fixed_split_size,
        .disable_split_kv = a->disable_split_kv,
        .q_len_per_req = a->q_len_per_req,
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
    {"batch_decode_plan", OP_ANYWHERE, 0, 0, attention_fit_plan, attention_run_plan},
    {0},
};

static const struct op_range ranges[] = {
    {"max_batch_size", 1, 24, 0},   {"typical_batch", 1, 8, 0},      {"num_qo_heads", 1, 40, 0}, {"num_kv_heads", 1, 8, 0},
    {"head_dim", 16, 256, 16},      {"page_size", 1, 40, 0},         {"window_left", -1, 40, 0}, {"window_right", 0, 0, 0},
    {"fixed_split_size", 0, 8, 0},  {"q_len_per_req", 1, 5, 0},      {0},
};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "max_batch_size=128 num_qo_heads=9 num_kv_heads=3 head_dim=64 page_size=16"},
    {"llama_8b", "max_batch_size=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 page_size=16"},
    {0},
};

DEFINE_OP("attention", "plans batch_decode: what its grid and workspace depend on", .rules = rules, .view = view,
          .kernels = kernels, .ranges = ranges, .shapes = shapes);
