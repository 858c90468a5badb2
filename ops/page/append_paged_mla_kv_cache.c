/* SPDX-License-Identifier: Apache-2.0 */
/* The op append_paged_mla_kv_cache. */
#include "harness/problem.h"
#include "ops/page/copy_heads_kernels.h"

#define OP append_paged_mla_kv_cache
DIMS(pages, page_size, ckv_dim, kpe_dim, nnz, num_indices, batch);

static const struct op_arg args[] = {
    INOUT(ckv_cache, COPY_DTYPES, "pages page_size ckv_dim"),
    INOUT(kpe_cache, LIKE(ckv_cache), "pages page_size kpe_dim"),
    IN(append_ckv, LIKE(ckv_cache), "nnz ckv_dim"),
    IN(append_kpe, LIKE(ckv_cache), "nnz kpe_dim"),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_last_page_len, I32, "batch", .flags = OPTIONAL),
    {0},
};

static const char *const rules[] = {"page_size > 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_append_paged_mla_kv_cache *a = from;
    *(struct copy_heads_view *)to = (struct copy_heads_view){
        .pair = {{a->append_ckv, a->ckv_cache, 0}, {a->append_kpe, a->kpe_cache, 0}},
        .paged = PAGED_TENSORS_OF(a),
    };
}

static const struct op_range ranges[] = {
    {"pages", 20, 30, 0}, {"page_size", 1, 20, 0},   {"ckv_dim", 0, 600, 0}, {"kpe_dim", 0, 80, 0},
    {"nnz", 0, 100, 0},   {"num_indices", 0, 20, 0}, {"batch", 0, 8, 0},     {0}};

static const struct op_shape shapes[] = {
    {"odd", "pages=9 page_size=5 ckv_dim=37 kpe_dim=6 nnz=19 num_indices=7 batch=3 dtype=i8"},
    {"deepseek_v3_token", "pages=64 page_size=64 ckv_dim=512 kpe_dim=64 nnz=1 num_indices=64 batch=1 dtype=bf16"},
    {"deepseek_v3_decode", "pages=256 page_size=64 ckv_dim=512 kpe_dim=64 nnz=128 num_indices=256 batch=128 dtype=bf16"},
    {"deepseek_v3_prefill", "pages=300 page_size=64 ckv_dim=512 kpe_dim=64 nnz=16384 num_indices=300 batch=4 dtype=bf16"},
    {"deepseek_v3_fp8", "pages=100 page_size=64 ckv_dim=512 kpe_dim=64 nnz=4096 num_indices=100 batch=3 dtype=e4m3"},
    {0},
};

DEFINE_OP("page", "copies latent keys of new tokens, and the rotated part of keys, into a paged cache", .rules = rules,
          .view = view, .kernels = copy_heads_kernels, .validate = copy_heads_validate, .ranges = ranges, .shapes = shapes,
          .reference = copy_heads_reference, .make = problem_give_slots, .cost = copy_heads_cost);
