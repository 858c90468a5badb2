/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops share that quantize keys and values into a paged cache. Kernels: nvfp4_append_sm80.cu, nvfp4_append_cpu.c. */
#include "ops/page/nvfp4_append_kernels.h"

#include <math.h>

#include "ops/page/nvfp4_append_args.h"

enum { THREADS = 256, MAX_GRID_Y = 65535, CPU_ELEMENTS_PER_PART = 16384 /* some 2 us */ };

static const struct jit_kernel sm80 = {"nvfp4_append_sm80", JIT_CUDA, {"T:dtype", "MAPPED", "SLOT:dtype", "ALIGNED"}};
static const struct jit_kernel cpu = {"nvfp4_append_cpu", JIT_CPU, {"T:dtype", "MAPPED", "SLOT:dtype"}};

static int slot_axis(const struct nvfp4_append_view *v)
{
    return v->kv_layout == FLASHINFER_HND ? 2 : 1;
}
static int head_axis(const struct nvfp4_append_view *v)
{
    return 3 - slot_axis(v);
}

static void fill_strides(int64_t stride[3], const struct nvfp4_append_view *v, const DLTensor *t)
{
    stride[0] = tensor_stride(t, 0);
    stride[1] = tensor_stride(t, slot_axis(v));
    stride[2] = tensor_stride(t, head_axis(v));
}

static struct nvfp4_append_args fill_args(const struct nvfp4_append_view *v)
{
    struct nvfp4_append_args a = {
        .nnz = tensor_shape(v->append[0], 0),
        .num_heads = (uint32_t)tensor_shape(v->append[0], 1),
        .blocks = (uint32_t)(tensor_shape(v->append[0], 2) / NVFP4_BLOCK),
        .num_slots = tensor_shape(v->cache[0], 0) * tensor_shape(v->cache[0], slot_axis(v)),
        .tokens.page_size = tensor_shape(v->cache[0], slot_axis(v)),
    };
    for (int i = 0; i < 2; i++) {
        struct nvfp4_half *h = &a.half[i];
        bool is_tensor = v->scale[i].kind == FLASHINFER_NUMBER_TENSOR;
        *h = (struct nvfp4_half){.from = tensor_data(v->append[i]),
                                 .codes = tensor_data(v->cache[i]),
                                 .scales = tensor_data(v->cache_sf[i]),
                                 .from_stride = {tensor_stride(v->append[i], 0), tensor_stride(v->append[i], 1)},
                                 .scale = is_tensor ? tensor_data(v->scale[i].value.tensor) : NULL,
                                 .scale_value = is_tensor ? 1.0f : (float)number_value(&v->scale[i])};
        fill_strides(h->codes_stride, v, v->cache[i]);
        fill_strides(h->scales_stride, v, v->cache_sf[i]);
    }
    if (v->slot_mapping)
        a.slot_mapping = tensor_data(v->slot_mapping);
    else
        a.tokens = paged_tokens_of(&v->paged, a.tokens.page_size);
    return a;
}

