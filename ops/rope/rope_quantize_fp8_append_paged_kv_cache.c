/* SPDX-License-Identifier: Apache-2.0 */
/* The op rope_quantize_fp8_append_paged_kv_cache. */
#include "harness/problem.h"
#include "ops/rope/rope_kernels.h"

#define OP rope_quantize_fp8_append_paged_kv_cache
DIMS(pages, page_size, nnz, num_qo_heads, num_kv_heads, v_dim, rotary_dim, nope_dim, max_positions, batch, num_indices);

#define CACHE(width) "NHD: pages page_size num_kv_heads " width " | HND: pages num_kv_heads page_size " width

static const struct op_arg args[] = {
    INOUT(q_rope_out, E4M3 | E5M2, "nnz num_qo_heads rotary_dim"),
    INOUT(q_nope_out, LIKE(q_rope_out), "nnz num_qo_heads nope_dim", .flags = OPTIONAL, .required_if = "nope_dim > 0"),
    INOUT(k_cache, LIKE(q_rope_out), CACHE("(rotary_dim+nope_dim)"), .by = "kv_layout"),
    INOUT(v_cache, LIKE(q_rope_out), CACHE("v_dim"), .by = "kv_layout"),
    IN(q_rope, F16 | BF16, "nnz num_qo_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(k_rope, LIKE(q_rope), "nnz num_kv_heads rotary_dim", .fill = NORMAL_WITH_ALL),
    IN(q_nope, LIKE(q_rope), "nnz num_qo_heads nope_dim", .flags = OPTIONAL, .required_if = "nope_dim > 0",
       .fill = NORMAL_WITH_ALL),
    IN(k_nope, LIKE(q_rope), "nnz num_kv_heads nope_dim", .flags = OPTIONAL, .required_if = "nope_dim > 0",
       .fill = NORMAL_WITH_ALL),
    IN(v, LIKE(q_rope), "nnz num_kv_heads v_dim", .fill = NORMAL_WITH_ALL),
    IN(cos_sin_cache, F32, "max_positions rotary_dim", .fill = UNIFORM(-1, 1)),
    IN(pos_ids, I32 | I64, "nnz", .fill = BELOW("max_positions")),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    FLAG(interleave),
    NUMBER(quant_scale_q, .value = 1, .min = 1e-30),
    NUMBER(quant_scale_kv, .value = 1, .min = 1e-30),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"page_size > 0", "rotary_dim > 0", "rotary_dim % 2 == 0", "nnz == 0 or max_positions > 0",
                                    NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_rope_quantize_fp8_append_paged_kv_cache *a = from;
    *(struct rope_view *)to = (struct rope_view){
        .q_out = a->q_rope_out,
        .k_out = a->k_cache,
        .q_nope_out = a->q_nope_out,
        .k_nope_out = a->k_cache,
        .q = a->q_rope,
        .k = a->k_rope,
        .q_nope = a->q_nope,
        .k_nope = a->k_nope,
        .v_out = a->v_cache,
        .v = a->v,
        .kv_layout = a->kv_layout,
        .pos_ids = a->pos_ids,
        .cos_sin_cache = a->cos_sin_cache,
        .paged = PAGED_TENSORS_OF(a),
        .interleave = a->interleave,
        .q_scale = a->quant_scale_q,
        .kv_scale = a->quant_scale_kv,
    };
}

static const struct op_range ranges[] = {{"pages", 20, 30, 0},      {"page_size", 1, 20, 0},   {"nnz", 0, 60, 0},
                                         {"num_qo_heads", 0, 9, 0}, {"num_kv_heads", 0, 4, 0}, {"v_dim", 0, 140, 0},
                                         {"rotary_dim", 2, 140, 2}, {"nope_dim", 0, 140, 0},   {"max_positions", 1, 500, 0},
                                         {"num_indices", 0, 20, 0}, {"batch", 0, 8, 0},        {0}};

static const struct op_shape shapes[] = {
    {"odd", "pages=9 page_size=5 nnz=19 num_qo_heads=3 num_kv_heads=1 rotary_dim=22 nope_dim=33 v_dim=7 max_positions=99 batch=3 "
            "num_indices=7 interleave=1 q_rope:dtype=f16 q_rope_out:dtype=e5m2 pos_ids:dtype=i32"},
    {"smollm2_135m", "pages=64 page_size=16 nnz=1 num_qo_heads=9 num_kv_heads=3 rotary_dim=64 nope_dim=0 v_dim=64 "
                     "max_positions=8192 batch=1 num_indices=16 "
                     "q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32 -q_nope -k_nope -q_nope_out"},
    {"llama_8b_decode", "pages=512 page_size=16 nnz=128 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 nope_dim=0 v_dim=128 "
                        "max_positions=8192 batch=128 "
                        "num_indices=512 q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64 -q_nope -k_nope -q_nope_out"},
    {"llama_8b_prefill",
     "pages=300 page_size=16 nnz=4096 num_qo_heads=32 num_kv_heads=8 rotary_dim=128 nope_dim=0 v_dim=128 max_positions=8192 "
     "batch=4 "
     "num_indices=300 kv_layout=HND q_rope:dtype=bf16 q_rope_out:dtype=e4m3 pos_ids:dtype=i64 -q_nope -k_nope -q_nope_out"},
    {"partial",
     "pages=40 page_size=32 nnz=99 num_qo_heads=16 num_kv_heads=4 rotary_dim=32 nope_dim=48 v_dim=80 max_positions=2048 batch=3 "
     "num_indices=40 quant_scale_q=0.5 quant_scale_kv=3 interleave=1 q_rope:dtype=f16 q_rope_out:dtype=e4m3 pos_ids:dtype=i32"},
    {0},
};

DEFINE_OP("rope", "rotated and other parts of q and k, scaled and rounded to 8 bits, keys and values into a paged cache",
          .rules = rules, .view = view, .kernels = rope_kernels, .validate = rope_validate, .ranges = ranges, .shapes = shapes,
          .reference = rope_reference, .make = problem_give_slots, .cost = rope_cost);
