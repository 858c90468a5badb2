/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that the norm family shares: norm_short_sm80.cu, norm_sm80.cu, norm_wide_sm80.cu, norm_cpu.c. */
#include "ops/norm/norm_kernels.h"

#include "block_scale.h"
#include "ops/norm/norm_args.h"
#include "ops/quantization/block_scale_interleave.h"

enum {
    WARP = 32,
    MAX_THREADS = 1024,
    MAX_FP4_THREADS = 512, /* which need more registers */
    SHORT_THREADS = 128,
    MAX_SHORT_ROWS = 2,            /* of a thread: more wait for each other's sums */
    TILE_ROWS = 2,                 /* of a block, whose scales in a tile are neighbours */
    RESIDENT_THREADS = 1024,       /* of a multiprocessor, with 64 registers each */
    FEW_THREADS = 512,             /* of a multiprocessor, in FEW_BLOCKS at most, which are spread evenly */
    FEW_BLOCKS = 2,
    MANY_SCALES = 1 << 20,         /* from which on those in tiles are worth a launch; without y from twice as many */
    BYTES_PER_THREAD = 64,         /* of rows on their way: 64 KB for a multiprocessor */
    AHEAD_BYTES = 32768,           /* of a multiprocessor, that are fetched to the L2 cache before */
    AHEAD_ADD_BYTES = 49152,       /* of input and residual */
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
    CPU_MANY_PARTS = 2048,         /* of more work they are larger */
    CPU_ENOUGH_PARTS = 256,        /* for all threads to have some */
};
enum { WAY_GRID, WAY_THREADS, WAY_SMEM };

#define ROW_CONSTANTS "T:dtype", "W:dtype", "R:dtype", "OUT:dtype", "ADD_RESIDUAL", "LAYERNORM", "SILU", "BLOCK_SIZE", "E8M0"
#define PIECE_CONSTANTS ROW_CONSTANTS, "BIASED", "WANTS_Y", "SCALES", "GROUPED", "VEC", "ACCESS"
enum { NUM_ROW_CONSTANTS = 9, SCALES_CONSTANT = 11, NUM_PIECE_CONSTANTS = 15 };

static const struct jit_kernel short_sm80 = {
    "norm_short_sm80", JIT_CUDA, {PIECE_CONSTANTS, "PER_THREAD", "LANES", "ROWS", "EXACT"}};
static const struct jit_kernel sm80 = {"norm_sm80", JIT_CUDA, {PIECE_CONSTANTS, "PER_THREAD", "PIECES", "ROWS", "EARLY"}};
static const struct jit_kernel wide_sm80 = {"norm_wide_sm80", JIT_CUDA, {PIECE_CONSTANTS}};
static const struct jit_kernel cpu = {"norm_cpu", JIT_CPU, {ROW_CONSTANTS}};

/* Sees axes [0, split) and [split, ndim - 1) as one axis each. False if no single stride walks them. */
static bool split_rows(const DLTensor *t, int split, int64_t *rows, int64_t *groups, int64_t stride[2])
{
    if (!t)
        return true;
    if (split == t->ndim - 1) {
        *groups = 1;
        return tensor_rows(t, 1, rows, &stride[0]);
    }
    DLTensor rest = *t;
    rest.ndim -= split;
    rest.shape += split;
    rest.strides = t->strides ? t->strides + split : NULL;
    return tensor_rows(t, t->ndim - split, rows, &stride[0]) && tensor_rows(&rest, 1, groups, &stride[1]);
}

