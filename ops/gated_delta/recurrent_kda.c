/* SPDX-License-Identifier: Apache-2.0 */
/* The op recurrent_kda. Kernels: see gated_delta_kernels.h. */
#include "flashinfer/gated_delta.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define OP recurrent_kda
DIMS(batch, tokens, num_q_heads, num_v_heads, head_dim, num_sequences, num_states, num_sources, columns);

#define STATE "num_v_heads head_dim head_dim"

/* Only lists of lengths say which tokens belong together where there are not `tokens` of each of the batch. */
#define PACKED "num_sequences > 0 and num_sequences != batch or 1 < columns and columns < tokens"

static const struct op_arg args[] = {
    OUT(output, LIKE(q), "batch tokens num_v_heads head_dim"),
    INOUT(initial_state, F32 | F16 | BF16, "num_states " STATE, .flags = OPTIONAL, .fill = NORMAL),
    INOUT(state_checkpoints, LIKE(initial_state), "num_checkpoints " STATE, .flags = OPTIONAL,
          .required_if = "checkpoint_every_n_tokens > 0"),
    INOUT(correction_cache, F32, "num_slots num_v_heads cache_tokens head_dim", .flags = OPTIONAL),
    INOUT(kg_cache, LIKE(q), "num_slots num_v_heads cache_tokens 2*head_dim", .flags = OPTIONAL),
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
    NUMBER(lower_bound, .min = -100, .flags = UP_TO_ZERO),
    IN(cu_seqlens, I32 | I64, "num_sequences+1", .flags = OPTIONAL, .fill = INDPTR("tokens"), .required_if = PACKED),
    IN(ssm_state_indices, I32, "num_sequences columns", .flags = OPTIONAL | DENSE, .fill = PERMUTED("num_states")),
    IN(num_accepted_tokens, I32, "num_sequences", .flags = OPTIONAL, .fill = LENGTHS(0, "tokens")),
    IN(initial_state_source, LIKE(initial_state), "num_sources " STATE, .flags = OPTIONAL, .fill = NORMAL),
    IN(initial_state_indices, I32, "num_sequences", .flags = OPTIONAL, .fill = PERMUTED("num_sources")),
    FLAG(beta_is_logit),
    IN(checkpoint_cu_starts, I32 | I64, "num_sequences+1", .flags = OPTIONAL, .fill = INDPTR("num_boundaries"),
       .required_if = "checkpoint_every_n_tokens > 0"),
    INT(checkpoint_every_n_tokens),
    IN(checkpoint_state_indices, I32, "num_boundaries", .flags = OPTIONAL, .fill = PERMUTED("num_checkpoints")),
    FLAG(disable_state_update),
    {0},
};

static const char *const rules[] = {"num_v_heads % num_q_heads == 0",
                                    "head_dim == 64 or head_dim == 128",
                                    "num_sequences > 0 or batch*tokens == 0",
                                    "columns > 0",
                                    "num_states >= batch",
                                    "num_states >= num_sequences",
                                    "num_sources >= batch",
                                    "num_sources >= num_sequences",
                                    "checkpoint_every_n_tokens == 0 or columns == 1",
                                    "num_slots >= batch",
                                    "num_slots >= num_sequences",
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
                                   .cu_seqlens = c->cu_seqlens,
                                   .added = c->correction_cache,
                                   .given = c->kg_cache,
                                   .accepted = sourced ? NULL : c->num_accepted_tokens,
                                   .pads = 1,
                                   .per_key = 1,
                                   .lower_bound = c->lower_bound,
                                   .beta_is_logit = c->beta_is_logit,
                                   .scale = c->scale,
                                   .l2norm = !c->skip_qk_l2norm};
    if (c->checkpoint_every_n_tokens > 0) {
        t->kept = c->state_checkpoints;
        t->kept_rows = c->checkpoint_state_indices;
        t->kept_starts = c->checkpoint_cu_starts;
        t->kept_every = c->checkpoint_every_n_tokens;
        t->kept_first = !c->checkpoint_state_indices;
    }
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
                                         {"num_sources", 0, 8, 0}, {"columns", 1, 4, 0},      {"num_sequences", 0, 5, 0},
                                         {"num_slots", 0, 8, 0},   {"cache_tokens", 1, 5, 0},
                                         {"num_checkpoints", 0, 9, 0}, {"num_boundaries", 0, 9, 0},
                                         {"checkpoint_every_n_tokens", 0, 3, 0}, {0}};

