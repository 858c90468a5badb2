/* SPDX-License-Identifier: Apache-2.0 */
/* The op merge_states. Its kernels are shared by the ops that merge states: merge_states_kernels.c. */
#include "flashinfer/attention.h"
#include "ops/attention/merge_states_kernels.h"

#define OP merge_states
DIMS(tokens, num_states, num_heads, head_dim);

static const struct op_arg args[] = {
    OUT(v_merged, LIKE(v), "tokens num_heads head_dim"),
    OUT(s_merged, F32, "tokens num_heads"),
    IN(v, F16 | BF16 | F32, "tokens num_states num_heads head_dim", .fill = MERGE_STATES_V),
    IN(s, F32, "tokens num_states num_heads", .fill = UNIFORM(-20, 20)),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_merge_states *a = from;
    *(struct merge_states_view *)to =
        (struct merge_states_view){.v_merged = a->v_merged, .s_merged = a->s_merged, .v = {a->v}, .s = {a->s}};
}

static const struct op_range ranges[] = {
    {"tokens", 0, 40, 0}, {"num_states", 0, 30, 0}, {"num_heads", 1, 24, 0}, {"head_dim", 1, 200, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "tokens=1 num_states=4 num_heads=9 head_dim=64 dtype=bf16"},
    {"llama_8b_decode", "tokens=128 num_states=8 num_heads=32 head_dim=128 dtype=bf16"},
    {"llama_8b_prefill", "tokens=4096 num_states=8 num_heads=32 head_dim=128 dtype=bf16"},
    {"two", "tokens=512 num_states=2 num_heads=32 head_dim=128 dtype=f16"},
    {"many", "tokens=40 num_states=67 num_heads=16 head_dim=128 dtype=bf16"},
    {"odd", "tokens=7 num_states=3 num_heads=5 head_dim=111 dtype=f16"},
    {"f32", "tokens=64 num_states=5 num_heads=16 head_dim=256 dtype=f32"},
    {0},
};

DEFINE_OP("attention", "merges the results over any number of sets of keys", .rules = merge_states_rules, .view = view,
          .kernels = merge_states_kernels, .ranges = ranges, .shapes = shapes, .reference = merge_states_reference,
          .make = merge_states_spoil);
