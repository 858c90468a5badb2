/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that quantize blocks of a row: block_quantize_sm80.cu, block_quantize_cpu.c. */
#include "ops/quantization/block_quantize_kernels.h"

enum {
    RUN = 16,
    SHORT_RUN = 8,
    THREADS = 256,
    FEW_RUNS = 1 << 16,      /* whose threads a large GPU has at once */
    FEW_E2M1_RUNS = 1 << 18, /* which are shorter */
    FEW_GATED_COLUMNS = 1 << 21,
    SPREAD_GATED_COLUMNS = 1 << 20, /* in small blocks, so many of a multiprocessor, that are spread evenly */
    SPREAD_THREADS = 128,
    SPREAD_BLOCKS = 8,
    TILE_ROWS = 4, /* of a block, if scales are in tiles of 128 rows: those whose scales are neighbours */
    MAX_GRID_YZ = 65535,
    CPU_CHUNK = 2048,              /* columns, or sixteen blocks */
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
    CPU_ROWS_OF_LINES = 16,        /* see block_scale_nth_row */
    CPU_MANY_PARTS = 256
};

static const struct jit_kernel sm80 = {
    "block_quantize_sm80",
    JIT_CUDA,
    {"T:dtype", "CODE:dtype", "SCALE", "BLOCK", "LARGEST", "GATED", "ALIGNED", "RUNS", "LAYOUT", "GROUPED", "RUN",
     "REHEARSES"}};
static const struct jit_kernel cpu = {
    "block_quantize_cpu", JIT_CPU, {"T:dtype", "CODE:dtype", "SCALE", "BLOCK", "LARGEST", "GATED", "CHUNK"}};

static enum dtype code_dtype(const struct block_quantize_view *t)
{
    enum dtype dtype = tensor_dtype(t->out);
    return dtype == DTYPE_U8 ? DTYPE_E2M1X2 : dtype;
}

static int code_elements(const struct block_quantize_view *t)
{
    return code_dtype(t) == DTYPE_E2M1X2 ? 2 : 1;
}

/* Group and row strides, in elements. */
static bool walk(const struct block_quantize_view *t, const DLTensor *tensor, int64_t *rows, int64_t stride[2])
{
    if (!t->grouped) {
        stride[0] = 0;
        return tensor_rows(tensor, 1, rows, &stride[1]);
    }
    *rows = tensor_shape(tensor, 1);
    stride[0] = tensor_stride(tensor, 0);
    stride[1] = tensor_stride(tensor, 1);
    return true;
}

static bool fill_args(const struct block_quantize_view *t, struct block_quantize_args *a)
{
    const flashinfer_number *g = &t->global_scale;
    bool is_tensor = g->kind == FLASHINFER_NUMBER_TENSOR, one_each = is_tensor && tensor_elements(g->value.tensor) > 1;
    *a = (struct block_quantize_args){
        .out = tensor_data(t->out),
        .scales = tensor_data(t->scales),
        .input = tensor_data(t->input),
        .mask = tensor_data_or_null(t->mask),
        .global_scale = is_tensor ? tensor_data(g->value.tensor) : NULL,
        .global_value = g->kind == FLASHINFER_NUMBER_ABSENT || is_tensor ? 1.0f : (float)number_value(g),
        .groups = t->grouped ? tensor_shape(t->input, 0) : 1,
        .columns = tensor_shape(t->input, -1) / (t->gated ? 2 : 1),
        .out_columns = tensor_shape(t->out, -1) * code_elements(t),
        .global_stride = {one_each && t->grouped, one_each && !t->grouped},
        .least_amax = (float)t->least_amax,
        .layout = t->layout,
        .inverse = t->inverse,
    };
    a->blocks = a->out_columns / t->block;
    if (!walk(t, t->input, &a->rows, a->input_stride) || !walk(t, t->out, &a->rows, a->out_stride))
        return false;
    a->scale_rows = block_scale_rows(t->layout, a->rows);
    a->scale_blocks = block_scale_blocks(t->layout, a->blocks);
    if (t->scale_kind == SCALE_E4M3 || t->scale_kind == SCALE_E8M0) {
        a->scale_stride[0] = block_scale_bytes(t->layout, a->rows, a->blocks);
        return true;
    }
    a->scale_stride[1] = tensor_stride(t->scales, -1);
    return tensor_rows(t->scales, 1, &a->rows, &a->scale_stride[0]);
}