static bool fill_args(const struct norm_view *t, struct norm_args *a)
{
    *a = (struct norm_args){.out = tensor_data_or_null(t->out),
                            .input = tensor_data_or_null(t->input),
                            .residual = tensor_data_or_null(t->residual),
                            .weight = tensor_data_or_null(t->weight),
                            .beta = tensor_data_or_null(t->beta),
                            .y = tensor_data_or_null(t->y),
                            .linear_scales = tensor_data_or_null(t->linear_scales),
                            .swizzled_scales = tensor_data_or_null(t->swizzled_scales),
                            .hidden = tensor_shape(t->input, -1),
                            .eps = (float)t->eps,
                            .weight_bias = (float)t->weight_bias};
    a->inverse_hidden = (float)(1 / (double)a->hidden);
    if (t->scale.kind == FLASHINFER_NUMBER_TENSOR)
        a->scale = tensor_data(t->scale.value.tensor);
    else
        a->scale_value = (float)number_value(&t->scale);
    for (int split = t->input->ndim - 1; split >= 0; split--)
        if (split_rows(t->out, split, &a->rows, &a->groups, a->out_stride) &&
            split_rows(t->input, split, &a->rows, &a->groups, a->input_stride) &&
            split_rows(t->residual, split, &a->rows, &a->groups, a->residual_stride) &&
            split_rows(t->y, split, &a->rows, &a->groups, a->y_stride) &&
            split_rows(t->linear_scales, split, &a->rows, &a->groups, a->scale_stride)) {
            a->groups_inverse = a->groups ? UINT64_MAX / (uint64_t)a->groups : 0;
            a->pads = t->block_size && (a->rows * a->groups % 128 != 0 || a->hidden / t->block_size % 4 != 0);
            return true;
        }
    return false;
}

/* What every row asks of the tensors: NULL, or why they cannot be served. Fills a. */
static const char *see_args(const struct norm_view *t, struct norm_args *a)
{
    enum dtype format = t->e8m0 ? DTYPE_E8M0 : DTYPE_E4M3;
    enum dtype linear = t->linear_scales ? tensor_dtype(t->linear_scales) : format;
    enum dtype swizzled = t->swizzled_scales ? tensor_dtype(t->swizzled_scales) : format;
    if ((linear != format && linear != DTYPE_U8) || (swizzled != format && swizzled != DTYPE_U8))
        return "block scales are neither of the dtype of scale_format nor u8";
    if (t->surplus_scales)
        return "block_scale_unswizzled is given, but block_scale is not swizzled";
    return fill_args(t, a) ? NULL : "the leading axes of the tensors cannot be walked with two strides";
}

/* With those that only hold padding of swizzled scales. */
static int64_t padded_rows(const struct norm_view *t, const struct norm_args *a)
{
    int64_t rows = a->rows * a->groups;
    return t->swizzled_scales ? block_scale_rows(SCALES_128X4, rows) : rows;
}

static bool aligned(const DLTensor *t, int elements)
{
    int bytes = t ? elements * dtype_bytes(tensor_dtype(t)) : 1;
    return !t || tensor_is_aligned(t, bytes < 16 ? bytes : 16);
}

/* Whole rows, in units of 16 bytes. */
static struct fetch_ahead fetch_rows_ahead(const struct call *call, const struct norm_view *t, const struct norm_args *a)
{
    int64_t bytes = dtype_bytes(tensor_dtype(t->input)), of_residual = t->residual ? dtype_bytes(tensor_dtype(t->residual)) : 0;
    if (a->groups != 1 || a->hidden * bytes % 16 || a->hidden * of_residual % 16 || !tensor_is_aligned(t->input, 16) ||
        (t->residual && !tensor_is_aligned(t->residual, 16)))
        return (struct fetch_ahead){0};
    return fetch_ahead((int64_t)call->device->sms * (t->residual ? AHEAD_ADD_BYTES : AHEAD_BYTES), a->rows,
                       a->hidden * (bytes + of_residual));
}

/* What every CUDA row asks for, and how the kernels cut a row up. */
struct cut {
    struct norm_args *args; /* of the way */
    int vec, access;
    int64_t rows, pieces; /* of all groups; of a row */
    int64_t per_thread;   /* pieces that a thread may have on their way */
    int64_t max_threads;  /* of a block */
};

static const char *cut_rows(const struct norm_view *t, struct way *way, struct cut *c)
{
    c->args = WAY_ARGS(way, struct norm_args);
    way->value[WAY_SMEM] = 0;
    const char *why = see_args(t, c->args);
    if (why)
        return why;
    c->rows = padded_rows(t, c->args);
    if (c->rows > INT32_MAX)
        return "there are more rows than a grid has blocks";
    for (c->vec = t->block_size ? 16 : 8; c->args->hidden % c->vec;)
        c->vec /= 2;
    for (c->access = c->vec; c->access > 1; c->access /= 2)
        if (aligned(t->out, t->block_size ? c->access / 2 : c->access) && aligned(t->y, c->access) &&
            aligned(t->input, c->access) && aligned(t->residual, c->access) &&
            aligned(t->weight, c->access) && aligned(t->beta, c->access))
            break;
    int bytes = dtype_bytes(tensor_dtype(t->input)) + (t->residual ? dtype_bytes(tensor_dtype(t->residual)) : 0);
    c->pieces = c->args->hidden / c->vec;
    c->max_threads = t->block_size ? MAX_FP4_THREADS : MAX_THREADS;
    c->per_thread = BYTES_PER_THREAD / (bytes * (t->block_size ? 16 : 8));
    if (c->per_thread < 1)
        c->per_thread = 1;
    return NULL;
}

