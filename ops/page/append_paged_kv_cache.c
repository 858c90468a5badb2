/* SPDX-License-Identifier: Apache-2.0 */
/* The op append_paged_kv_cache. */
#include "harness/problem.h"
#include "ops/page/copy_heads_kernels.h"

#define OP append_paged_kv_cache
DIMS(pages, page_size, num_kv_heads, head_dim, nnz, num_indices, batch);

#define CACHE "NHD: pages page_size num_kv_heads head_dim | HND: pages num_kv_heads page_size head_dim"

static const struct op_arg args[] = {
    INOUT(k_cache, COPY_DTYPES, CACHE, .by = "kv_layout"),
    INOUT(v_cache, LIKE(k_cache), CACHE, .by = "kv_layout"),
    IN(append_key, LIKE(k_cache), "nnz num_kv_heads head_dim"),
    IN(append_value, LIKE(k_cache), "nnz num_kv_heads head_dim"),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_last_page_len, I32, "batch", .flags = OPTIONAL),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"page_size > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_append_paged_kv_cache *a = from;
    *(struct copy_heads_view *)to = (struct copy_heads_view){
        .pair = {{a->append_key, a->k_cache, 0}, {a->append_value, a->v_cache, 0}},
        .paged = PAGED_TENSORS_OF(a),
        .kv_layout = a->kv_layout,
    };
}

static const struct op_range ranges[] = {
    {"pages", 20, 30, 0}, {"page_size", 1, 20, 0},   {"num_kv_heads", 0, 6, 0}, {"head_dim", 0, 160, 0},
    {"nnz", 0, 100, 0},   {"num_indices", 0, 20, 0}, {"batch", 0, 8, 0},        {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "pages=64 page_size=16 num_kv_heads=3 head_dim=64 nnz=1 num_indices=16 batch=1 dtype=bf16"},
    {"odd", "pages=9 page_size=5 num_kv_heads=1 head_dim=37 nnz=19 num_indices=7 batch=3 dtype=u8"},
    {"llama_8b_decode", "pages=512 page_size=16 num_kv_heads=8 head_dim=128 nnz=128 num_indices=512 batch=128 dtype=bf16"},
    {"llama_8b_prefill", "pages=300 page_size=16 num_kv_heads=8 head_dim=128 nnz=4096 num_indices=300 batch=4 dtype=bf16"},
    {"llama_8b_prefill_16k", "pages=1100 page_size=16 num_kv_heads=8 head_dim=128 nnz=16384 num_indices=1100 batch=4 dtype=bf16"},
    {"head_major", "pages=40 page_size=32 num_kv_heads=8 head_dim=128 nnz=999 num_indices=40 batch=3 kv_layout=HND dtype=e4m3"},
    {0},
};

DEFINE_OP("page", "copies keys and values of new tokens into a paged cache", .rules = rules, .view = view,
          .kernels = copy_heads_kernels, .validate = copy_heads_validate, .ranges = ranges, .shapes = shapes,
          .reference = copy_heads_reference, .make = problem_give_slots, .cost = copy_heads_cost);
