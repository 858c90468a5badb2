/* SPDX-License-Identifier: Apache-2.0 */
/* The op merge_state_in_place. Its kernels are shared by the ops that merge states: merge_states_kernels.c. */
#include "flashinfer/attention.h"
#include "ops/attention/merge_states_kernels.h"

#define OP merge_state_in_place
DIMS(tokens, num_heads, head_dim);

static const struct op_arg args[] = {
    INOUT(v, F16 | BF16 | F32, "tokens num_heads head_dim", .fill = MERGE_STATES_V),
    INOUT(s, F32, "tokens num_heads", .fill = UNIFORM(-20, 20)),
    IN(v_other, LIKE(v), "tokens num_heads head_dim", .fill = MERGE_STATES_V),
    IN(s_other, F32, "tokens num_heads", .fill = UNIFORM(-20, 20)),
    IN(mask, BOOL | U8, "tokens", .flags = OPTIONAL, .fill = MASK),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_merge_state_in_place *a = from;
    *(struct merge_states_view *)to = (struct merge_states_view){
        .v_merged = a->v, .s_merged = a->s, .v = {a->v, a->v_other}, .s = {a->s, a->s_other}, .mask = a->mask};
}

static const struct op_range ranges[] = {{"tokens", 0, 70, 0}, {"num_heads", 1, 40, 0}, {"head_dim", 1, 300, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "tokens=1 num_heads=9 head_dim=64 v:dtype=bf16 -mask"},
    {"llama_8b_decode", "tokens=128 num_heads=32 head_dim=128 v:dtype=bf16 mask:dtype=boolean"},
    {"llama_8b_prefill", "tokens=4096 num_heads=32 head_dim=128 v:dtype=bf16 -mask"},
    {"odd", "tokens=7 num_heads=5 head_dim=111 v:dtype=f16 mask:dtype=u8"},
    {"f32", "tokens=512 num_heads=16 head_dim=128 v:dtype=f32 -mask"},
    {0},
};

DEFINE_OP("attention", "merges the results over another set of keys into those at hand", .rules = merge_states_rules,
          .view = view, .kernels = merge_states_kernels, .ranges = ranges, .shapes = shapes, .reference = merge_states_reference,
          .make = merge_states_spoil);