static int32_t *fill_spec(const struct norm_view *t, struct way *way, const struct jit_kernel *kernel)
{
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(t->input);
    constant[1] = tensor_dtype(t->weight);
    constant[2] = tensor_dtype(t->residual ? t->residual : t->input);
    constant[3] = t->block_size ? DTYPE_U8 : tensor_dtype(t->out);
    constant[4] = t->residual != NULL;
    constant[5] = t->layernorm;
    constant[6] = t->silu;
    constant[7] = (int32_t)t->block_size;
    constant[8] = t->e8m0;
    return constant;
}

static int32_t *fill_piece_spec(const struct norm_view *t, const struct cut *c, bool grouped, struct way *way,
                                const struct jit_kernel *kernel)
{
    int32_t *constant = fill_spec(t, way, kernel) + NUM_ROW_CONSTANTS;
    constant[0] = t->weight_bias != 0;
    constant[1] = t->y != NULL;
    constant[2] = (t->linear_scales != NULL) | (t->swizzled_scales != NULL) << 1;
    constant[3] = grouped;
    constant[4] = c->vec;
    constant[5] = c->access;
    return constant + NUM_PIECE_CONSTANTS - NUM_ROW_CONSTANTS;
}

/* How many pieces a thread should have: 1 if the device holds all rows at once even so, or there is none, up to the most if it
 * does not. */
static int64_t pieces_per_thread(const struct call *call, int64_t pieces, int64_t most)
{
    int64_t resident = (int64_t)call->device->sms * RESIDENT_THREADS;
    return resident && pieces <= resident * most ? ceil_div(pieces + !pieces, resident) : most;
}

/* Lanes of a row, each with so many pieces, that leave the fewest threads of a warp without one; a power of two if that
 * has room for as many rows. Neighbours share a block of scales. */
static void share_warp(const struct norm_view *t, const struct cut *c, int64_t *per_thread, int64_t *lanes)
{
    int64_t whole = t->block_size / c->vec > 1 ? t->block_size / c->vec : 1, best = 0;
    for (int64_t each = ceil_div(c->pieces, WARP); each <= c->per_thread; each++) {
        int64_t needed = ceil_div(ceil_div(c->pieces, each), whole) * whole, rows = WARP / needed, even = WARP;
        int64_t busy = rows * c->pieces * 12 / each; /* threads, in twelfths, as `each` is at most 4 */
        while (even / 2 >= needed)
            even /= 2;
        if (busy > best) {
            best = busy;
            *per_thread = each;
            *lanes = WARP / even == rows ? even : needed;
        }
    }
}

static const char *fit_short_sm80(const struct call *call, struct way *way)
{
    const struct norm_view *t = call_view(call);
    struct cut c;
    const char *why = cut_rows(t, way, &c);
    if (why)
        return why;
    int64_t per_thread = ceil_div(c.pieces, WARP), lanes = 1;
    if (per_thread > c.per_thread)
        return "hidden is more than a warp holds in registers";
    bool either = !call->exec.kernel && per_thread > 1 && !(call->exec.flags & FLASHINFER_BATCH_INVARIANT);
    if (either && pieces_per_thread(call, c.rows * per_thread * WARP, c.per_thread) == 1)
        return "rows are so few that blocks answer sooner";
    share_warp(t, &c, &per_thread, &lanes);
    int32_t *constant = fill_piece_spec(t, &c, c.args->groups != 1, way, &short_sm80);
    constant[0] = (int32_t)per_thread;
    constant[1] = (int32_t)lanes;
    constant[2] = (int32_t)least(c.per_thread / per_thread, MAX_SHORT_ROWS);
    constant[3] = lanes * per_thread == c.pieces;
    int64_t groups = ceil_div(c.rows, pieces_per_thread(call, c.rows * lanes, constant[2]));
    way->value[WAY_THREADS] = SHORT_THREADS;
    way->value[WAY_GRID] = ceil_div(groups, SHORT_THREADS / WARP * (WARP / lanes));
    return NULL;
}

