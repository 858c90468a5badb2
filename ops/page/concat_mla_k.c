/* SPDX-License-Identifier: Apache-2.0 */
/* The op concat_mla_k. */
#include "ops/page/copy_heads_kernels.h"

#define OP concat_mla_k
DIMS(nnz, num_heads, nope_dim, rope_dim);

static const struct op_arg args[] = {
    OUT(k, LIKE(k_nope), "nnz num_heads nope_dim+rope_dim"),
    IN(k_nope, COPY_DTYPES, "nnz num_heads nope_dim"),
    IN(k_rope, LIKE(k_nope), "nnz 1 rope_dim"),
    {0},
};

static void view(const void *from, void *to)
{
    const struct flashinfer_concat_mla_k *a = from;
    int64_t nope_dim = tensor_shape(a->k_nope, -1);
    *(struct copy_heads_view *)to = (struct copy_heads_view){.pair = {{a->k_nope, a->k, 0}, {a->k_rope, a->k, nope_dim}}};
}

static const struct op_range ranges[] = {
    {"nnz", 0, 60, 0}, {"num_heads", 0, 40, 0}, {"nope_dim", 0, 140, 0}, {"rope_dim", 0, 80, 0}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "nnz=7 num_heads=3 nope_dim=37 rope_dim=10 dtype=f16"},
    {"deepseek_v3_token", "nnz=1 num_heads=128 nope_dim=128 rope_dim=64 dtype=bf16"},
    {"deepseek_v3_tp8_batch", "nnz=128 num_heads=16 nope_dim=128 rope_dim=64 dtype=bf16"},
    {"deepseek_v3_prefill", "nnz=4096 num_heads=128 nope_dim=128 rope_dim=64 dtype=bf16"},
    {"deepseek_v3_tp8_fp8", "nnz=4096 num_heads=16 nope_dim=128 rope_dim=64 dtype=e4m3"},
    {0},
};

DEFINE_OP("page", "keys of multi-head latent attention: each head's own part, then the part that all heads share", .view = view,
          .kernels = copy_heads_kernels, .ranges = ranges, .shapes = shapes, .reference = copy_heads_reference,
          .cost = copy_heads_cost);
