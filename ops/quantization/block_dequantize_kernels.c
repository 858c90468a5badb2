/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that dequantize blocks of a row: block_dequantize_sm80.cu, block_dequantize_cpu.c. */
#include "ops/quantization/block_dequantize_kernels.h"

#include "ops/quantization/block_dequantize_args.h"

enum {
    PIECES = 4,
    THREADS = 256,
    MAX_GRID_Y = 65535,
    MERGED_COLUMNS = 8192,
    CPU_CHUNK = 8192,            /* columns */
    CPU_ELEMENTS_PER_PART = 8192 /* some 2 us */
};

static const struct jit_kernel sm80 = {"block_dequantize_sm80", JIT_CUDA, {"T:dtype", "CODE:dtype", "E8M0", "BLOCK", "VEC"}};
static const struct jit_kernel cpu = {"block_dequantize_cpu", JIT_CPU, {"T:dtype", "CODE:dtype", "E8M0", "BLOCK", "CHUNK"}};

/* Short rows that lie one after the other are taken for fewer long ones. */
static void merge_rows(const struct block_dequantize_view *t, struct block_dequantize_args *a)
{
    int64_t code_columns = tensor_shape(t->codes, -1);
    if (t->layout != SCALES_LINEAR || a->out_stride != a->columns || a->code_stride != code_columns)
        return;
    while (a->rows > 0 && a->rows % 2 == 0 && a->columns < MERGED_COLUMNS) {
        a->rows /= 2;
        a->columns *= 2;
        a->out_stride *= 2;
        a->code_stride *= 2;
    }
}

static bool fill_args(const struct block_dequantize_view *t, struct block_dequantize_args *a)
{
    const flashinfer_number *g = &t->global_scale;
    bool is_tensor = g->kind == FLASHINFER_NUMBER_TENSOR;
    *a = (struct block_dequantize_args){
        .out = tensor_data(t->out),
        .codes = tensor_data(t->codes),
        .scales = tensor_data(t->scales),
        .global_scale = is_tensor ? tensor_data(g->value.tensor) : NULL,
        .global_value = g->kind == FLASHINFER_NUMBER_ABSENT || is_tensor ? 1.0f : (float)number_value(g),
        .columns = tensor_shape(t->out, -1),
        .layout = t->layout,
    };
    if (!tensor_rows(t->out, 1, &a->rows, &a->out_stride) || !tensor_rows(t->codes, 1, &a->rows, &a->code_stride))
        return false;
    merge_rows(t, a);
    a->blocks = a->columns / t->block;
    return true;
}

static void set_constants(const struct block_dequantize_view *t, int32_t *constant)
{
    constant[0] = tensor_dtype(t->out);
    constant[1] = tensor_dtype(t->codes) == DTYPE_E4M3 ? DTYPE_E4M3 : DTYPE_E2M1X2;
    constant[2] = t->e8m0;
    constant[3] = t->block;
}

static const char strides[] = "the leading axes of a tensor cannot be walked with one stride";

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct block_dequantize_view *t = call_view(call);
    struct block_dequantize_args a;
    if (!fill_args(t, &a))
        return strides;
    if (a.rows > INT32_MAX || ceil_div(a.columns, PIECES * 32) > MAX_GRID_Y)
        return "there are more rows or columns than a grid has blocks for";
    int bytes = dtype_bytes(tensor_dtype(t->out)), pairs = tensor_dtype(t->codes) == DTYPE_E4M3 ? 1 : 2, vec = 16 / bytes;
    while (vec > 1 && !(tensor_is_aligned(t->out, vec * bytes) && tensor_is_aligned(t->codes, vec / pairs)))
        vec /= 2;
    int32_t *constant = way_spec(way, &sm80);
    set_constants(t, constant);
    constant[4] = vec;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct block_dequantize_view *t = call_view(call);
    struct block_dequantize_args a;
    if (!fill_args(t, &a))
        return strides;
    int32_t *constant = way_spec(way, &cpu);
    set_constants(t, constant);
    constant[4] = CPU_CHUNK;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct block_dequantize_args a;
    fill_args(call_view(call), &a);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        int64_t pieces = ceil_div(a.columns, way->spec[0].constant[4] * PIECES), chunks = ceil_div(pieces, THREADS);
        int64_t threads = ceil_div(pieces, chunks), rows = THREADS / threads;
        launch.block[0] = (uint32_t)threads;
        launch.block[1] = (uint32_t)least(rows, a.rows);
        launch.grid[0] = (uint32_t)ceil_div(a.rows, launch.block[1]);
        launch.grid[1] = (uint32_t)chunks;
    } else {
        int64_t chunks = a.rows * ceil_div(a.columns, CPU_CHUNK);
        launch.grid[0] = jit_parts(least(ceil_div(a.rows * a.columns, CPU_ELEMENTS_PER_PART), chunks));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel block_dequantize_kernels[] = {
    {"block_dequantize_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"block_dequantize_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* code * scale is exact in double, and in float32 but for its range; the other product is rounded. */
void block_dequantize_reference(const struct reference *r)
{
    const struct block_dequantize_view *t = r->view;
    int64_t columns = tensor_shape(t->out, -1), rows = columns ? tensor_elements(t->out) / columns : 0;
    int64_t blocks = columns / t->block;
    bool is_fp4 = reference_dtype(r, t->codes) != DTYPE_E4M3;
    const double *codes = t->codes->data, *scales = t->scales->data;
    double *out = t->out->data, global = reference_scale(&t->global_scale);
    for (int64_t i = 0; i < rows * columns; i++) {
        double code = codes[is_fp4 ? i / 2 : i];
        double scale = scales[block_scale_offset(t->layout, i / columns, i % columns / t->block, blocks)];
        uint8_t byte = (uint8_t)scale;
        if (reference_dtype(r, t->scales) == DTYPE_U8)
            scale = dtype_load(t->e8m0 ? DTYPE_E8M0 : DTYPE_E4M3, &byte);
        if (is_fp4)
            code = reference_e2m1_value((unsigned)code >> i % 2 * 4);
        out[i] = (float)((float)(code * scale) * global);
    }
}
