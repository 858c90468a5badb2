/* SPDX-License-Identifier: Apache-2.0 */
/* The op single_decode_with_kv_cache: a batch of one ragged request, for the kernels of batch_decode. */
#include "flashinfer/attention.h"
#include "harness/reference.h"
#include "ops/attention/attention_host.h"

#define OP single_decode_with_kv_cache
DIMS(kv_len, num_qo_heads, num_kv_heads, head_dim);

static const struct op_arg args[] = {
    OUT(out, LIKE(q), "num_qo_heads head_dim"),
    OUT(lse, F32, "num_qo_heads", .flags = OPTIONAL),
    IN(q, F16 | BF16 | E4M3 | E5M2, "num_qo_heads head_dim", .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)),
    IN(k, LIKE_OR(q, F16 | BF16 | E4M3 | E5M2), "NHD: kv_len num_kv_heads head_dim | HND: num_kv_heads kv_len head_dim",
       .by = "kv_layout", .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    IN(v, LIKE(k), "NHD: kv_len num_kv_heads head_dim | HND: num_kv_heads kv_len head_dim", .by = "kv_layout",
       .fill = NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL)),
    ENUM(kv_layout, "NHD HND"),
    ENUM(pos_encoding_mode, "NONE ROPE_LLAMA ALIBI"),
    FLAG(use_tensor_cores),
    NUMBER(q_scale, .value = 1, .shape = "num_qo_heads"),
    NUMBER(k_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    NUMBER(v_scale, .value = 1, .shape = "num_kv_heads", .flags = OPTIONAL),
    INT(window_left, .value = -1, .min = -1, .flags = HOST),
    NUMBER(logits_soft_cap),
    NUMBER(sm_scale),
    NUMBER(rope_scale, .value = 1),
    NUMBER(rope_theta, .value = 10000),
    FLAG(return_lse_base_on_e),
    {0},
};

static const char *const rules[] = {"num_qo_heads > 0", "num_qo_heads % num_kv_heads == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_single_decode_with_kv_cache *a = from;
    const struct attention_options o = {
        .is_decode = true,
        .max_total_qo = 1,
        .max_batch_size = 1,
        .kv_layout = a->kv_layout,
        .num_qo_heads = tensor_shape(a->q, 0),
        .num_kv_heads = tensor_shape(a->k, a->kv_layout == FLASHINFER_NHD ? 1 : 0),
        .head_dim_qk = tensor_shape(a->q, 1),
        .head_dim_vo = tensor_shape(a->q, 1),
        .page_size = 1,
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
    *(struct attention_view *)to = (struct attention_view){
        .out = a->out,
        .lse = a->lse,
        .q = a->q,
        .k_cache = a->k,
        .v_cache = a->v,
        .q_scale = &a->q_scale,
        .k_scale = &a->k_scale,
        .v_scale = &a->v_scale,
        .lse_in_base_e = a->return_lse_base_on_e,
        .unserved = attention_single_fit(&o, tensor_shape(a->k, a->kv_layout == FLASHINFER_NHD ? 0 : 1)),
        .plan = attention_single_plan(&o),
    };
}

static const struct op_range ranges[] = {
    {"kv_len", 0, 1500, 0},    {"num_qo_heads", 1, 40, 0}, {"num_kv_heads", 1, 8, 0},
    {"head_dim", 64, 128, 64}, {"window_left", -1, 40, 0}, {0},
};

#define HEADS(qo, kv, dim) " num_qo_heads=" #qo " num_kv_heads=" #kv " head_dim=" #dim
#define TYPES(dtype) " q:dtype=" #dtype " k:dtype=" #dtype

static const struct op_shape shapes[] = {
    {"smollm2_135m", "kv_len=400" TYPES(bf16) HEADS(9, 3, 64)},
    {"llama_8b", "kv_len=8192" TYPES(bf16) HEADS(32, 8, 128)},
    {"llama_8b_short", "kv_len=1000" TYPES(f16) HEADS(32, 8, 128)},
    {"mha", "kv_len=333 kv_layout=HND" TYPES(f16) HEADS(16, 16, 64)},
    {"mqa", "kv_len=777 window_left=100" TYPES(bf16) HEADS(40, 1, 128)},
    {0},
};

DEFINE_OP("attention", "out = softmax(q k * scale) v for one request, one query token", .rules = rules, .view = view,
          .hooks = ATTENTION_HOOKS,
          .kernels = batch_decode_kernels, .ranges = ranges, .shapes = shapes, .reference = attention_reference,
          .make = attention_make, .cost = attention_cost);
