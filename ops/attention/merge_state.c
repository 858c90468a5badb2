/* SPDX-License-Identifier: Apache-2.0 */
/* The op merge_state. Its kernels are shared by the ops that merge states: merge_states_kernels.c. */
#include "flashinfer/attention.h"
#include "ops/attention/merge_states_kernels.h"

#define OP merge_state
DIMS(tokens, num_heads, head_dim);

static const struct op_arg args[] = {
    OUT(v_merged, LIKE(v_a), "tokens num_heads head_dim"),
    OUT(s_merged, F32, "tokens num_heads"),
    IN(v_a, F16 | BF16 | F32, "tokens num_heads head_dim", .fill = MERGE_STATES_V),
    IN(s_a, F32, "tokens num_heads", .fill = UNIFORM(-20, 20)),
    IN(v_b, LIKE(v_a), "tokens num_heads head_dim", .fill = MERGE_STATES_V),
    IN(s_b, F32, "tokens num_heads", .fill = UNIFORM(-20, 20)),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_merge_state *a = from;
    *(struct merge_states_view *)to = (struct merge_states_view){
        .v_merged = a->v_merged, .s_merged = a->s_merged, .v = {a->v_a, a->v_b}, .s = {a->s_a, a->s_b}};
}

static const struct op_range ranges[] = {{"tokens", 0, 70, 0}, {"num_heads", 1, 40, 0}, {"head_dim", 1, 300, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "tokens=1 num_heads=9 head_dim=64 dtype=bf16"},
    {"llama_8b_decode", "tokens=128 num_heads=32 head_dim=128 dtype=bf16"},
    {"llama_8b_prefill", "tokens=4096 num_heads=32 head_dim=128 dtype=bf16"},
    {"gemma", "tokens=300 num_heads=8 head_dim=256 dtype=f16"},
    {"odd", "tokens=7 num_heads=5 head_dim=111 dtype=f16"},
    {"f32", "tokens=512 num_heads=16 head_dim=128 dtype=f32"},
    {0},
};

DEFINE_OP("attention", "merges the results over two sets of keys", .rules = merge_states_rules, .view = view,
          .kernels = merge_states_kernels, .ranges = ranges, .shapes = shapes, .reference = merge_states_reference,
          .make = merge_states_spoil);