static void set_constants(const struct block_quantize_view *t, int32_t *constant)
{
    enum dtype code = code_dtype(t);
    constant[0] = tensor_dtype(t->input);
    constant[1] = code;
    constant[2] = t->scale_kind;
    constant[3] = t->block;
    constant[4] = code == DTYPE_E2M1X2 ? 6 : code == DTYPE_I8 ? 127 : 448;
    constant[5] = t->gated;
}

static const char strides[] = "the leading axes of a tensor cannot be walked with one stride";

/* Of one group and not gated: its threads have the least to do. */
static bool is_short_e2m1(const struct block_quantize_view *t)
{
    return !t->gated && !t->grouped && code_elements(t) == 2;
}

/* Columns of a run. Gated ones, whose arithmetic is long, are halved where there are few. */
static int run_of(const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    return t->gated && !t->grouped && a->rows * a->scale_blocks * t->block <= FEW_GATED_COLUMNS ? SHORT_RUN : RUN;
}

/* Of a row, with the padding that its scales have. */
static int64_t runs_of(const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    return a->scale_blocks * t->block / run_of(t, a);
}

/* How many of them a thread does: one where there are so few that more would only be waited for one after the other, else as many
 * as registers allow. */
static int runs_of_thread(const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    int few = is_short_e2m1(t) ? FEW_E2M1_RUNS : FEW_RUNS;
    if (a->groups * a->rows * runs_of(t, a) <= few || run_of(t, a) == SHORT_RUN)
        return 1;
    return tensor_dtype(t->input) == DTYPE_F32 ? 1 : t->gated || code_elements(t) == 1 ? 2 : 3;
}

/* Whether a block has rows of a tile of scales, which it stores together. */
static bool tiled(const struct block_quantize_view *t)
{
    return (t->scale_kind == SCALE_E4M3 || t->scale_kind == SCALE_E8M0) && t->layout == SCALES_128X4 &&
           code_elements(t) == 2 && !t->gated;
}

static bool is_spread(const struct call *call, const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    return call_launches_early(call) && t->gated && !t->grouped &&
           a->rows * a->scale_blocks * t->block <= SPREAD_GATED_COLUMNS;
}

static int threads_of_block(const struct call *call, const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    return is_spread(call, t, a) ? SPREAD_THREADS : THREADS;
}

/* Threads along a row. Where several share a block of scales, blocks are whole warps: lanes that shuffle must all be there, and
 * those of a block side by side. Tiles are stored by four blocks. */
static int64_t threads_of(const struct call *call, const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    int64_t most = tiled(t) ? THREADS / TILE_ROWS : threads_of_block(call, t, a);
    int64_t each = ceil_div(runs_of(t, a), runs_of_thread(t, a)), chunks = ceil_div(each, most),
            threads = ceil_div(each, chunks ? chunks : 1);
    int64_t whole = t->block / run_of(t, a);
    if (tiled(t) && whole == 1)
        return ceil_div(threads ? threads : 1, 4) * 4;
    while (tiled(t) && whole < 32 / TILE_ROWS)
        whole *= 2;
    while (whole < 32 && whole < threads)
        whole *= 2;
    return ceil_div(threads ? threads : 1, whole) * whole;
}

/* Whether runs are so few that their threads are there beside those of the kernel before, but more than take no longer than its
 * launch. See pdl.cuh. */
static bool rehearses(const struct call *call, const struct block_quantize_view *t, const struct block_quantize_args *a)
{
    int64_t runs = runs_of(t, a), sms = call->device->sms;
    int fewest = is_short_e2m1(t) ? 16 : 128, most = t->gated ? 512 : 1024; /* of a multiprocessor */
    return call_launches_early(call) && !t->grouped && (t->scale_kind == SCALE_E4M3 || t->scale_kind == SCALE_E8M0) &&
           a->rows * runs >= sms * fewest && a->scale_rows * runs <= sms * most;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct block_quantize_view *t = call_view(call);
    struct block_quantize_args a;
    if (!fill_args(t, &a))
        return strides;
    if (a.scale_rows > INT32_MAX || ceil_div(runs_of(t, &a), RUN) > MAX_GRID_YZ || a.groups > MAX_GRID_YZ)
        return "there are more groups, rows or columns than a grid has blocks for";
    int32_t *constant = way_spec(way, &sm80);
    set_constants(t, constant);
    constant[6] = a.columns % RUN == 0 && tensor_is_aligned(t->input, 16) && tensor_is_aligned(t->out, RUN / code_elements(t));
    constant[7] = runs_of_thread(t, &a);
    constant[8] = t->layout;
    constant[9] = a.groups != 1 || a.mask;
    constant[10] = run_of(t, &a);
    constant[11] = rehearses(call, t, &a);
    return NULL;
}

