/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_quantize_append_paged_kv_cache_with_slot_mapping. */
#include "harness/problem.h"
#include "ops/page/nvfp4_append_kernels.h"

#define OP nvfp4_quantize_append_paged_kv_cache_with_slot_mapping
DIMS(pages, page_size, num_kv_heads, head_dim, nnz);

static const struct op_arg args[] = {
    INOUT(k_cache, E2M1X2 | U8, NVFP4_CACHE("head_dim//2")),
    INOUT(v_cache, LIKE(k_cache), NVFP4_CACHE("head_dim//2")),
    INOUT(k_cache_sf, E4M3 | U8, NVFP4_CACHE("head_dim//16")),
    INOUT(v_cache_sf, LIKE(k_cache_sf), NVFP4_CACHE("head_dim//16")),
    IN(append_key, F16 | BF16, "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(append_value, LIKE(append_key), "nnz num_kv_heads head_dim", .fill = NORMAL_WITH_ALL),
    IN(slot_mapping, I32 | I64, "nnz"),
    NUMBER(k_scale, NVFP4_SCALE),
    NUMBER(v_scale, NVFP4_SCALE),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"page_size > 0", "head_dim % 16 == 0", NULL};

static void view(const void *from, void *to)
{
    const struct flashinfer_nvfp4_quantize_append_paged_kv_cache_with_slot_mapping *a = from;
    *(struct nvfp4_append_view *)to = (struct nvfp4_append_view){
        .cache = {a->k_cache, a->v_cache},
        .cache_sf = {a->k_cache_sf, a->v_cache_sf},
        .append = {a->append_key, a->append_value},
        .slot_mapping = a->slot_mapping,
        .scale = {a->k_scale, a->v_scale},
        .kv_layout = a->kv_layout,
    };
}

/* Distinct slots in random order; in random problems one of eight is none of the cache's. */
static void make(struct problem *problem)
{
    struct problem_tensor *slots = problem_tensor(problem, "slot_mapping");
    int64_t nnz = problem_dim(problem, "nnz"), all = problem_dim(problem, "pages") * problem_dim(problem, "page_size");
    int64_t first = all ? (int64_t)problem_random(problem, (uint64_t)all) : 0, step = 1;
    while (step * 7 < all && all % 7)
        step *= 7;
    for (int64_t token = 0; token < nnz; token++) {
        int64_t slot = token < all ? (first + token * step) % all : -1;
        if (problem->seed && problem_random(problem, 8) == 0)
            slot = token % 2 ? all + token : -1 - token;
        problem_set(slots, token, (double)slot);
    }
}

static const struct op_range ranges[] = {{"pages", 20, 30, 0},      {"page_size", 1, 20, 0}, {"num_kv_heads", 0, 6, 0},
                                         {"head_dim", 16, 400, 16}, {"nnz", 0, 100, 0},      {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "pages=64 page_size=16 num_kv_heads=3 head_dim=64 nnz=1 append_key:dtype=bf16 k_cache:dtype=u8 "
                     "k_cache_sf:dtype=e4m3 slot_mapping:dtype=i64"},
    {"odd", "pages=9 page_size=5 num_kv_heads=1 head_dim=48 nnz=19 append_key:dtype=f16 k_cache:dtype=e2m1x2 k_cache_sf:dtype=u8 "
            "slot_mapping:dtype=i32"},
    {"llama_8b_decode", "pages=512 page_size=16 num_kv_heads=8 head_dim=128 nnz=128 append_key:dtype=bf16 k_cache:dtype=u8 "
                        "k_cache_sf:dtype=e4m3 slot_mapping:dtype=i64"},
    {"llama_8b_prefill", "pages=300 page_size=16 num_kv_heads=8 head_dim=128 nnz=4096 append_key:dtype=bf16 k_cache:dtype=u8 "
                         "k_cache_sf:dtype=e4m3 slot_mapping:dtype=i64"},
    {"head_major", "pages=40 page_size=32 num_kv_heads=8 head_dim=256 nnz=999 kv_layout=HND append_key:dtype=f16 "
                   "k_cache:dtype=u8 k_cache_sf:dtype=u8 slot_mapping:dtype=i32"},
    {0},
};

DEFINE_OP("page", "quantizes keys and values of new tokens to blocks of e2m1 in a paged cache, in given slots", .rules = rules,
          .view = view, .kernels = nvfp4_append_kernels, .ranges = ranges, .shapes = shapes, .reference = nvfp4_append_reference,
          .make = make, .cost = nvfp4_append_cost);
