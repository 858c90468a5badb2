/* SPDX-License-Identifier: Apache-2.0 */
/* The op single_prefill_with_kv_cache: a batch of one ragged request, for the kernels of batch_prefill. */
#include "flashinfer/attention.h"
#include "harness/reference.h"
#include "ops/attention/attention_host.h"

#define OP single_prefill_with_kv_cache
DIMS(qo_len, kv_len, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo);

#define TOKENS(head_dim) "NHD: kv_len num_kv_heads " head_dim " | HND: num_kv_heads kv_len " head_dim, .by = "kv_layout"

static const struct op_arg args[] = {
    OUT(out, LIKE_OR(q, F16 | BF16 | F32 | E4M3 | E5M2), "qo_len num_qo_heads head_dim_vo"),
    OUT(lse, F32, "qo_len num_qo_heads", .flags = OPTIONAL),
    IN(q, F16 | BF16 | E4M3 | E5M2, "qo_len num_qo_heads head_dim_qk",
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)),
    IN(k, LIKE_OR(q, F16 | BF16 | E4M3 | E5M2 | U8), TOKENS("head_dim_qk"),
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(v, LIKE(k), TOKENS("head_dim_vo"), .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(scale_q, F32, "num_qo_heads", .flags = OPTIONAL, .fill = UNIFORM(0.5, 2)),
    IN(scale_k, F32, "num_kv_heads", .flags = OPTIONAL, .fill = UNIFORM(0.5, 2)),
    IN(scale_v, F32, "num_kv_heads", .flags = OPTIONAL, .fill = UNIFORM(0.5, 2)),
    IN(custom_mask, BOOL, "qo_len kv_len", .flags = OPTIONAL, .fill = MASK),
    IN(packed_custom_mask, U8, "ceil(qo_len*kv_len/8)", .flags = OPTIONAL, .fill = MASK),
    FLAG(causal),
    ENUM(kv_layout, "NHD HND"),
    ENUM(pos_encoding_mode, "NONE ROPE_LLAMA ALIBI"),
    FLAG(use_fp16_qk_reduction),
    NUMBER(sm_scale),
    INT(window_left, .value = -1, .min = -1, .flags = HOST),
    NUMBER(logits_soft_cap),
    NUMBER(rope_scale, .value = 1),
    NUMBER(rope_theta, .value = 10000),
    IN(k_sf, E4M3, TOKENS("head_dim_qk//16"), .flags = OPTIONAL),
    IN(v_sf, E4M3, TOKENS("head_dim_vo//16"), .flags = OPTIONAL),
    NUMBER(k_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(v_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    FLAG(return_lse_base_on_e),
    {0},
};

static const char *const rules[] = {"num_qo_heads > 0", "num_qo_heads % num_kv_heads == 0", NULL};

static flashinfer_number scale_of(const DLTensor *heads)
{
    return heads ? (flashinfer_number)FLASHINFER_TENSOR(heads) : (flashinfer_number)FLASHINFER_FLOAT(1);
}

static void view(const void *from, void *to)
{
    const struct flashinfer_single_prefill_with_kv_cache *a = from;
    const struct attention_options o = {
        .max_total_qo = tensor_shape(a->q, 0),
        .max_batch_size = 1,
        .kv_layout = a->kv_layout,
        .num_qo_heads = tensor_shape(a->q, 1),
        .num_kv_heads = tensor_shape(a->k, a->kv_layout == FLASHINFER_NHD ? 1 : 0),
        .head_dim_qk = tensor_shape(a->q, 2),
        .head_dim_vo = tensor_shape(a->v, 2),
        .page_size = 1,
        .custom_mask = a->custom_mask || a->packed_custom_mask,
        .causal = a->causal,
        .pos_encoding_mode = a->pos_encoding_mode,
        .sm_scale = a->sm_scale,
        .logits_soft_cap = a->logits_soft_cap,
        .rope_scale = a->rope_scale,
        .rope_theta = a->rope_theta,
        .window_left = a->window_left,
        .q_data_type = a->q->dtype,
        .kv_data_type = a->k->dtype,
        .o_data_type = a->out->dtype,
    };
    struct attention_view *t = to;
    *t = (struct attention_view){
        .out = a->out,
        .lse = a->lse,
        .q = a->q,
        .k_cache = a->k,
        .v_cache = a->v,
        .custom_mask = a->custom_mask,
        .packed_custom_mask = a->packed_custom_mask,
        .q_scale = &t->scale[0],
        .k_scale = a->scale_k ? &t->scale[1] : &a->k_scale,
        .v_scale = a->scale_v ? &t->scale[2] : &a->v_scale,
        .scale = {scale_of(a->scale_q), scale_of(a->scale_k), scale_of(a->scale_v)},
        .lse_in_base_e = a->return_lse_base_on_e,
        .unserved = attention_single_fit(&o, tensor_shape(a->k, a->kv_layout == FLASHINFER_NHD ? 0 : 1)),
        .plan = attention_single_plan(&o),
    };
    if ((a->scale_k && a->k_scale.kind != FLASHINFER_NUMBER_ABSENT) ||
        (a->scale_v && a->v_scale.kind != FLASHINFER_NUMBER_ABSENT))
        t->unserved = "k_scale and v_scale do not go with scale_k and scale_v";
}

static const struct op_range ranges[] = {
    {"qo_len", 0, 96, 0},         {"kv_len", 0, 300, 0},        {"num_qo_heads", 1, 14, 0}, {"num_kv_heads", 1, 4, 0},
    {"head_dim_qk", 128, 128, 0}, {"head_dim_vo", 128, 128, 0}, {"window_left", -1, 40, 0}, {0},
};

/* What these models give. */
#define USUAL " -scale_q -scale_k -scale_v -custom_mask -packed_custom_mask -k_sf -v_sf"
#define HEADS(qo, kv, dim) " num_qo_heads=" #qo " num_kv_heads=" #kv " head_dim_qk=" #dim " head_dim_vo=" #dim
#define TYPES(dtype) " q:dtype=" #dtype " k:dtype=" #dtype " out:dtype=" #dtype

static const struct op_shape shapes[] = {
    {"smollm2_135m", "causal=1 qo_len=300 kv_len=300" TYPES(bf16) HEADS(9, 3, 64) USUAL},
    {"llama_8b", "causal=1 qo_len=4096 kv_len=4096" TYPES(bf16) HEADS(32, 8, 128) USUAL},
    {"llama_8b_chunk", "causal=1 qo_len=128 kv_len=2048" TYPES(f16) HEADS(32, 8, 128) USUAL},
    {"mha_all", "kv_layout=HND qo_len=100 kv_len=333" TYPES(f16) HEADS(16, 16, 64) USUAL},
    {"gemma_local", "causal=1 qo_len=200 kv_len=400 window_left=100 logits_soft_cap=50" TYPES(bf16) HEADS(8, 4, 256) USUAL},
    {"odd", "causal=1 qo_len=50 kv_len=17" TYPES(f16) HEADS(7, 1, 128) USUAL},
    {"custom_mask",
     "qo_len=100 kv_len=300" TYPES(bf16) HEADS(16, 16, 96) " -scale_q -scale_k -scale_v -packed_custom_mask -k_sf -v_sf"},
    {"e5m2_heads", "causal=1 qo_len=100 kv_len=300 q:dtype=e5m2 k:dtype=e5m2 out:dtype=f16" HEADS(32, 8, 128)
                   " -custom_mask -packed_custom_mask -k_sf -v_sf"},
    {0},
};

DEFINE_OP("attention", "out = softmax(q k * scale) v for one request, any number of query tokens", .rules = rules, .view = view,
          .hooks = ATTENTION_HOOKS,
          .kernels = batch_prefill_kernels, .ranges = ranges, .shapes = shapes, .reference = attention_reference,
          .make = attention_make, .cost = attention_cost);
