/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_quantize_append_paged_kv_cache. */
#include "harness/problem.h"
#include "op/validate.h"
#include "ops/page/nvfp4_append_kernels.h"

#define OP nvfp4_quantize_append_paged_kv_cache
DIMS(pages, page_size, num_kv_heads, head_dim, nnz, num_indices, batch);

static const struct op_arg args[] = {
    INOUT(k_cache, E2M1X2 | U8, NVFP4_CACHE("head_dim//2")),
    INOUT(v_cache, LIKE(k_cache), NVFP4_CACHE("head_dim//2")),
    INOUT(k_cache_sf, E4M3 | U8, NVFP4_CACHE("head_dim//16")),
    INOUT(v_cache_sf, LIKE(k_cache_sf), NVFP4_CACHE("head_dim//16")),
    IN(append_key, F16 | BF16, "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(append_value, LIKE(append_key), "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(batch_indices, I32, "nnz"),
    IN(positions, I32, "nnz"),
    IN(kv_indices, I32, "num_indices", .fill = PERMUTED("pages")),
    IN(kv_indptr, I32, "batch+1", .fill = INDPTR("num_indices")),
    IN(kv_last_page_len, I32, "batch", .flags = OPTIONAL),
    NUMBER(k_scale, NVFP4_SCALE),
    NUMBER(v_scale, NVFP4_SCALE),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"page_size > 0", "head_dim % 16 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_quantize_append_paged_kv_cache *a = from;
    *(struct nvfp4_append_view *)to = (struct nvfp4_append_view){
        .cache = {a->k_cache, a->v_cache},
        .cache_sf = {a->k_cache_sf, a->v_cache_sf},
        .append = {a->append_key, a->append_value},
        .paged = PAGED_TENSORS_OF(a),
        .scale = {a->k_scale, a->v_scale},
        .kv_layout = a->kv_layout,
    };
}

static flashinfer_status validate(const struct call *call)
{
    const struct nvfp4_append_view *v = call_view(call);
    const struct dims *d = call_dims(call);
    return validate_paged_tokens(call, &v->paged, d->pages, d->page_size, "k_cache");
}

static const struct op_range ranges[] = {
    {"pages", 20, 30, 0}, {"page_size", 1, 20, 0},   {"num_kv_heads", 0, 6, 0}, {"head_dim", 16, 400, 16},
    {"nnz", 0, 100, 0},   {"num_indices", 0, 20, 0}, {"batch", 0, 8, 0},        {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "pages=64 page_size=16 num_kv_heads=3 head_dim=64 nnz=1 num_indices=16 batch=1 append_key:dtype=bf16 "
                     "k_cache:dtype=u8 k_cache_sf:dtype=e4m3"},
    {"odd", "pages=9 page_size=5 num_kv_heads=1 head_dim=48 nnz=19 num_indices=7 batch=3 append_key:dtype=f16 "
            "k_cache:dtype=e2m1x2 k_cache_sf:dtype=u8"},
    {"llama_8b_decode", "pages=512 page_size=16 num_kv_heads=8 head_dim=128 nnz=128 num_indices=512 batch=128 "
                        "append_key:dtype=bf16 k_cache:dtype=u8 k_cache_sf:dtype=e4m3"},
    {"llama_8b_prefill", "pages=300 page_size=16 num_kv_heads=8 head_dim=128 nnz=4096 num_indices=300 batch=4 "
                         "append_key:dtype=bf16 k_cache:dtype=u8 k_cache_sf:dtype=e4m3"},
    {"head_major", "pages=40 page_size=32 num_kv_heads=8 head_dim=256 nnz=999 num_indices=40 batch=3 kv_layout=HND "
                   "append_key:dtype=f16 k_cache:dtype=u8 k_cache_sf:dtype=u8"},
    {0},
};

DEFINE_OP("page", "quantizes keys and values of new tokens to blocks of e2m1 in a paged cache", .rules = rules, .view = view,
          .kernels = nvfp4_append_kernels, .validate = validate, .ranges = ranges, .shapes = shapes,
          .reference = nvfp4_append_reference, .make = problem_give_slots, .cost = nvfp4_append_cost);