static struct block_scale_interleave_args interleaved(const struct norm_view *t, const struct norm_args *a)
{
    return (struct block_scale_interleave_args){.out = a->swizzled_scales,
                                                .input = a->linear_scales,
                                                .matrices = 1,
                                                .rows = a->rows,
                                                .blocks = a->hidden / t->block_size,
                                                .row_stride = a->scale_stride[0]};
}

/* Whether a launch of its own makes scales in tiles from linear ones. If the caller has none, they lie where the tiles will. */
static bool interleaves(const struct call *call, const struct norm_view *t, const struct norm_args *a)
{
    if (!t->residual || !t->swizzled_scales || a->groups != 1)
        return false;
    int64_t blocks = a->hidden / t->block_size;
    return a->rows * blocks >= (t->y ? MANY_SCALES : 2 * MANY_SCALES) &&
           (t->linear_scales || block_scale_interleave_in_place(call, blocks));
}

static const char *fit_interleaving(const struct norm_view *t, struct norm_args *a, struct way *way)
{
    way->spec[0].constant[SCALES_CONSTANT] = 1;
    way->value[WAY_GRID] = a->rows;
    a->pads = 0;
    if (!t->linear_scales) {
        a->linear_scales = a->swizzled_scales;
        a->scale_stride[0] = block_scale_blocks(SCALES_128X4, a->hidden / t->block_size);
    }
    struct block_scale_interleave_args tiles = interleaved(t, a);
    return block_scale_interleave_fit(way, &tiles, 1, !t->linear_scales);
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct norm_view *t = call_view(call);
    struct cut c;
    const char *why = cut_rows(t, way, &c);
    if (why)
        return why;
    if (c.pieces > c.per_thread * c.max_threads)
        return "hidden is more than a block holds in registers";
    int64_t warps = ceil_div(c.pieces, WARP);
    int64_t per_thread = pieces_per_thread(call, c.rows * warps * WARP, c.per_thread);
    bool shared = c.pieces % (WARP * c.per_thread) == 0 && c.pieces <= c.max_threads;
    if (shared && per_thread > 1)
        per_thread = c.per_thread;
    way->value[WAY_THREADS] = least(ceil_div(warps, per_thread) * WARP, c.max_threads);
    way->value[WAY_GRID] = c.rows;
    c.args->ahead = fetch_rows_ahead(call, t, c.args);
    int32_t *constant = fill_piece_spec(t, &c, c.args->groups != 1 || !t->block_size, way, &sm80);
    constant[0] = t->block_size && way->value[WAY_THREADS] >= c.pieces ? 1 : (int32_t)c.per_thread;
    constant[1] = shared ? (int32_t)c.pieces : 0;
    /* Half a warp with two pieces a thread has what a warp with one has, so that sums keep their order. */
    constant[2] = shared && constant[0] == TILE_ROWS && t->swizzled_scales && !t->residual ? TILE_ROWS : 1;
    int64_t sms = call->device->sms;
    bool few = t->block_size && constant[0] == 1 && c.rows > 0 && c.rows <= sms * FEW_BLOCKS &&
               c.rows * way->value[WAY_THREADS] <= sms * FEW_THREADS;
    constant[3] = few && call_launches_early(call);
    if (few)
        way->value[WAY_SMEM] = call_ballast(call, ceil_div(c.rows, sms));
    way->value[WAY_THREADS] *= constant[2];
    way->value[WAY_GRID] /= constant[2];
    return interleaves(call, t, c.args) ? fit_interleaving(t, c.args, way) : NULL;
}

