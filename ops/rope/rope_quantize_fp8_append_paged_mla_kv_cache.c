/* SPDX-License-Identifier: Apache-2.0 */
/* The op rope_quantize_fp8_append_paged_mla_kv_cache. */
#include "harness/problem.h"
#include "ops/rope/rope_kernels.h"

#define OP rope_quantize_fp8_append_paged_mla_kv_cache
DIMS(pages, page_size, nnz, num_qo_heads, rotary_dim, nope_dim, max_positions, batch, num_indices);

static const struct op_arg args[] = {
    INOUT(q_rope_out, E4M3 | E5M2, "nnz num_qo_heads rotary_dim"),
    INOUT(q_nope_out, LIKE(q_rope_out), "nnz num_qo_heads nope_dim"),
    INOUT(ckv_cache, LIKE(q_rope_out), "pages page_size nope_dim"),
    INOUT(kpe_cache, LIKE(q_rope_out), "pages page_size rotary_dim"),
    IN(q_rope, F16 | BF16, "nnz num_qo_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(k_rope, LIKE(q_rope), "nnz rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(q_nope, LIKE(q_rope), "nnz num_qo_heads nope_dim", .fill = NORMAL_WITH_ALL),
    IN(k_nope, LIKE(q_rope), "nnz nope_dim", .fill = NORMAL_WITH_ALL),
    IN(cos_sin_cache, F32, "max_positions rotary_dim", .fill = UNIFORM(-1, 1)),
    IN(pos_ids, I32 | I64, "nnz", .fill = BELOW("max_positions")),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    FLAG(interleave),
    NUMBER(quant_scale_q, .value = 1, .min = 1e-30),
    NUMBER(quant_scale_kv, .value = 1, .min = 1e-30),
    {0},
};

static const char *const rules[] = {"page_size > 0", "rotary_dim > 0", "rotary_dim % 2 == 0", "nnz == 0 or max_positions > 0",
                                    NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_rope_quantize_fp8_append_paged_mla_kv_cache *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q_rope_out,
        .k_out = a->kpe_cache,
        .q_nope_out = a->q_nope_out,
        .k_nope_out = a->ckv_cache,
        .q = a->q_rope,
        .k = a->k_rope,
        .q_nope = a->q_nope,
        .k_nope = a->k_nope,
        .pos_ids = a->pos_ids,
        .cos_sin_cache = a->cos_sin_cache,
        .paged = PAGED_TENSORS_OF(a),
        .interleave = a->interleave,
        .q_scale = a->quant_scale_q,
        .kv_scale = a->quant_scale_kv,
    };
}

static const struct op_range ranges[] = {{"pages", 20, 30, 0},
                                         {"page_size", 1, 20, 0},
                                         {"nnz", 0, 60, 0},
                                         {"num_qo_heads", 0, 9, 0},
                                         {"rotary_dim", 2, 140, 2},
                                         {"nope_dim", 0, 140, 0},
                                         {"max_positions", 1, 500, 0},
                                         {"num_indices", 0, 20, 0},
                                         {"batch", 0, 8, 0},
                                         {0}};

static const struct op_shape shapes[] = {
    {"odd", "pages=9 page_size=5 nnz=19 num_qo_heads=3 rotary_dim=22 nope_dim=33 max_positions=99 batch=3 num_indices=7 "
            "interleave=1 q_rope:dtype=f16 q_rope_out:dtype=e5m2 pos_ids:dtype=i32"},
    {"deepseek_v3_token", "pages=64 page_size=64 nnz=1 num_qo_heads=128 rotary_dim=64 nope_dim=512 max_positions=4096 batch=1 "
                          "num_indices=16 q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {"deepseek_v3_decode", "pages=128 page_size=64 nnz=64 num_qo_heads=128 rotary_dim=64 nope_dim=512 max_positions=4096 "
                           "batch=64 num_indices=128 interleave=1 q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64"},
    {"deepseek_v3_tp8_prefill", "pages=100 page_size=64 nnz=4096 num_qo_heads=16 rotary_dim=64 nope_dim=512 max_positions=4096 "
                                "batch=4 num_indices=100 interleave=1 q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {"halves", "pages=20 page_size=4 nnz=30 num_qo_heads=2 rotary_dim=32 nope_dim=16 max_positions=64 batch=4 num_indices=20 "
               "quant_scale_q=0.3 quant_scale_kv=2.5 q_rope:dtype=f16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotated and other parts of q and k, scaled and rounded to 8 bits, keys into a paged MLA cache", .rules = rules,
          .view = view, .kernels = rope_kernels, .validate = rope_validate, .ranges = ranges, .shapes = shapes,
          .reference = rope_reference, .make = problem_give_slots, .cost = rope_cost);
