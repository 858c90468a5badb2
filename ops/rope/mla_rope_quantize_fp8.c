/* SPDX-License-Identifier: Apache-2.0 */
/* The op mla_rope_quantize_fp8. */
#include "ops/rope/rope_kernels.h"

#define OP mla_rope_quantize_fp8
DIMS(nnz, num_qo_heads, rotary_dim, q_nope_dim, k_nope_dim, max_positions);

static const struct op_arg args[] = {
    OUT(q_rope_out, E4M3 | E5M2, "nnz num_qo_heads rotary_dim"),
    OUT(k_rope_out, LIKE(q_rope_out), "nnz rotary_dim"),
    OUT(q_nope_out, LIKE(q_rope_out), "nnz num_qo_heads q_nope_dim", .flags = OPTIONAL, .required_if = "q_nope_dim > 0"),
    OUT(k_nope_out, LIKE(q_rope_out), "nnz k_nope_dim", .flags = OPTIONAL, .required_if = "k_nope_dim > 0"),
    IN(q_rope, F16 | BF16, "nnz num_qo_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(k_rope, LIKE(q_rope), "nnz rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(q_nope, LIKE(q_rope), "nnz num_qo_heads q_nope_dim", .flags = OPTIONAL, .required_if = "q_nope_dim > 0",
       .fill = NORMAL_WITH_ALL),
    IN(k_nope, LIKE(q_rope), "nnz k_nope_dim", .flags = OPTIONAL, .required_if = "k_nope_dim > 0", .fill = NORMAL_WITH_ALL),
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
    const struct flashinfer_mla_rope_quantize_fp8 *a = from;
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

static const struct op_range ranges[] = {{"nnz", 0, 60, 0},
                                         {"num_qo_heads", 0, 9, 0},
                                         {"rotary_dim", 2, 140, 2},
                                         {"q_nope_dim", 0, 140, 0},
                                         {"k_nope_dim", 0, 140, 0},
                                         {"max_positions", 1, 500, 0},
                                         {0}};

static const struct op_shape shapes[] = {
    {"odd", "nnz=7 num_qo_heads=5 rotary_dim=54 q_nope_dim=37 k_nope_dim=11 max_positions=99 interleave=1 q_rope:dtype=f16 "
            "q_rope_out:dtype=e5m2 pos_ids:dtype=i32"},
    {"deepseek_v3_decode", "nnz=64 num_qo_heads=128 rotary_dim=64 q_nope_dim=512 k_nope_dim=512 max_positions=4096 interleave=1 "
                           "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64"},
    {"deepseek_v3_token", "nnz=1 num_qo_heads=128 rotary_dim=64 q_nope_dim=512 k_nope_dim=512 max_positions=4096 "
                          "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {"deepseek_v3_prefill", "nnz=1024 num_qo_heads=128 rotary_dim=64 q_nope_dim=512 k_nope_dim=512 max_positions=4096 "
                            "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64"},
    {"halves", "nnz=9 num_qo_heads=2 rotary_dim=32 q_nope_dim=16 k_nope_dim=8 max_positions=50 q_rope:dtype=f16 "
               "q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotated and other parts of q and k, scaled and rounded to 8 bits, for multi-head latent attention",
          .rules = rules, .view = view, .kernels = rope_kernels, .validate = rope_validate, .ranges = ranges, .shapes = shapes,
          .reference = rope_reference, .cost = rope_cost);
