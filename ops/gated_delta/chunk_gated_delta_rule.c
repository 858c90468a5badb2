/* SPDX-License-Identifier: Apache-2.0 */
/* The op chunk_gated_delta_rule. Kernels: see gated_delta_kernels.h, and chunk_gated_delta_rule_cpu.c. */
#include "flashinfer/gated_delta.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define OP chunk_gated_delta_rule
DIMS(tokens, num_q_heads, num_k_heads, num_v_heads, head_dim, num_sequences, num_states);

#define STATE STATE_HEADS " head_dim head_dim"
#define STATES F32 | F16 | BF16 | E4M3 | E5M2

static const struct op_arg args[] = {
    OUT(output, LIKE(q), "tokens " STATE_HEADS " head_dim"),
    INOUT(output_state, STATES, "num_states " STATE, .flags = OPTIONAL, MAY_ALIAS(initial_state),
          .required_if = "checkpoint_every_n_tokens > 0"),
    INOUT(state_checkpoints, LIKE(output_state), "num_checkpoints " STATE, .flags = OPTIONAL,
          .required_if = "checkpoint_every_n_tokens > 0"),
    IN(q, F16 | BF16, "tokens num_q_heads head_dim", .fill = NORMAL),
    IN(k, LIKE(q), "tokens num_k_heads head_dim", .fill = NORMAL),
    IN(v, LIKE(q), "tokens num_v_heads head_dim", .fill = NORMAL),
    IN(g, F32, "tokens " STATE_HEADS, .flags = OPTIONAL, .fill = UNIFORM(0.9, 1)),
    IN(beta, F32, "tokens " STATE_HEADS, .flags = OPTIONAL, .fill = UNIFORM(0, 1)),
    NUMBER(scale, .min = 0),
    IN(initial_state, STATES, "num_states " STATE, .flags = OPTIONAL, .fill = NORMAL),
    IN(cu_seqlens, I32 | I64, "num_sequences+1", .fill = INDPTR("tokens")),
    FLAG(use_qk_l2norm_in_kernel),
    IN(checkpoint_cu_starts, I32 | I64, "num_sequences+1", .flags = OPTIONAL, .fill = INDPTR("num_checkpoints"),
       .required_if = "checkpoint_every_n_tokens > 0"),
    INT(checkpoint_every_n_tokens),
    IN(state_indices, I32, "num_sequences", .flags = OPTIONAL, .fill = PERMUTED("num_states")),
    {0},
};

static const char *const rules[] = {HEAD_RULES,
                                    "num_states >= num_sequences",
                                    "tokens == 0 or num_sequences > 0",
                                    "checkpoint_every_n_tokens % 64 == 0",
                                    NULL};

static const struct jit_kernel chunk_cpu = {"chunk_gated_delta_rule_cpu", JIT_CPU, {"T:dtype", "HEAD_DIM"}};

enum { WAY_SLICES };
enum { MIN_PARTS = 8 };

/* A part has a state, or where there are few of them half of its values: each half makes A and P for itself. */
static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct gated_delta_view *t = call_view(call);
    const struct dims *d = call_dims(call);
    int64_t heads = tensor_shape(t->output, 1);
    if (d->num_sequences > INT32_MAX / most(heads, 1))
        return "there are more states than parts can be counted";
    int32_t *constant = way_spec(way, &chunk_cpu);
    constant[0] = tensor_dtype(t->q);
    constant[1] = (int32_t)d->head_dim;
    way->value[WAY_SLICES] = d->num_sequences * heads < MIN_PARTS ? 2 : 1;
    return NULL;
}

static flashinfer_status run_cpu(const struct call *call, const struct way *way)
{
    struct gated_delta_args a = gated_delta_args(call);
    int64_t parts = a.num_sequences * a.num_heads * way->value[WAY_SLICES];
    return parts ? call_launch(call, way, 0, &(struct jit_launch){.grid = {(uint32_t)parts}, .args = &a, .args_size = sizeof a})
                 : FLASHINFER_OK;
}

static void view(const void *from, void *to)
{
    const struct flashinfer_chunk_gated_delta_rule *c = from;
    struct gated_delta_view *t = to;
    *t = (struct gated_delta_view){.output = c->output,
                                   .q = c->q,
                                   .k = c->k,
                                   .v = c->v,
                                   .alpha = c->g,
                                   .beta = c->beta,
                                   .initial = c->initial_state,
                                   .final = c->output_state,
                                   .initial_rows = c->state_indices,
                                   .final_rows = c->state_indices,
                                   .cu_seqlens = c->cu_seqlens,
                                   .scale = c->scale,
                                   .l2norm = c->use_qk_l2norm_in_kernel};
    if (c->checkpoint_every_n_tokens) {
        t->kept = c->state_checkpoints;
        t->kept_starts = c->checkpoint_cu_starts;
        t->kept_every = c->checkpoint_every_n_tokens;
    }
}