#define KIMI_LINEAR                                                                                              \
    " num_sources=64 num_q_heads=32 num_v_heads=32 head_dim=128 num_slots=64 cache_tokens=4 -initial_state_source " \
    "-initial_state_indices -correction_cache -kg_cache -cu_seqlens -state_checkpoints -checkpoint_cu_starts " \
    "-checkpoint_state_indices checkpoint_every_n_tokens=0"
#define HEAD_64                                                                                              \
    " num_sources=8 num_q_heads=3 num_v_heads=6 head_dim=64 num_slots=8 cache_tokens=1 " \
    "-initial_state_source -initial_state_indices -correction_cache -kg_cache -cu_seqlens -state_checkpoints "               \
    "-checkpoint_cu_starts -checkpoint_state_indices checkpoint_every_n_tokens=0"
#define HEAD_128                                                                                             \
    " num_sources=64 num_q_heads=2 num_v_heads=4 head_dim=128 num_slots=64 cache_tokens=1 " \
    "-initial_state_source -initial_state_indices -correction_cache -kg_cache -cu_seqlens -state_checkpoints "               \
    "-checkpoint_cu_starts -checkpoint_state_indices checkpoint_every_n_tokens=0"
static const struct op_shape shapes[] = {
    {"kimi_linear_1", "batch=1 num_sequences=1 tokens=1 columns=1 num_states=4 dtype=bf16 initial_state:dtype=bf16" KIMI_LINEAR},
    {"kimi_linear_64",
     "batch=64 num_sequences=64 tokens=1 columns=1 num_states=80 dtype=bf16 initial_state:dtype=bf16" KIMI_LINEAR},
    {"kimi_linear_drafts",
     "batch=16 num_sequences=16 tokens=4 columns=4 num_states=64 use_gate_in_kernel=1 dtype=bf16 "
     "initial_state:dtype=f32" KIMI_LINEAR},
    {"head_64", "batch=3 num_sequences=3 tokens=2 columns=2 num_states=8 num_sources=4 num_slots=4 cache_tokens=3 num_q_heads=2 "
                "num_v_heads=6 head_dim=64 dtype=f16 use_gate_in_kernel=1 lower_bound=-5 initial_state:dtype=f16 -cu_seqlens "
                "checkpoint_every_n_tokens=0"},
    {"kimi_linear_f16",
     "batch=16 num_sequences=16 tokens=1 columns=1 num_states=20 dtype=f16 initial_state:dtype=f16" KIMI_LINEAR},
    {"kimi_linear_f16_gates", "batch=16 num_sequences=16 tokens=1 columns=1 num_states=20 use_gate_in_kernel=1 dtype=f16 "
                              "initial_state:dtype=f16" KIMI_LINEAR},
    {"kimi_linear_mixed",
     "batch=16 num_sequences=16 tokens=1 columns=1 num_states=20 dtype=bf16 initial_state:dtype=f16" KIMI_LINEAR},
    {"kimi_linear_gates", "batch=16 num_sequences=16 tokens=1 columns=1 num_states=20 use_gate_in_kernel=1 dtype=bf16 "
                          "initial_state:dtype=bf16" KIMI_LINEAR},
    {"head_64_one", "batch=5 num_sequences=5 tokens=1 columns=1 num_states=8 dtype=bf16 initial_state:dtype=bf16" HEAD_64},
    {"head_64_f16", "batch=5 num_sequences=5 tokens=1 columns=1 num_states=8 dtype=f16 initial_state:dtype=f16" HEAD_64},
    {"head_64_mixed", "batch=5 num_sequences=5 tokens=1 columns=1 num_states=8 dtype=f16 initial_state:dtype=bf16" HEAD_64},
    {"head_64_gates", "batch=5 num_sequences=5 tokens=1 columns=1 num_states=8 use_gate_in_kernel=1 lower_bound=-5 dtype=bf16 "
                      "initial_state:dtype=bf16" HEAD_64},
    {"drafts", "batch=3 num_sequences=3 tokens=5 columns=5 num_states=20 use_gate_in_kernel=1 dtype=bf16 "
               "initial_state:dtype=bf16" HEAD_128},
    {"drafts_f16", "batch=2 num_sequences=2 tokens=8 columns=8 num_states=16 dtype=f16 initial_state:dtype=f16" HEAD_128},
    {"last_alone", "batch=3 num_sequences=3 tokens=4 columns=1 num_states=5 dtype=bf16 initial_state:dtype=bf16" HEAD_128},
    {"last_alone_f32", "batch=64 num_sequences=64 tokens=5 columns=1 num_states=64 dtype=bf16 initial_state:dtype=f32" HEAD_128},
    {"last_alone_gates", "batch=3 num_sequences=3 tokens=3 columns=1 num_states=5 use_gate_in_kernel=1 dtype=bf16 "
                         "initial_state:dtype=bf16" HEAD_128},
    {"last_alone_8", "batch=3 num_sequences=3 tokens=8 columns=1 num_states=5 use_gate_in_kernel=1 lower_bound=-5 dtype=bf16 "
                     "initial_state:dtype=bf16" HEAD_128},
    {"last_alone_64", "batch=5 num_sequences=5 tokens=7 columns=1 num_states=8 dtype=f16 initial_state:dtype=f16" HEAD_64},
    {"last_alone_64_few", "batch=5 num_sequences=5 tokens=4 columns=1 num_states=8 use_gate_in_kernel=1 dtype=bf16 "
                          "initial_state:dtype=bf16" HEAD_64},
    {"drafts_mixed", "batch=5 num_sequences=5 tokens=4 columns=4 num_states=20 dtype=bf16 initial_state:dtype=f16" HEAD_64},
    {"drafts_f32", "batch=3 num_sequences=3 tokens=4 columns=4 num_states=20 dtype=bf16 initial_state:dtype=f32" HEAD_128},
    {"long_f16", "batch=2 num_sequences=2 tokens=12 columns=1 num_states=5 dtype=f16 initial_state:dtype=f16" HEAD_128},
    {"long_f32", "batch=2 num_sequences=2 tokens=12 columns=1 num_states=5 dtype=f16 initial_state:dtype=f32" HEAD_128},
    {"checkpoints", "batch=1 num_sequences=3 tokens=400 columns=1 num_states=4 num_sources=4 num_slots=4 cache_tokens=1 "
                    "num_q_heads=2 num_v_heads=2 head_dim=128 num_checkpoints=9 num_boundaries=9 "
                    "checkpoint_every_n_tokens=64 dtype=bf16 initial_state:dtype=f32 -correction_cache -kg_cache "
                    "-checkpoint_state_indices"},
    {"verify", "batch=1 num_sequences=4 tokens=11 columns=1 num_states=6 num_sources=6 num_slots=6 cache_tokens=4 num_q_heads=4 "
               "num_v_heads=4 head_dim=128 dtype=bf16 disable_state_update=1 checkpoint_every_n_tokens=0 "
               "initial_state:dtype=bf16"},
    {0},
};

DEFINE_OP("gated_delta", "a few tokens of each sequence by the delta rule with a decay of each key", .rules = rules,
          .kernels = gated_delta_token_kernels, .view = view, .validate = gated_delta_validate, .ranges = ranges,
          .shapes = shapes, .verify = gated_delta_verify, .make = gated_delta_make, .cost = gated_delta_cost);
