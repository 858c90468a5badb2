/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that rmsnorm and fused_add_rmsnorm share: rmsnorm_sm80.cu, rmsnorm_wide_sm80.cu, rmsnorm_cpu.c. */
#include "ops/norm/rmsnorm_kernels.h"

#include <float.h>
#include <math.h>

#include "harness/reference.h"
#include "ops/norm/rmsnorm_args.h"

enum {
    MAX_THREADS = 1024,
    MAX_PER_THREAD = 2,
    MAX_GRID_Y = 65535,
    ROWS_PER_BLOCK = 4,            /* where a warp has a row */
    CPU_ELEMENTS_PER_PART = 16384, /* some 2 us */
};
enum { WAY_THREADS, WAY_ROWS };

static const struct jit_kernel sm80 = {"rmsnorm_sm80", JIT_CUDA, {"T:dtype", "VEC", "PER_THREAD", "ADD_RESIDUAL", "R:dtype"}};
static const struct jit_kernel wide_sm80 = {"rmsnorm_wide_sm80", JIT_CUDA, {"T:dtype", "VEC", "ADD_RESIDUAL", "R:dtype"}};
static const struct jit_kernel cpu = {"rmsnorm_cpu", JIT_CPU, {"T:dtype", "ADD_RESIDUAL", "R:dtype"}};

/* Sees axes [0, split) and [split, ndim - 1) as one axis each. False if no single stride walks them. */
static bool split_rows(const DLTensor *t, int split, int64_t *rows, int64_t *groups, int64_t stride[2])
{
    DLTensor rest = *t;
    rest.ndim -= split;
    rest.shape += split;
    rest.strides = t->strides ? t->strides + split : NULL;
    return tensor_rows(t, t->ndim - split, rows, &stride[0]) && tensor_rows(&rest, 1, groups, &stride[1]);
}

static bool fill_args(const struct rmsnorm_view *t, struct rmsnorm_args *a)
{
    *a = (struct rmsnorm_args){.out = tensor_data(t->out),
                               .input = tensor_data(t->input),
                               .residual = t->residual ? tensor_data(t->residual) : NULL,
                               .weight = tensor_data(t->weight),
                               .hidden = tensor_shape(t->input, -1),
                               .eps = (float)t->eps};
    a->inverse_hidden = (float)(1 / (double)a->hidden);
    for (int split = t->input->ndim - 1; split >= 0; split--)
        if (split_rows(t->out, split, &a->rows, &a->groups, a->out_stride) &&
            split_rows(t->input, split, &a->rows, &a->groups, a->input_stride) &&
            (!t->residual || split_rows(t->residual, split, &a->rows, &a->groups, a->residual_stride)))
            return true;
    return false;
}

static enum dtype residual_dtype(const struct rmsnorm_view *t)
{
    return tensor_dtype(t->residual ? t->residual : t->input);
}

/* What every row asks of the tensors: NULL, or why they cannot be served. Fills a. */
static const char *see_args(const struct rmsnorm_view *t, struct rmsnorm_args *a)
{
    if (!fill_args(t, a))
        return "the leading axes of the tensors cannot be walked with two strides";
    return NULL;
}

/* The same, and that a grid has a block for each row. */
static const char *see_grid(const struct rmsnorm_view *t, struct rmsnorm_args *a)
{
    const char *why = see_args(t, a);
    if (why)
        return why;
    return a->rows > INT32_MAX || a->groups > MAX_GRID_Y ? "there are more rows than a grid has blocks" : NULL;
}

static bool aligned(const struct rmsnorm_view *t, int vec)
{
    int bytes = vec * 2, residual_bytes = vec * dtype_bytes(residual_dtype(t));
    return tensor_is_aligned(t->out, bytes) && tensor_is_aligned(t->input, bytes) && tensor_is_aligned(t->weight, bytes) &&
           (!t->residual || tensor_is_aligned(t->residual, residual_bytes < 16 ? residual_bytes : 16));
}