static const struct op_kernel kernels[] = {
    {"chunk_gated_delta_rule_sm90", OP_CUDA, 90, 90, gated_delta_fit_sm90, gated_delta_run_sm90},
    {"gated_delta_recurrent_sm80", OP_CUDA, 80, 0, gated_delta_fit_few_sm80, gated_delta_run_recurrent},
    {"chunk_gated_delta_rule_sm80", OP_CUDA, 80, 0, gated_delta_fit_sm80, gated_delta_run_sm80},
    {"chunk_gated_delta_rule_cpu", OP_CPU, 0, 0, fit_cpu, run_cpu},
    {0},
};

static const struct op_range ranges[] = {{"tokens", 0, 400, 0},
                                         {"num_q_heads", 1, 4, 0},
                                         {"num_k_heads", 1, 4, 0},
                                         {"num_v_heads", 1, 4, 0},
                                         {"head_dim", 64, 128, 64},
                                         {"num_sequences", 0, 5, 0},
                                         {"num_states", 0, 7, 0},
                                         {"num_checkpoints", 0, 8, 0},
                                         {"checkpoint_every_n_tokens", 0, 192, 64},
                                         {0}};

#define QWEN3_NEXT "head_dim=128 checkpoint_every_n_tokens=0 output_state:dtype=f32 initial_state:dtype=f32"
static const struct op_shape shapes[] = {
    {"qwen3_next_tp8",
     "tokens=2048 num_q_heads=2 num_k_heads=2 num_v_heads=4 num_sequences=1 num_states=1 dtype=bf16 " QWEN3_NEXT},
    {"qwen3_next_tp8_long",
     "tokens=8192 num_q_heads=2 num_k_heads=2 num_v_heads=4 num_sequences=1 num_states=1 dtype=bf16 " QWEN3_NEXT},
    {"qwen3_next",
     "tokens=8192 num_q_heads=16 num_k_heads=16 num_v_heads=32 num_sequences=4 num_states=64 dtype=bf16 " QWEN3_NEXT},
    {"qwen3_next_long",
     "tokens=32768 num_q_heads=16 num_k_heads=16 num_v_heads=32 num_sequences=1 num_states=1 dtype=bf16 " QWEN3_NEXT},
    {"qwen3_next_short",
     "tokens=1000 num_q_heads=4 num_k_heads=4 num_v_heads=8 num_sequences=37 num_states=40 dtype=f16 " QWEN3_NEXT},
    {"checkpoints", "tokens=1500 num_q_heads=4 num_k_heads=2 num_v_heads=2 head_dim=128 num_sequences=3 num_states=3 "
                    "num_checkpoints=22 checkpoint_every_n_tokens=64 dtype=bf16 output_state:dtype=bf16"},
    {"pieces", "tokens=3000 num_q_heads=16 num_k_heads=8 num_v_heads=8 head_dim=128 num_sequences=3 num_states=5 "
               "num_checkpoints=50 checkpoint_every_n_tokens=64 dtype=f16 output_state:dtype=f16"},
    {"long", "tokens=131072 num_q_heads=1 num_k_heads=1 num_v_heads=2 num_sequences=1 num_states=1 dtype=bf16 " QWEN3_NEXT},
    {"no_gates", "tokens=1000 num_q_heads=16 num_k_heads=16 num_v_heads=32 num_sequences=3 num_states=3 dtype=bf16 -g "
                 "-beta " QWEN3_NEXT},
    {"no_gates_pieces", "tokens=3000 num_q_heads=16 num_k_heads=16 num_v_heads=16 num_sequences=2 num_states=2 dtype=bf16 -g "
                        "-beta " QWEN3_NEXT},
    {"no_g", "tokens=1000 num_q_heads=16 num_k_heads=16 num_v_heads=32 num_sequences=3 num_states=3 dtype=bf16 -g " QWEN3_NEXT},
    {"no_beta", "tokens=1000 num_q_heads=16 num_k_heads=16 num_v_heads=32 num_sequences=3 num_states=3 dtype=bf16 -beta "
                QWEN3_NEXT},
    {"head_64", "tokens=777 num_q_heads=2 num_k_heads=2 num_v_heads=6 head_dim=64 num_sequences=3 num_states=4 dtype=f16 "
                "checkpoint_every_n_tokens=0"},
    {0},
};

DEFINE_OP("gated_delta", "the gated delta rule over whole sequences", .rules = rules, .kernels = kernels, .view = view,
          .validate = gated_delta_validate, .ranges = ranges, .shapes = shapes, .verify = gated_delta_verify,
          .make = gated_delta_make, .cost = gated_delta_cost);
