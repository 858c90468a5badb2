/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_llama31_rope_inplace. */
#include "ops/rope/rope_kernels.h"

#define OP apply_llama31_rope_inplace
DIMS(nnz, num_qo_heads, num_kv_heads, head_dim);

static const struct op_arg args[] = {
    INOUT(q, F16 | BF16, "nnz num_qo_heads head_dim", .fill = NORMAL_WITH_ALL),
    INOUT(k, LIKE(q), "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(indptr, I32 | I64, "batch+1", .fill = INDPTR("nnz")),
    IN(offsets, LIKE(indptr), "batch", .fill = UNIFORM(0, 1e6)),
    ROPE_LLAMA31_OPTIONS,
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
        ROPE_LLAMA31_OPTIONS_OF(a),
    };
}

DEFINE_OP("rope", "rotary position embedding of q and k with the frequencies of Llama 3.1 of a batch of requests, in place",
          .rules = rope_rules, .view = view, .kernels = rope_kernels, .ranges = rope_ranges, .shapes = rope_request_shapes,
          .reference = rope_reference, .make = rope_make, .cost = rope_cost);
