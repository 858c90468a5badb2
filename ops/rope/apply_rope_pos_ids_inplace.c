/* SPDX-License-Identifier: Apache-2.0 */
/* The op apply_rope_pos_ids_inplace. Its kernels are shared with apply_rope_pos_ids: apply_rope_kernels.c. */
#include "flashinfer/rope.h"
#include "ops/rope/apply_rope_kernels.h"

#define OP apply_rope_pos_ids_inplace
DIMS(nnz, num_qo_heads, num_kv_heads, head_dim);

#define SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)

static const struct op_arg args[] = {
    INOUT(q, F16 | BF16, "nnz num_qo_heads head_dim", .fill = SPECIAL),
    INOUT(k, LIKE(q), "nnz num_kv_heads head_dim", .fill = SPECIAL),
    IN(pos_ids, I32 | I64, "nnz", .fill = UNIFORM(0, 1e6)),
    INT(rotary_dim),
    FLAG(interleave),
    NUMBER(rope_scale, .value = 1, .min = 1e-6),
    NUMBER(rope_theta, .value = 1e4, .min = 1e-6),
    {0},
};

static const char *const rules[] = {"head_dim > 0", "head_dim % 2 == 0", "rotary_dim % 2 == 0", "rotary_dim <= head_dim", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_apply_rope_pos_ids_inplace *a = from;
    *(struct rope_view *)to = (struct rope_view){.q_rope = a->q,
                                                 .k_rope = a->k,
                                                 .q = a->q,
                                                 .k = a->k,
                                                 .pos_ids = a->pos_ids,
                                                 .rotary_dim = a->rotary_dim,
                                                 .interleave = a->interleave,
                                                 .rope_scale = a->rope_scale,
                                                 .rope_theta = a->rope_theta};
}

static void cost(const struct call *call, double *bytes, double *operations)
{
    const struct flashinfer_apply_rope_pos_ids_inplace *a = call_args(call);
    const struct dims *d = call_dims(call);
    double heads = (double)(d->num_qo_heads + d->num_kv_heads), rotated = (double)(a->rotary_dim ? a->rotary_dim : d->head_dim);
    *bytes = (double)d->nnz * (2 * heads * rotated * dtype_bytes(tensor_dtype(a->q)) + dtype_bytes(tensor_dtype(a->pos_ids)));
    *operations = 0;
}

static const struct op_range ranges[] = {{"nnz", 0, 100, 0},      {"num_qo_heads", 0, 20, 0}, {"num_kv_heads", 0, 8, 0},
                                         {"head_dim", 2, 280, 2}, {"rotary_dim", 0, 280, 2},  {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "nnz=1 num_qo_heads=9 num_kv_heads=3 head_dim=64 dtype=bf16 pos_ids:dtype=i32"},
    {"odd", "nnz=7 num_qo_heads=5 num_kv_heads=1 head_dim=90 rotary_dim=54 interleave=1 dtype=f16 pos_ids:dtype=i64"},
    {"llama_8b_decode", "nnz=128 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 pos_ids:dtype=i32"},
    {"llama_8b_prefill", "nnz=4096 num_qo_heads=32 num_kv_heads=8 head_dim=128 rope_theta=500000 dtype=bf16 pos_ids:dtype=i64"},
    {"partial", "nnz=64 num_qo_heads=32 num_kv_heads=32 head_dim=80 rotary_dim=32 interleave=1 dtype=f16 pos_ids:dtype=i32"},
    {"wide", "nnz=3 num_qo_heads=2 num_kv_heads=1 head_dim=1152 dtype=f16 pos_ids:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotary position embedding of q and k at given positions, in place", .rules = rules, .view = view,
          .kernels = apply_rope_kernels, .ranges = ranges, .shapes = shapes, .reference = apply_rope_reference, .cost = cost);