static const char *fit(const struct nvfp4_append_view *v, int32_t *constant)
{
    const DLTensor *from = v->append[0];
    if (tensor_shape(from, 1) * tensor_shape(from, 2) / NVFP4_BLOCK > (int64_t)MAX_GRID_Y * THREADS)
        return "there are more heads or elements than a grid has blocks for";
    if (tensor_shape(from, 0) > INT32_MAX || tensor_shape(v->cache[0], slot_axis(v)) > INT32_MAX)
        return "nnz or page_size exceeds 32 bits";
    constant[0] = tensor_dtype(from);
    constant[1] = v->slot_mapping != NULL;
    constant[2] = v->slot_mapping ? tensor_dtype(v->slot_mapping) : DTYPE_I32;
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct nvfp4_append_view *v = call_view(call);
    int32_t *constant = way_spec(way, &sm80);
    constant[3] = tensor_is_aligned(v->append[0], 16) && tensor_is_aligned(v->append[1], 16) &&
                  tensor_is_aligned(v->cache[0], 8) && tensor_is_aligned(v->cache[1], 8);
    return fit(v, constant);
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    return fit(call_view(call), way_spec(way, &cpu));
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct nvfp4_append_args a = fill_args(call_view(call));
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    int64_t blocks = (int64_t)a.num_heads * a.blocks;
    if (a.nnz == 0 || blocks == 0)
        return FLASHINFER_OK;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        int64_t chunks = ceil_div(blocks, THREADS), threads = ceil_div(blocks, chunks), tokens = THREADS / threads;
        launch.block[0] = (uint32_t)threads;
        launch.block[1] = (uint32_t)least(tokens, a.nnz);
        launch.grid[0] = (uint32_t)ceil_div(a.nnz, launch.block[1]);
        launch.grid[1] = (uint32_t)chunks;
        launch.grid[2] = 2;
    } else {
        launch.grid[0] = jit_parts(ceil_div(a.nnz, ceil_div(CPU_ELEMENTS_PER_PART, 2 * blocks * NVFP4_BLOCK)));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel nvfp4_append_kernels[] = {
    {"nvfp4_append_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"nvfp4_append_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

void nvfp4_append_cost(const struct call *call, double *bytes, double *operations)
{
    const struct nvfp4_append_view *v = call_view(call);
    *bytes = 2 * (double)tensor_elements(v->append[0]) * (2 + 0.5 + 1.0 / 16) + 8 * (double)tensor_shape(v->append[0], 0);
    *operations = 0;
}

/* The slot of a token, counted over all pages; -1: none. */
static int64_t slot_of(const struct nvfp4_append_view *v, int64_t token)
{
    int64_t page_size = v->cache[0]->shape[slot_axis(v)];
    if (v->slot_mapping) {
        double slot = ((const double *)v->slot_mapping->data)[token];
        return slot >= 0 && slot < (double)(page_size * v->cache[0]->shape[0]) ? (int64_t)slot : -1;
    }
    return reference_slot(&v->paged, page_size, token);
}

/* The arithmetic is defined to the bit: each operation in double, rounded to float32, is that operation in float32. */
static void quantize_block(const struct reference *r, const DLTensor *cache_sf, double *codes, double *scale, const double *x,
                           double global_scale)
{
    double amax = 0;
    for (int i = 0; i < NVFP4_BLOCK; i++)
        amax = fmax(amax, fabs(x[i]));
    uint8_t byte;
    dtype_store(DTYPE_E4M3, &byte, (float)(global_scale * (float)(amax / 6)));
    double value = dtype_load(DTYPE_E4M3, &byte), multiplier = byte ? (float)(global_scale / value) : 0;
    *scale = reference_dtype(r, cache_sf) == DTYPE_E4M3 ? value : byte;
    for (int i = 0; i < NVFP4_BLOCK; i += 2)
        codes[i / 2] = reference_e2m1_code((float)(x[i] * multiplier)) + 16 * reference_e2m1_code((float)(x[i + 1] * multiplier));
}

void nvfp4_append_reference(const struct reference *r)
{
    const struct nvfp4_append_view *v = r->view;
    int64_t nnz = v->append[0]->shape[0], heads = v->append[0]->shape[1], blocks = v->append[0]->shape[2] / NVFP4_BLOCK;
    int64_t page_size = v->cache[0]->shape[slot_axis(v)];
    for (int half = 0; half < 2; half++) {
        for (int64_t token = 0; token < nnz; token++)
            for (int64_t head = 0, slot = slot_of(v, token); head < heads && slot >= 0; head++) {
                int64_t row = v->kv_layout == FLASHINFER_HND ? (slot / page_size * heads + head) * page_size + slot % page_size
                                                             : slot * heads + head;
                for (int64_t b = 0; b < blocks; b++)
                    quantize_block(r, v->cache_sf[half], (double *)v->cache[half]->data + (row * blocks + b) * NVFP4_BLOCK / 2,
                                   (double *)v->cache_sf[half]->data + row * blocks + b,
                                   (const double *)v->append[half]->data + ((token * heads + head) * blocks + b) * NVFP4_BLOCK,
                                   (float)(1 / reference_scale(&v->scale[half])));
            }
    }
}
