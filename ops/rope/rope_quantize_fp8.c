/* SPDX-License-Identifier: Apache-2.0 */
/* The op rope_quantize_fp8. */
#include "ops/rope/rope_kernels.h"

#define OP rope_quantize_fp8
DIMS(nnz, num_qo_heads, num_kv_heads, rotary_dim, q_nope_dim, k_nope_dim, max_positions);

static const struct op_arg args[] = {
    OUT(q_rope_out, E4M3 | E5M2, "nnz num_qo_heads rotary_dim"),
    OUT(k_rope_out, LIKE(q_rope_out), "nnz num_kv_heads rotary_dim"),
    OUT(q_nope_out, LIKE(q_rope_out), "nnz num_qo_heads q_nope_dim", .flags = OPTIONAL, .required_if = "q_nope_dim > 0"),
    OUT(k_nope_out, LIKE(q_rope_out), "nnz num_kv_heads k_nope_dim", .flags = OPTIONAL, .required_if = "k_nope_dim > 0"),
    IN(q_rope, F16 | BF16, "nnz num_qo_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(k_rope, LIKE(q_rope), "nnz num_kv_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(q_nope, LIKE(q_rope), "nnz num_qo_heads q_nope_dim", .flags = OPTIONAL, .required_if = "q_nope_dim > 0",
       .fill = NORMAL_WITH_ALL),
    IN(k_nope, LIKE(q_rope), "nnz num_kv_heads k_nope_dim", .flags = OPTIONAL, .required_if = "k_nope_dim > 0",
       .fill = NORMAL_WITH_ALL),
    IN(cos_sin_cache, F32, "max_positions rotary_dim", .fill = UNIFORM(-1, 1)),
    IN(pos_ids, I32 | I64, "nnz", .fill = BELOW("max_positions")),
    FLAG(interleave),
    NUMBER(quant_scale_q, .value = 1, .min = 1e-30),
    NUMBER(quant_scale_kv, .value = 1, .min = 1e-30),
    {0},
};

static const char *const rules[] = {"rotary_dim > 0", "rotary_dim % 2 == 0", "nnz == 0 or max_positions > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_rope_quantize_fp8 *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q_rope_out,
        .k_out = a->k_rope_out,
        .q_nope_out = a->q_nope_out,
        .k_nope_out = a->k_nope_out,
        .q = a->q_rope,
        .k = a->k_rope,
        .q_nope = a->q_nope,
        .k_nope = a->k_nope,
        .pos_ids = a->pos_ids,
        .cos_sin_cache = a->cos_sin_cache,
        .interleave = a->interleave,
        .q_scale = a->quant_scale_q,
        .kv_scale = a->quant_scale_kv,
    };
}

static const struct op_range ranges[] = {
    {"nnz", 0, 60, 0},         {"num_qo_heads", 0, 9, 0}, {"num_kv_heads", 0, 4, 0},    {"rotary_dim", 2, 140, 2},
    {"q_nope_dim", 0, 140, 0}, {"k_nope_dim", 0, 140, 0}, {"max_positions", 1, 500, 0}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 rotary_dim=54 q_nope_dim=37 k_nope_dim=11 max_positions=99 interleave=1 "
            "q_rope:dtype=f16 q_rope_out:dtype=e5m2 pos_ids:dtype=i32"},
    {"llama_8b_decode", "nnz=128 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 max_positions=8192 q_rope:dtype=bf16 "
                        "q_rope_out:dtype=e4m3 pos_ids:dtype=i64 q_nope_dim=0 k_nope_dim=0 "
                        "-q_nope -k_nope -q_nope_out -k_nope_out"},
    {"llama_8b_prefill", "nnz=4096 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 max_positions=8192 q_rope:dtype=bf16 "
                         "q_rope_out:dtype=e4m3 pos_ids:dtype=i64 q_nope_dim=0 k_nope_dim=0 "
                         "-q_nope -k_nope -q_nope_out -k_nope_out"},
    {"partial", "nnz=64 num_qo_heads=16 num_kv_heads=8 rotary_dim=32 q_nope_dim=48 k_nope_dim=48 max_positions=2048 "
                "quant_scale_q=0.5 quant_scale_kv=3 interleave=1 q_rope:dtype=f16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 rotary_dim=64 max_positions=8192 q_rope:dtype=bf16 "
                     "q_rope_out:dtype=e5m2 pos_ids:dtype=i32 q_nope_dim=0 k_nope_dim=0 "
                     "-q_nope -k_nope -q_nope_out -k_nope_out"},
    {0},
};

DEFINE_OP("rope", "rotated and other parts of q and k, scaled and rounded to 8 bits", .rules = rules, .view = view,
          .kernels = rope_kernels, .validate = rope_validate, .ranges = ranges, .shapes = shapes, .reference = rope_reference,
          .cost = rope_cost);
