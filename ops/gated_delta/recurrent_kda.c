/* SPDX-License-Identifier: Apache-2.0 */
/* The op recurrent_kda. Kernels: see gated_delta_kernels.h. */
#include "flashinfer/gated_delta.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define OP recurrent_kda
DIMS(batch, tokens, num_q_heads, num_v_heads, head_dim, num_states, num_sources, columns);

#define STATE "num_v_heads head_dim head_dim"

static const struct op_arg args[] = {
    OUT(output, LIKE(q), "batch tokens num_v_heads head_dim"),
    INOUT(initial_state, F32 | F16 | BF16, "num_states " STATE, .flags = OPTIONAL, .fill = NORMAL),
    IN(q, F16 | BF16, "batch tokens num_q_heads head_dim", .fill = NORMAL),
    IN(k, LIKE(q), "batch tokens num_q_heads head_dim", .fill = NORMAL),
    IN(v, LIKE(q), "batch tokens num_v_heads head_dim", .fill = NORMAL),
    IN(g, LIKE(q), "batch tokens num_v_heads head_dim", .fill = UNIFORM(-2, 0)),
    IN(beta, LIKE(q), "batch tokens num_v_heads", .fill = UNIFORM(0, 1)),
    IN(A_log, F32, "num_q_heads", .flags = OPTIONAL, .fill = UNIFORM(-4, 1), .required_if = "use_gate_in_kernel == 1"),
    IN(dt_bias, F32, "num_q_heads head_dim", .flags = OPTIONAL | DENSE, .fill = NORMAL),
    NUMBER(scale, .min = 0),
    FLAG(skip_qk_l2norm),
    FLAG(use_gate_in_kernel),
    NUMBER(lower_bound, .min = -100, .max = 0),
    IN(ssm_state_indices, I32, "batch columns", .flags = OPTIONAL | DENSE, .fill = PERMUTED("num_states")),
    IN(num_accepted_tokens, I32, "batch", .flags = OPTIONAL, .fill = LENGTHS(0, "tokens")),
    IN(initial_state_source, LIKE(initial_state), "num_sources " STATE, .flags = OPTIONAL, .fill = NORMAL),
    IN(initial_state_indices, I32, "batch", .flags = OPTIONAL, .fill = PERMUTED("num_sources")),
    FLAG(beta_is_logit),
    FLAG(disable_state_update),
    {0},
};

static const char *const rules[] = {"num_v_heads % num_q_heads == 0",
                                    "head_dim == 64 or head_dim == 128",
                                    "num_states >= batch * columns",
                                    "num_states >= batch",
                                    "num_sources >= batch",
                                    "columns == 1 or columns == tokens",
                                    NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_recurrent_kda *c = from;
    struct gated_delta_view *t = to;
    bool drafts = c->ssm_state_indices && tensor_shape(c->ssm_state_indices, 1) > 1, sourced = c->initial_state_source;
    *t = (struct gated_delta_view){.output = c->output,
                                   .q = c->q,
                                   .k = c->k,
                                   .v = c->v,
                                   .alpha = c->g,
                                   .beta = c->beta,
                                   .A_log = c->use_gate_in_kernel ? c->A_log : NULL,
                                   .dt_bias = c->use_gate_in_kernel ? c->dt_bias : NULL,
                                   .initial = sourced ? c->initial_state_source : c->initial_state,
                                   .initial_rows = sourced ? c->initial_state_indices : c->ssm_state_indices,
                                   .accepted = sourced ? NULL : c->num_accepted_tokens,
                                   .pads = 1,
                                   .per_key = 1,
                                   .lower_bound = c->lower_bound,
                                   .beta_is_logit = c->beta_is_logit,
                                   .scale = c->scale,
                                   .l2norm = !c->skip_qk_l2norm};
    if (c->disable_state_update || !c->initial_state)
        return;
    if (drafts) {
        t->kept = c->initial_state;
        t->kept_rows = c->ssm_state_indices;
        t->kept_every = 1;
    } else {
        t->final = c->initial_state;
        t->final_rows = c->ssm_state_indices;
    }
}

static const struct op_range ranges[] = {{"batch", 0, 5, 0},       {"tokens", 1, 4, 0},      {"num_q_heads", 1, 3, 0},
                                         {"num_v_heads", 1, 6, 0}, {"head_dim", 64, 128, 64}, {"num_states", 0, 20, 0},
                                         {"num_sources", 0, 8, 0}, {"columns", 1, 4, 0},      {0}};

#define KIMI_LINEAR " num_sources=64 num_q_heads=32 num_v_heads=32 head_dim=128 -initial_state_source -initial_state_indices"
static const struct op_shape shapes[] = {
    {"kimi_linear_1", "batch=1 tokens=1 columns=1 num_states=4 dtype=bf16 initial_state:dtype=bf16" KIMI_LINEAR},
    {"kimi_linear_64", "batch=64 tokens=1 columns=1 num_states=80 dtype=bf16 initial_state:dtype=bf16" KIMI_LINEAR},
    {"kimi_linear_drafts",
     "batch=16 tokens=4 columns=4 num_states=64 use_gate_in_kernel=1 dtype=bf16 initial_state:dtype=f32" KIMI_LINEAR},
    {"head_64", "batch=3 tokens=2 columns=2 num_states=8 num_sources=4 num_q_heads=2 num_v_heads=6 head_dim=64 dtype=f16 "
                "use_gate_in_kernel=1 lower_bound=-5 initial_state:dtype=f16"},
    {0},
};

DEFINE_OP("gated_delta", "a few tokens of each sequence by the delta rule with a decay of each key", .rules = rules,
          .kernels = gated_delta_decode_kernels, .view = view, .validate = gated_delta_validate, .ranges = ranges,
          .shapes = shapes, .verify = gated_delta_verify, .make = gated_delta_make, .cost = gated_delta_cost);
