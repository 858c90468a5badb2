/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_llama31_rope_inplace. */
#include "ops/rope/rope_kernels.h"

#define OP apply_llama31_rope_inplace
DIMS(nnz, num_qo_heads, num_kv_heads, head_dim);

static const struct op_arg args[] = {
    INOUT(q, F16 | BF16, "nnz num_qo_heads head_dim", .fill = ROPE_SPECIAL),
    INOUT(k, LIKE(q), "nnz num_kv_heads head_dim", .fill = ROPE_SPECIAL),
    IN(indptr, I32 | I64, "batch+1", .fill = INDPTR("nnz")),
    IN(offsets, LIKE(indptr), "batch", .fill = UNIFORM(0, 1e6)),
    INT(rotary_dim),
    FLAG(interleave),
    NUMBER(rope_scale, .value = 8, .min = 1e-6),
    NUMBER(rope_theta, .value = 5e5, .min = 1e-6),
    NUMBER(low_freq_factor, .value = 1, .min = 1e-6),
    NUMBER(high_freq_factor, .value = 4, .min = 1e-6),
    NUMBER(old_context_len, .value = 8192, .min = 1),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_apply_llama31_rope_inplace *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q,
        .k_out = a->k,
        .q = a->q,
        .k = a->k,
        .indptr = a->indptr,
        .offsets = a->offsets,
        .rotary_dim = a->rotary_dim,
        .interleave = a->interleave,
        .rope_scale = a->rope_scale,
        .rope_theta = a->rope_theta,
        .low_freq_factor = a->low_freq_factor,
        .high_freq_factor = a->high_freq_factor,
        .old_context_len = a->old_context_len,
    };
}

static const struct op_shape shapes[] = {
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 head_dim=64 dtype=bf16 batch=1 indptr:dtype=i32"},
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 head_dim=90 rotary_dim=54 interleave=1 dtype=f16 batch=3 indptr:dtype=i64"},
    {"llama_8b_decode", "nnz=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 dtype=bf16 batch=128 indptr:dtype=i32"},
    {"llama_8b_prefill", "nnz=4096 num_qo_heads=32 num_kv_heads=8 head_dim=128 dtype=bf16 batch=4 indptr:dtype=i64"},
    {"partial",
     "nnz=64 num_qo_heads=32 num_kv_heads=32 head_dim=80 rotary_dim=32 interleave=1 dtype=f16 batch=40 indptr:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotary position embedding of q and k with the frequencies of Llama 3.1 of a batch of requests, in place",
          .rules = rope_rules, .view = view, .kernels = rope_kernels, .ranges = rope_ranges, .shapes = shapes,
          .reference = rope_reference, .make = rope_make, .cost = rope_cost);