static int vector_size(const struct rmsnorm_view *t, int64_t hidden)
{
    int vec = 8;
    while (vec > 1 && (hidden % vec || !aligned(t, vec)))
        vec /= 2;
    return vec;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct rmsnorm_view *t = call_view(call);
    struct rmsnorm_args a;
    const char *why = see_grid(t, &a);
    if (why)
        return why;
    int vec = vector_size(t, a.hidden);
    int64_t pieces = ceil_div(a.hidden, vec);
    int64_t per_thread = ceil_div(pieces, MAX_THREADS);
    if (per_thread > (residual_dtype(t) == DTYPE_F32 ? 1 : MAX_PER_THREAD))
        return "hidden is more than a block holds in registers";
    way->value[WAY_THREADS] = ceil_div(pieces, per_thread * 32) * 32;
    way->value[WAY_ROWS] = way->value[WAY_THREADS] == 32 ? ROWS_PER_BLOCK : 1;
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = tensor_dtype(t->input);
    constant[1] = vec;
    constant[2] = (int32_t)per_thread;
    constant[3] = t->residual != NULL;
    constant[4] = residual_dtype(t);
    return NULL;
}

static const char *fit_wide_sm80(const struct call *call, struct way *way)
{
    const struct rmsnorm_view *t = call_view(call);
    struct rmsnorm_args a;
    const char *why = see_grid(t, &a);
    if (why)
        return why;
    way->value[WAY_THREADS] = MAX_THREADS;
    way->value[WAY_ROWS] = 1;
    int32_t *constant = way_spec(way, &wide_sm80);
    constant[0] = tensor_dtype(t->input);
    constant[1] = vector_size(t, a.hidden);
    constant[2] = t->residual != NULL;
    constant[3] = residual_dtype(t);
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct rmsnorm_view *t = call_view(call);
    struct rmsnorm_args a;
    const char *why = see_args(t, &a);
    if (why)
        return why;
    int32_t *constant = way_spec(way, &cpu);
    constant[0] = tensor_dtype(t->input);
    constant[1] = t->residual != NULL;
    constant[2] = residual_dtype(t);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct rmsnorm_args a;
    fill_args(call_view(call), &a);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)ceil_div(a.rows, way->value[WAY_ROWS]);
        launch.grid[1] = (uint32_t)a.groups;
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
        launch.block[1] = (uint32_t)way->value[WAY_ROWS];
    } else {
        launch.grid[0] = (uint32_t)ceil_div(a.rows * a.groups, ceil_div(CPU_ELEMENTS_PER_PART, a.hidden));
    }
    return call_launch(call, way, 0, launch);
}

const struct op_kernel rmsnorm_kernels[] = {
    {"rmsnorm_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"rmsnorm_wide_sm80", OP_CUDA, 80, 0, fit_wide_sm80, run},
    {"rmsnorm_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

void rmsnorm_reference(double *y, double *bound, const double *x, const double *weight, int64_t hidden, double eps)
{
    double squares = 0;
    for (int64_t i = 0; i < hidden; i++)
        squares += x[i] * x[i];
    if (squares > FLT_MAX)
        squares = INFINITY;
    double scale = 1 / sqrt(squares / (double)hidden + eps);
    /* No kernel adds more than hidden/16 + 32 positive terms one after the other, each time off by at most a unit; the square
     * root halves that. The mean, the root and the two products add 8 at most. A product below float32's normal numbers is off
     * by up to half its smallest one. */
    double units = ((double)hidden / 16 + 32) / 2 + 8;
    for (int64_t i = 0; i < hidden; i++) {
        y[i] = x[i] * scale * weight[i];
        bound[i] = fabs(y[i]) * units * REFERENCE_UNIT + (fabs(weight[i]) + 1) * FLT_TRUE_MIN;
    }
}
