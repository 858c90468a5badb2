/* SPDX-License-Identifier: Apache-2.0 */
/* The op gated_delta_rule_decode. Kernels: see gated_delta_kernels.h. */
#include "flashinfer/gated_delta.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define OP gated_delta_rule_decode
DIMS(batch, num_q_heads, num_k_heads, num_v_heads, head_dim);

static const struct op_arg args[] = {
    OUT(output, LIKE(q), "batch 1 " STATE_HEADS " head_dim"),
    INOUT(state, F32 | F16 | BF16, "batch " STATE_HEADS " head_dim head_dim", .fill = NORMAL),
    IN(q, F16 | BF16, "batch 1 num_q_heads head_dim", .fill = NORMAL),
    IN(k, LIKE(q), "batch 1 num_k_heads head_dim", .fill = NORMAL),
    IN(v, LIKE(q), "batch 1 num_v_heads head_dim", .fill = NORMAL),
    IN(A_log, F32, STATE_HEADS, .fill = UNIFORM(-4, 1)),
    IN(a, LIKE(q), "batch 1 " STATE_HEADS, .fill = NORMAL),
    IN(dt_bias, LIKE_OR(q, F32), STATE_HEADS, .fill = NORMAL),
    IN(b, LIKE(q), "batch 1 " STATE_HEADS, .fill = NORMAL),
    NUMBER(scale, .min = 0),
    FLAG(skip_qk_l2norm),
    {0},
};

static const char *const rules[] = {HEAD_RULES, NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_gated_delta_rule_decode *c = from;
    struct gated_delta_view *t = to;
    *t = (struct gated_delta_view){.output = c->output,
                                   .q = c->q,
                                   .k = c->k,
                                   .v = c->v,
                                   .alpha = c->a,
                                   .beta = c->b,
                                   .A_log = c->A_log,
                                   .dt_bias = c->dt_bias,
                                   .initial = c->state,
                                   .final = c->state,
                                   .values_last = 1,
                                   .scale = c->scale,
                                   .l2norm = !c->skip_qk_l2norm};
}

static const struct op_range ranges[] = {{"batch", 0, 5, 0},       {"num_q_heads", 1, 4, 0},  {"num_k_heads", 1, 4, 0},
                                         {"num_v_heads", 1, 4, 0}, {"head_dim", 64, 128, 64}, {0}};

static const struct op_shape shapes[] = {
    {"qwen3_next_1", "batch=1 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=bf16 state:dtype=f32"},
    {"qwen3_next_8", "batch=8 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=f16 state:dtype=bf16"},
    {"qwen3_next_f16", "batch=4 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=bf16 state:dtype=f16"},
    {"qwen3_next_16", "batch=16 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=bf16 state:dtype=bf16"},
    {"qwen3_next_64", "batch=64 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=bf16 state:dtype=f32"},
    {"qwen3_next_256", "batch=256 num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128 dtype=bf16 state:dtype=f32"},
    {"head_64", "batch=3 num_q_heads=6 num_k_heads=2 num_v_heads=2 head_dim=64 dtype=f16 state:dtype=f16"},
    {0},
};

DEFINE_OP("gated_delta", "one token of each sequence by the gated delta rule, states keys by values", .rules = rules,
          .kernels = gated_delta_decode_kernels, .view = view, .validate = gated_delta_validate, .ranges = ranges,
          .shapes = shapes, .verify = gated_delta_verify, .make = gated_delta_make, .cost = gated_delta_cost);