static int cpu_chunk(const struct block_quantize_view *t)
{
    return t->block * 16 > CPU_CHUNK ? t->block * 16 : CPU_CHUNK;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct block_quantize_view *t = call_view(call);
    struct block_quantize_args a;
    if (!fill_args(t, &a))
        return strides;
    int32_t *constant = way_spec(way, &cpu);
    set_constants(t, constant);
    constant[6] = cpu_chunk(t);
    return NULL;
}

/* Rows that lie one after the other, scales too, are one: so are the sixteen blocks that the CPU takes together. */
static void join_rows(const struct block_quantize_view *t, struct block_quantize_args *a)
{
    bool bytes = t->scale_kind == SCALE_E4M3 || t->scale_kind == SCALE_E8M0;
    if (t->layout != SCALES_LINEAR || t->gated || a->mask || a->global_stride[1] || a->columns != a->out_columns ||
        a->columns != a->blocks * t->block || a->input_stride[1] != a->columns ||
        a->out_stride[1] * code_elements(t) != a->columns || (!bytes && a->scale_stride[0] != a->blocks * a->scale_stride[1]))
        return;
    a->columns = a->out_columns = a->columns * a->rows;
    a->blocks = a->scale_blocks = a->blocks * a->rows;
    a->rows = a->scale_rows = 1;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct block_quantize_view *t = call_view(call);
    struct block_quantize_args a;
    fill_args(t, &a);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        int64_t threads = threads_of(call, t, &a);
        launch.block[0] = (uint32_t)threads;
        launch.block[1] = tiled(t) ? TILE_ROWS : (uint32_t)(threads_of_block(call, t, &a) / threads);
        launch.grid[0] = (uint32_t)ceil_div(a.scale_rows, launch.block[1]);
        launch.grid[1] = (uint32_t)ceil_div(runs_of(t, &a), threads * runs_of_thread(t, &a));
        launch.grid[2] = (uint32_t)a.groups;
        launch.smem = is_spread(call, t, &a) ? call_ballast(call, SPREAD_BLOCKS) : 0;
    } else {
        join_rows(t, &a);
        int64_t width = a.scale_blocks * t->block, chunks = ceil_div(width, cpu_chunk(t));
        int64_t rows = a.groups * block_scale_rows(t->layout, a.rows), lines = rows / CPU_ROWS_OF_LINES;
        int64_t parts = jit_parts(least(ceil_div(rows * width, CPU_ELEMENTS_PER_PART), rows * chunks));
        if (t->layout == SCALES_128X4 && lines >= CPU_MANY_PARTS)
            parts = lines; /* threads share no line of scales */
        launch.grid[0] = (uint32_t)parts;
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel block_quantize_kernels[] = {
    {"block_quantize_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"block_quantize_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

const struct op_range block_quantize_batch_ranges[] = {{"batch", 0, 9, 0}, {"rows", 0, 140, 0}, {"columns", 16, 1000, 16}, {0}};

const struct op_shape block_quantize_batch_shapes[] = {
    {"deepseek_v3_experts", "batch=8 rows=128 columns=7168 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"odd", "batch=3 rows=7 columns=96 dtype=f16 out:dtype=u8 out_scale:dtype=e4m3"},
    {"one_token", "batch=16 rows=1 columns=2048 dtype=bf16 out:dtype=u8 out_scale:dtype=u8"},
    {"large", "batch=32 rows=512 columns=4096 dtype=bf16 out:dtype=e2m1x2 out_scale:dtype=u8"},
    {"qwen3_experts", "batch=128 rows=32 columns=2048 dtype=f16 out:dtype=e2m1x2 out_scale:dtype=e4m3"},
    {0},
};
