/* SPDX-License-Identifier: Apache-2.0 */
/* The op nvfp4_kv_dequantize_paged. Kernels: nvfp4_kv_dequantize_paged_sm80.cu, nvfp4_kv_dequantize_paged_cpu.c. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/status.h"
#include "flashinfer/page.h"
#include "flashinfer/quantization.h"
#include "harness/problem.h"
#include "harness/reference.h"
#include "op/op.h"
#include "op/validate.h"
#include "ops/quantization/nvfp4_kv_dequantize_paged_args.h"

#define OP nvfp4_kv_dequantize_paged
DIMS(batch, max_seq_len, num_kv_heads, head_dim, page_size, num_pages, max_pages);

#define CACHE(width) \
    "NHD: num_pages page_size num_kv_heads " width " | HND: num_pages num_kv_heads page_size " width, .by = "kv_layout"
#define SCALE .value = 1, .min = 1e-10, .dtype.set = F32, .fill = UNIFORM(0.01, 2)

static const struct op_arg args[] = {
    INOUT(output_k, F16 | BF16 | F32, "batch max_seq_len num_kv_heads head_dim"),
    INOUT(output_v, LIKE(output_k), "batch max_seq_len num_kv_heads head_dim"),
    IN(k_cache, E2M1X2 | U8, CACHE("head_dim//2"), .fill = MASK),
    IN(v_cache, LIKE(k_cache), CACHE("head_dim//2"), .fill = MASK),
    IN(k_cache_sf, E4M3 | U8, CACHE("head_dim//16"), .fill = MASK),
    IN(v_cache_sf, LIKE(k_cache_sf), CACHE("head_dim//16"), .fill = MASK),
    IN(block_tables, I32, "batch max_pages", .fill = BELOW("num_pages")),
    IN(seq_lens, I32, "batch", .fill = LENGTHS(0, "max_seq_len")),
    NUMBER(k_scale, SCALE),
    NUMBER(v_scale, SCALE),
    ENUM(kv_layout, "NHD HND"),
    {0},
};

static const char *const rules[] = {"head_dim % 16 == 0", "page_size > 0", "max_pages * page_size >= max_seq_len", NULL};

enum { COLUMNS = 8, MAX_THREADS = 256, MAX_GRID_Y = 65535, CPU_ELEMENTS_PER_PART = 8192 /* some 2 us */ };
enum { MANY_POSITIONS = 4, RESIDENT_BLOCKS = 16 }; /* of a block, where there are more than a GPU holds at once */

static const struct jit_kernel sm80 = {"nvfp4_kv_dequantize_paged_sm80", JIT_CUDA, {"T:dtype", "ALIGNED", "POSITIONS"}};
static const struct jit_kernel cpu = {"nvfp4_kv_dequantize_paged_cpu", JIT_CPU, {"T:dtype"}};

/* Between pages, slots and heads. */
static void page_strides(const DLTensor *t, int32_t layout, int64_t stride[3])
{
    stride[0] = tensor_stride(t, 0);
    stride[1] = tensor_stride(t, layout == FLASHINFER_HND ? 2 : 1);
    stride[2] = tensor_stride(t, layout == FLASHINFER_HND ? 1 : 2);
}

static struct paged_half half_of(const DLTensor *out, const DLTensor *codes, const DLTensor *scales,
                                 const flashinfer_number *scale, int32_t layout)
{
    bool is_tensor = scale->kind == FLASHINFER_NUMBER_TENSOR;
    struct paged_half h = {.codes = tensor_data(codes),
                           .scales = tensor_data(scales),
                           .out = tensor_data(out),
                           .scale = is_tensor ? tensor_data(scale->value.tensor) : NULL,
                           .scale_value = is_tensor ? 1.0f : (float)number_value(scale)};
    page_strides(codes, layout, h.codes_stride);
    page_strides(scales, layout, h.scales_stride);
    for (int axis = 0; axis < 3; axis++)
        h.out_stride[axis] = tensor_stride(out, axis);
    return h;
}

