/* SPDX-License-Identifier: Apache-2.0 */
/* The op gated_delta_rule_mtp. Kernels: see gated_delta_kernels.h. */
#include "flashinfer/gated_delta.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define OP gated_delta_rule_mtp
DIMS(batch, tokens, num_q_heads, num_k_heads, num_v_heads, head_dim, num_states);

static const struct op_arg args[] = {
    OUT(output, LIKE(q), "batch tokens " STATE_HEADS " head_dim"),
    INOUT(initial_state, F32 | F16 | BF16, "num_states " STATE_HEADS " head_dim head_dim", .fill = NORMAL),
    INOUT(intermediate_states_buffer, LIKE(initial_state), "batch tokens " STATE_HEADS " head_dim head_dim",
          .flags = OPTIONAL | DENSE),
    IN(q, F16 | BF16, "batch tokens num_q_heads head_dim", .fill = NORMAL),
    IN(k, LIKE(q), "batch tokens num_k_heads head_dim", .fill = NORMAL),
    IN(v, LIKE(q), "batch tokens num_v_heads head_dim", .fill = NORMAL),
    IN(initial_state_indices, I32, "batch", .fill = PERMUTED("num_states")),
    IN(A_log, F32, STATE_HEADS, .fill = UNIFORM(-4, 1)),
    IN(a, LIKE(q), "batch tokens " STATE_HEADS, .fill = NORMAL),
    IN(dt_bias, LIKE_OR(q, F32), STATE_HEADS, .fill = NORMAL),
    IN(b, LIKE(q), "batch tokens " STATE_HEADS, .fill = NORMAL),
    NUMBER(scale, .min = 0),
    IN(ssm_state_indices, I32, "batch tokens", .flags = OPTIONAL | DENSE, .fill = PERMUTED("num_states")),
    FLAG(update_state),
    FLAG(skip_qk_l2norm),
    IN(output_state_indices, I32, "batch", .flags = OPTIONAL, .fill = PERMUTED("num_states")),
    {0},
};

static const char *const rules[] = {HEAD_RULES, "num_states >= batch", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_gated_delta_rule_mtp *c = from;
    struct gated_delta_view *t = to;
    *t = (struct gated_delta_view){.output = c->output,
                                   .q = c->q,
                                   .k = c->k,
                                   .v = c->v,
                                   .alpha = c->a,
                                   .beta = c->b,
                                   .A_log = c->A_log,
                                   .dt_bias = c->dt_bias,
                                   .initial = c->initial_state,
                                   .initial_rows = c->initial_state_indices,
                                   .kept = c->ssm_state_indices ? c->initial_state : c->intermediate_states_buffer,
                                   .kept_rows = c->ssm_state_indices,
                                   .kept_every = 1,
                                   .pads = 1,
                                   .scale = c->scale,
                                   .l2norm = !c->skip_qk_l2norm};
    if (c->update_state) {
        t->final = c->initial_state;
        t->final_rows = c->output_state_indices ? c->output_state_indices : c->initial_state_indices;
    }
}

static const struct op_range ranges[] = {
    {"batch", 0, 5, 0},       {"tokens", 1, 6, 0},       {"num_q_heads", 1, 4, 0}, {"num_k_heads", 1, 4, 0},
    {"num_v_heads", 1, 4, 0}, {"head_dim", 64, 128, 64}, {"num_states", 0, 20, 0}, {0}};

#define QWEN3_NEXT " num_q_heads=16 num_k_heads=16 num_v_heads=32 head_dim=128"
static const struct op_shape shapes[] = {
    {"qwen3_next_1", "batch=1 tokens=4 num_states=8 dtype=bf16 initial_state:dtype=f32" QWEN3_NEXT},
    {"qwen3_next_16", "batch=16 tokens=4 num_states=128 dtype=f16 initial_state:dtype=bf16" QWEN3_NEXT},
    {"qwen3_next_64", "batch=64 tokens=3 num_states=64 dtype=bf16 initial_state:dtype=f32 -ssm_state_indices" QWEN3_NEXT},
    {"qwen3_next_one",
     "batch=4 tokens=1 num_states=9 dtype=bf16 initial_state:dtype=bf16 update_state=0 -ssm_state_indices" QWEN3_NEXT},
    {"one_draft", "batch=1 tokens=2 num_states=8 dtype=bf16 initial_state:dtype=f32" QWEN3_NEXT},
    {"drafts_8", "batch=3 tokens=8 num_states=30 dtype=bf16 initial_state:dtype=bf16" QWEN3_NEXT},
    {"drafts_f16", "batch=3 tokens=5 num_states=20 dtype=f16 initial_state:dtype=f16 update_state=1" QWEN3_NEXT},
    {"drafts_mixed", "batch=3 tokens=2 num_states=9 dtype=bf16 initial_state:dtype=f16 -ssm_state_indices" QWEN3_NEXT},
    {"last_alone", "batch=3 tokens=4 num_states=5 dtype=bf16 initial_state:dtype=bf16 update_state=1 -ssm_state_indices "
                   "-intermediate_states_buffer" QWEN3_NEXT},
    {"last_alone_f32", "batch=3 tokens=4 num_states=5 dtype=f16 initial_state:dtype=f32 update_state=1 -ssm_state_indices "
                       "-intermediate_states_buffer" QWEN3_NEXT},
    {"head_64",
     "batch=3 tokens=3 num_states=15 num_q_heads=6 num_k_heads=2 num_v_heads=2 head_dim=64 dtype=f16 initial_state:dtype=f16"},
    {0},
};

DEFINE_OP("gated_delta", "draft tokens by the gated delta rule, keeping the state after each", .rules = rules,
          .kernels = gated_delta_token_kernels, .view = view, .validate = gated_delta_validate, .ranges = ranges,
          .shapes = shapes, .verify = gated_delta_verify, .make = gated_delta_make, .cost = gated_delta_cost);
