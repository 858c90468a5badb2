/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_rope_with_cos_sin_cache. */
#include "ops/rope/rope_kernels.h"

#define OP apply_rope_with_cos_sin_cache
DIMS(nnz, q_columns, k_columns, rotary_dim, max_positions);

static const struct op_arg args[] = {
    OUT(query_out, LIKE(query), "nnz q_columns", MAY_ALIAS(query)),
    OUT(key_out, LIKE(query), "nnz k_columns", MAY_ALIAS(key)),
    IN(positions, I32 | I64, "nnz", .fill = BELOW("max_positions")),
    IN(query, F16 | BF16, "nnz q_columns", .fill = NORMAL_WITH_ALL),
    IN(key, LIKE(query), "nnz k_columns", .fill = NORMAL_WITH_ALL),
    INT(head_size, .min = 1),
    IN(cos_sin_cache, F32, "max_positions rotary_dim", .fill = UNIFORM(-1, 1)),
    FLAG(interleave),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_apply_rope_with_cos_sin_cache *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->query_out,
        .k_out = a->key_out,
        .q = a->query,
        .k = a->key,
        .pos_ids = a->positions,
        .cos_sin_cache = a->cos_sin_cache,
        .head_size = a->head_size,
        .interleave = a->interleave,
    };
}

DEFINE_OP("rope", "rotary position embedding of query and key by cosines and sines from a table",
          .rules = rope_cache_rules, .view = view, .kernels = rope_kernels, .validate = rope_validate,
          .ranges = rope_cache_ranges, .shapes = rope_cache_shapes, .reference = rope_reference, .cost = rope_cost);
