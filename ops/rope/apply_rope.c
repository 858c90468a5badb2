/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_rope. */
#include "ops/rope/rope_kernels.h"

#define OP apply_rope
DIMS(nnz, num_qo_heads, num_kv_heads, head_dim);

static const struct op_arg args[] = {
    OUT(q_rope, LIKE(q), "nnz num_qo_heads head_dim", MAY_ALIAS(q)),
    OUT(k_rope, LIKE(q), "nnz num_kv_heads head_dim", MAY_ALIAS(k)),
    IN(q, F16 | BF16, "nnz num_qo_heads head_dim", .fill = ROPE_SPECIAL),
    IN(k, LIKE(q), "nnz num_kv_heads head_dim", .fill = ROPE_SPECIAL),
    IN(indptr, I32 | I64, "batch+1", .fill = INDPTR("nnz")),
    IN(offsets, LIKE(indptr), "batch", .fill = UNIFORM(0, 1e6)),
    INT(rotary_dim),
    FLAG(interleave),
    NUMBER(rope_scale, .value = 1, .min = 1e-6),
    NUMBER(rope_theta, .value = 1e4, .min = 1e-6),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_apply_rope *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q_rope,
        .k_out = a->k_rope,
        .q = a->q,
        .k = a->k,
        .indptr = a->indptr,
        .offsets = a->offsets,
        .rotary_dim = a->rotary_dim,
        .interleave = a->interleave,
        .rope_scale = a->rope_scale,
        .rope_theta = a->rope_theta,
    };
}

static const struct op_shape shapes[] = {
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 head_dim=64 dtype=bf16 batch=1 indptr:dtype=i32"},
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 head_dim=90 rotary_dim=54 interleave=1 dtype=f16 batch=3 indptr:dtype=i64"},
    {"llama_8b_decode",
     "nnz=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 batch=128 indptr:dtype=i32"},
    {"llama_8b_prefill",
     "nnz=4096 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 batch=4 indptr:dtype=i64"},
    {"partial",
     "nnz=64 num_qo_heads=32 num_kv_heads=32 head_dim=80 rotary_dim=32 interleave=1 dtype=f16 batch=40 indptr:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotary position embedding of q and k of a batch of requests", .rules = rope_rules, .view = view,
          .kernels = rope_kernels, .ranges = rope_ranges, .shapes = shapes, .reference = rope_reference, .make = rope_make,
          .cost = rope_cost);
