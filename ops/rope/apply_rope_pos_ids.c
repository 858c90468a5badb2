/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_rope_pos_ids. */
#include "ops/rope/rope_kernels.h"

#define OP apply_rope_pos_ids
DIMS(nnz, num_qo_heads, num_kv_heads, head_dim);

static const struct op_arg args[] = {
    OUT(q_rope, LIKE(q), "nnz num_qo_heads head_dim", MAY_ALIAS(q)),
    OUT(k_rope, LIKE(q), "nnz num_kv_heads head_dim", MAY_ALIAS(k)),
    IN(q, F16 | BF16, "nnz num_qo_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(k, LIKE(q), "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(pos_ids, I32 | I64, "nnz", .fill = UNIFORM(0, 1e6)),
    ROPE_OPTIONS,
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_apply_rope_pos_ids *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q_rope,
        .k_out = a->k_rope,
        .q = a->q,
        .k = a->k,
        .pos_ids = a->pos_ids,
        ROPE_OPTIONS_OF(a),
    };
}

DEFINE_OP("rope", "rotary position embedding of q and k at given positions", .rules = rope_rules, .view = view,
          .kernels = rope_kernels, .ranges = rope_ranges, .shapes = rope_position_shapes, .reference = rope_reference,
          .cost = rope_cost);