static const char *fit_wide_sm80(const struct call *call, struct way *way)
{
    const struct norm_view *t = call_view(call);
    struct cut c;
    const char *why = cut_rows(t, way, &c);
    if (why)
        return why;
    way->value[WAY_THREADS] = c.max_threads;
    way->value[WAY_GRID] = c.rows;
    fill_piece_spec(t, &c, true, way, &wide_sm80);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct norm_view *t = call_view(call);
    struct norm_args *a = WAY_ARGS(way, struct norm_args);
    const char *why = see_args(t, a);
    if (why)
        return why;
    int64_t rows = padded_rows(t, a), each = ceil_div(CPU_ELEMENTS_PER_PART, a->hidden), many = ceil_div(rows, CPU_MANY_PARTS);
    each = each > many ? each : many;
    if (t->swizzled_scales && rows >= 16 * CPU_ENOUGH_PARTS) { /* threads share no line of scales: see block_scale_nth_row */
        int64_t lines = 16;
        while (lines < each && lines < 128)
            lines *= 2;
        each = lines;
    }
    way->value[WAY_GRID] = ceil_div(rows, each);
    way->value[WAY_SMEM] = 0;
    fill_spec(t, way, &cpu);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct jit_launch launch = {.grid = {(uint32_t)way->value[WAY_GRID]},
                                .block = {(uint32_t)way->value[WAY_THREADS]},
                                .smem = (uint32_t)way->value[WAY_SMEM],
                                .args = way->args,
                                .args_size = sizeof(struct norm_args)};
    if (way->num_specs == 1)
        return call_launch(call, way, 0, &launch);
    struct block_scale_interleave_args tiles = interleaved(call_view(call), WAY_ARGS(way, struct norm_args));
    TRY(call_launch(call, way, 0, &launch));
    return block_scale_interleave_launch(call, way, 1, &tiles, true);
}

const struct op_kernel norm_kernels[] = {
    {"norm_short_sm80", OP_CUDA, 80, 0, fit_short_sm80, run},
    {"norm_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"norm_wide_sm80", OP_CUDA, 80, 0, fit_wide_sm80, run},
    {"norm_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

const char *const norm_rules[] = {"hidden > 0", NULL};

const char *const norm_fp4_rules[] = {
    "hidden >= 64", "block_size == 16 or block_size == 32", "hidden % block_size == 0", NULL};

const struct op_range norm_fp4_ranges[] = {{"rows", 0, 300, 0}, {"hidden", 16, 4096, 16}, {"block_size", 16, 32, 16}, {0}};

const struct op_range norm_ranges[] = {{"rows", 0, 300, 0}, {"hidden", 1, 9000, 0}, {0}};

const struct op_shape norm_shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=bf16"},
    {"odd", "rows=7 hidden=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16"},
    {"llama_70b_decode", "rows=64 hidden=8192 dtype=f16"},
    {"wide", "rows=64 hidden=16384 dtype=f16"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {"qwen3_heads", "rows=262144 hidden=128 dtype=bf16"},
    {"f32", "rows=16 hidden=4096 dtype=f32"},
    {0},
};

const struct op_shape norm_add_shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=bf16"},
    {"odd", "rows=7 hidden=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16"},
    {"wide", "rows=64 hidden=16384 dtype=f16"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {"heads", "rows=1024 hidden=128 dtype=bf16"},
    {"f32_residual", "rows=128 hidden=576 dtype=bf16 residual:dtype=f32"},
    {"f32", "rows=16 hidden=4096 dtype=f32"},
    {0},
};

const struct op_shape norm_quant_shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=bf16"},
    {"odd", "rows=7 hidden=111 dtype=f16 out:dtype=e5m2"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16"},
    {"llama_70b_decode", "rows=64 hidden=8192 dtype=f16 out:dtype=e5m2"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {0},
};

const struct op_shape norm_add_quant_shapes[] = {
    {"smollm2_135m", "rows=1 hidden=576 dtype=bf16"},
    {"odd", "rows=7 hidden=111 dtype=f16 out:dtype=e5m2"},
    {"llama_8b_decode", "rows=128 hidden=4096 dtype=bf16"},
    {"llama_8b_prefill", "rows=8192 hidden=4096 dtype=bf16"},
    {"f32_residual", "rows=128 hidden=576 dtype=f16 residual:dtype=f32"},
    {"very_wide", "rows=3 hidden=65536 dtype=bf16"},
    {0},
};

static double bytes_of(const DLTensor *t) { return t ? (double)tensor_elements(t) * dtype_bytes(tensor_dtype(t)) : 0; }

/* All tensors once, the residual twice. */
void norm_cost(const struct call *call, double *bytes, double *operations)
{
    const struct norm_view *t = call_view(call);
    *bytes = bytes_of(t->out) + bytes_of(t->input) + 2 * bytes_of(t->residual) + bytes_of(t->weight) + bytes_of(t->beta) +
             bytes_of(t->y) + bytes_of(t->linear_scales) + bytes_of(t->swizzled_scales);
    *operations = 0;
}