static const char wide[] = "page_size or max_seq_len exceeds 31 bits";

static int positions_of(const struct call *call)
{
    const struct dims *d = call_dims(call);
    bool many = 2 * d->batch * d->max_seq_len > (int64_t)call->device->sms * RESIDENT_BLOCKS;
    return many && d->page_size % MANY_POSITIONS == 0 ? MANY_POSITIONS : 1;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_nvfp4_kv_dequantize_paged *c = call_args(call);
    const struct dims *d = call_dims(call);
    if (d->page_size > INT32_MAX || d->max_seq_len > INT32_MAX)
        return wide;
    if (d->batch > MAX_GRID_Y || d->num_kv_heads * d->head_dim > INT32_MAX)
        return "there are more positions or requests than a grid has blocks for";
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = tensor_dtype(c->output_k);
    constant[1] = tensor_is_aligned(c->output_k, 16) && tensor_is_aligned(c->output_v, 16) && tensor_is_aligned(c->k_cache, 4) &&
                  tensor_is_aligned(c->v_cache, 4);
    constant[2] = positions_of(call);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct flashinfer_nvfp4_kv_dequantize_paged *c = call_args(call);
    const struct dims *d = call_dims(call);
    if (d->page_size > INT32_MAX || d->max_seq_len > INT32_MAX)
        return wide;
    way_spec(way, &cpu)[0] = tensor_dtype(c->output_k);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_nvfp4_kv_dequantize_paged *c = call_args(call);
    const struct dims *d = call_dims(call);
    struct nvfp4_kv_dequantize_paged_args a = {
        .half = {half_of(c->output_k, c->k_cache, c->k_cache_sf, &c->k_scale, c->kv_layout),
                 half_of(c->output_v, c->v_cache, c->v_cache_sf, &c->v_scale, c->kv_layout)},
        .block_tables = tensor_data(c->block_tables),
        .seq_lens = tensor_data(c->seq_lens),
        .tables_stride = tensor_stride(c->block_tables, 0),
        .batch = d->batch,
        .max_seq_len = d->max_seq_len,
        .num_kv_heads = d->num_kv_heads,
        .head_dim = d->head_dim,
        .page_size = d->page_size,
        .num_pages = d->num_pages,
    };
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    int64_t columns = d->num_kv_heads * d->head_dim;
    if (way->spec[0].kernel->target == JIT_CUDA) {
        int64_t threads = ceil_div(columns / COLUMNS, 32) * 32;
        launch.grid[0] = (uint32_t)ceil_div(d->max_seq_len, positions_of(call));
        launch.grid[1] = (uint32_t)d->batch;
        launch.grid[2] = 2;
        launch.block[0] = (uint32_t)least(threads, MAX_THREADS);
    } else {
        int64_t positions = d->batch * d->max_seq_len, each = 1 + CPU_ELEMENTS_PER_PART / (2 * columns);
        launch.grid[0] = jit_parts(ceil_div(positions, each));
    }
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"nvfp4_kv_dequantize_paged_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"nvfp4_kv_dequantize_paged_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static flashinfer_status validate(const struct call *call)
{
    const struct flashinfer_nvfp4_kv_dequantize_paged *c = call_args(call);
    const struct dims *d = call_dims(call);
    int32_t *seq_lens;
    flashinfer_status status = validate_fetch(call, c->seq_lens, &seq_lens);
    for (int64_t b = 0; !status && b < d->batch; b++)
        if (seq_lens[b] > d->max_seq_len)
            status = fail(FLASHINFER_INVALID, "%s: seq_lens[%" PRId64 "] is %d, must be at most max_seq_len, which is %" PRId64,
                          call->op->name, b, seq_lens[b], d->max_seq_len);
    free(seq_lens);
    return status;
}

static void reference_row(const struct reference *r, const DLTensor *codes, const DLTensor *scales,
                          const flashinfer_number *number, int64_t token, double *out)
{
    const struct dims *d = call_dims(r->call);
    double global = reference_scale(number);
    for (int64_t i = 0; i < d->head_dim; i++) {
        unsigned code = (unsigned)((const double *)codes->data)[(token * d->head_dim + i) / 2] >> i % 2 * 4;
        double scale = ((const double *)scales->data)[(token * d->head_dim + i) / 16];
        uint8_t byte = (uint8_t)scale;
        scale = reference_dtype(r, scales) == DTYPE_U8 ? dtype_load(DTYPE_E4M3, &byte) : scale;
        out[i] = (float)(reference_e2m1_value(code) * scale * global);
    }
}

static void reference(const struct reference *r)
{
    const struct flashinfer_nvfp4_kv_dequantize_paged *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *tables = a->block_tables->data, *seq_lens = a->seq_lens->data;
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t s = 0; s < d->max_seq_len && (double)s < seq_lens[b]; s++)
            for (int64_t head = 0; head < d->num_kv_heads; head++) {
                int64_t page = (int64_t)tables[b * d->max_pages + s / d->page_size], slot = s % d->page_size;
                int64_t token = a->kv_layout == FLASHINFER_HND ? (page * d->num_kv_heads + head) * d->page_size + slot
                                                               : (page * d->page_size + slot) * d->num_kv_heads + head;
                int64_t at = ((b * d->max_seq_len + s) * d->num_kv_heads + head) * d->head_dim;
                reference_row(r, a->k_cache, a->k_cache_sf, &a->k_scale, token, (double *)a->output_k->data + at);
                reference_row(r, a->v_cache, a->v_cache_sf, &a->v_scale, token, (double *)a->output_v->data + at);
            }
}

