/* SPDX-License-Identifier: Apache-2.0 */
/* The op block_scale_interleave. Kernels: block_scale_interleave_sm80.cu, block_scale_interleave_cpu.c. */
#include "block_scale.h"
#include "flashinfer/quantization.h"
#include "harness/reference.h"
#include "op/op.h"
#include "ops/quantization/block_scale_interleave.h"

#define OP block_scale_interleave
DIMS(rows, m, k);

static const struct op_arg args[] = {
    OUT(out, LIKE(input), "... ceil(m/128)*128 ceil(k/4)*4", .flags = DENSE),
    IN(input, U8 | E4M3 | BF16, "... m k"),
    {0},
};

enum { TILE_ROWS = 128, COLUMN_BYTES = 64, THREADS = 256, MAX_GRID_YZ = 65535, CPU_ELEMENTS_PER_PART = 16384 /* some 2 us */ };
enum { CLUSTER_ARCH = 90, MAX_CLUSTER = 8 };

static const struct jit_kernel sm80 = {"block_scale_interleave_sm80", JIT_CUDA, {"T:dtype", "VEC", "ALIGNED", "IN_PLACE"}};
static const struct jit_kernel cpu = {"block_scale_interleave_cpu", JIT_CPU, {"T:dtype"}};

static bool fill_args(const struct call *call, struct block_scale_interleave_args *a)
{
    const struct flashinfer_block_scale_interleave *c = call_args(call);
    const struct dims *d = call_dims(call);
    *a = (struct block_scale_interleave_args){.out = tensor_data(c->out),
                                              .input = tensor_data(c->input),
                                              .rows = d->m,
                                              .blocks = d->k,
                                              .row_stride = tensor_stride(c->input, -2)};
    return tensor_rows(c->input, 2, &a->matrices, &a->matrix_stride);
}

/* A cluster has whole rows of tiles. */
bool block_scale_interleave_in_place(const struct call *call, int64_t blocks)
{
    return call->device->arch >= CLUSTER_ARCH && blocks <= MAX_CLUSTER * COLUMN_BYTES;
}

const char *block_scale_interleave_fit(struct way *way, const struct block_scale_interleave_args *a, int bytes, bool in_place)
{
    if (ceil_div(a->rows, TILE_ROWS) > INT32_MAX || a->blocks * bytes / COLUMN_BYTES >= MAX_GRID_YZ || a->matrices > MAX_GRID_YZ)
        return "there are more matrices, rows or columns than a grid has blocks for";
    int32_t *constant = way_spec(way, &sm80);
    int vec = 16 / bytes;
    while (vec > 1 && (a->blocks % vec || a->row_stride % vec || a->matrix_stride % vec || (uintptr_t)a->input % (vec * bytes)))
        vec /= 2;
    constant[0] = bytes == 1 ? DTYPE_U8 : DTYPE_BF16;
    constant[1] = vec;
    constant[2] = (uintptr_t)a->out % 16 == 0;
    constant[3] = in_place;
    return NULL;
}

flashinfer_status block_scale_interleave_launch(const struct call *call, const struct way *way, int i,
                                                struct block_scale_interleave_args *a, bool follows)
{
    int64_t columns = COLUMN_BYTES / (way->spec[i].constant[0] == DTYPE_U8 ? 1 : 2);
    struct jit_launch launch = {.args = a, .args_size = sizeof *a, .block = {THREADS}, .follows = follows};
    launch.grid[0] = (uint32_t)ceil_div(a->rows, TILE_ROWS);
    launch.grid[1] = (uint32_t)ceil_div(a->blocks, columns);
    launch.grid[2] = (uint32_t)a->matrices;
    launch.cluster[1] = way->spec[i].constant[3] ? launch.grid[1] : 1;
    return call_launch(call, way, i, &launch);
}

static const char unwalkable[] = "the leading axes of input cannot be walked with one stride";

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_block_scale_interleave *c = call_args(call);
    struct block_scale_interleave_args a;
    return fill_args(call, &a) ? block_scale_interleave_fit(way, &a, dtype_bytes(tensor_dtype(c->input)), false) : unwalkable;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct flashinfer_block_scale_interleave *c = call_args(call);
    struct block_scale_interleave_args a;
    if (!fill_args(call, &a))
        return unwalkable;
    way_spec(way, &cpu)[0] = dtype_bytes(tensor_dtype(c->input)) == 1 ? DTYPE_U8 : DTYPE_BF16;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct block_scale_interleave_args a;
    fill_args(call, &a);
    if (way->spec[0].kernel->target == JIT_CUDA)
        return block_scale_interleave_launch(call, way, 0, &a, false);
    int64_t rows = a.matrices * block_scale_rows(SCALES_128X4, a.rows), each = 16 + CPU_ELEMENTS_PER_PART / a.blocks;
    struct jit_launch launch = {.args = &a, .args_size = sizeof a, .grid = {(uint32_t)ceil_div(rows, each)}};
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"block_scale_interleave_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"block_scale_interleave_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* By the layout's definition as a permutation of axes: row = (tile, 4, 32), column = (tile, 4). */
static void reference(const struct reference *r)
{
    const struct flashinfer_block_scale_interleave *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *input = a->input->data;
    double *out = a->out->data;
    int64_t row_tiles = ceil_div(d->m, 128), tiles = ceil_div(d->k, 4);
    for (int64_t matrix = 0; matrix < d->rows; matrix++)
        for (int64_t row_tile = 0; row_tile < row_tiles; row_tile++)
            for (int64_t tile = 0; tile < tiles; tile++)
                for (int64_t i = 0; i < 512; i++) {
                    int64_t row = row_tile * 128 + i / 4 % 4 * 32 + i / 16, column = tile * 4 + i % 4;
                    *out++ = row < d->m && column < d->k ? input[(matrix * d->m + row) * d->k + column] : 0;
                }
}

static const struct op_range ranges[] = {{"rows", 0, 5, 0}, {"m", 1, 300, 0}, {"k", 1, 300, 0}, {0}};

static const struct op_shape shapes[] = {
    {"odd", "rows=3 m=7 k=5 dtype=u8"},
    {"llama_70b_weight", "rows=1 m=28672 k=512 dtype=e4m3"},
    {"deepseek_v3_experts", "rows=16 m=4096 k=448 dtype=u8"},
    {"gpt_oss_experts", "rows=32 m=5760 k=90 dtype=u8"},
    {"bf16", "rows=2 m=128 k=64 dtype=bf16"},
    {0},
};

DEFINE_OP("quantization", "out = input in tiles of 128 rows by 4 columns", .kernels = kernels, .ranges = ranges, .shapes = shapes,
          .reference = reference);