static const struct op_range ranges[] = {
    {"batch", 0, 7, 0},      {"max_seq_len", 0, 60, 0}, {"num_kv_heads", 1, 5, 0}, {"head_dim", 16, 256, 16},
    {"page_size", 1, 20, 0}, {"num_pages", 1, 50, 0},   {"max_pages", 1, 60, 0},   {0}};

static const struct op_shape shapes[] = {
    {"odd", "batch=3 max_seq_len=37 num_kv_heads=3 head_dim=48 page_size=5 num_pages=30 max_pages=9 k_cache:dtype=u8 "
            "k_cache_sf:dtype=u8 output_k:dtype=f32 kv_layout=HND"},
    {"llama_8b", "batch=4 max_seq_len=1024 num_kv_heads=8 head_dim=128 page_size=16 num_pages=256 max_pages=64 k_cache:dtype=u8 "
                 "k_cache_sf:dtype=e4m3 output_k:dtype=bf16"},
    {"gpt_oss", "batch=8 max_seq_len=512 num_kv_heads=8 head_dim=64 page_size=32 num_pages=128 max_pages=16 k_cache:dtype=e2m1x2 "
                "k_cache_sf:dtype=e4m3 output_k:dtype=f16 kv_layout=HND"},
    {"llama_70b_long", "batch=16 max_seq_len=4096 num_kv_heads=8 head_dim=128 page_size=64 num_pages=1024 max_pages=64 "
                       "k_cache:dtype=u8 k_cache_sf:dtype=e4m3 output_k:dtype=bf16"},
    {"one", "batch=1 max_seq_len=1 num_kv_heads=1 head_dim=16 page_size=1 num_pages=1 max_pages=1 k_cache:dtype=u8 "
            "k_cache_sf:dtype=u8 output_k:dtype=f16"},
    {0},
};

DEFINE_OP("quantization", "keys and values of requests from pages of e2m1 blocks", .rules = rules, .kernels = kernels,
          .validate = validate, .ranges = ranges, .shapes = shapes, .reference = reference);
