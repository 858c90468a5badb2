/* SPDX-License-Identifier: Apache-2.0 */
/* The op silu_and_mul. Kernels: silu_and_mul_sm80.cu, silu_and_mul_cpu.c. */
#include <float.h>
#include <math.h>

#include "flashinfer/activation.h"
#include "harness/reference.h"
#include "ops/activation/silu_and_mul_args.h"

#define OP silu_and_mul
DIMS(rows, intermediate);

#define SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_HUGE | SPECIAL_INFINITY | SPECIAL_NAN)

static const struct op_arg args[] = {
    OUT(out, LIKE(input), "... intermediate"),
    IN(input, F16 | BF16, "... 2*intermediate", .fill = SPECIAL),
    {0},
};

enum { MAX_THREADS = 256, MAX_GRID_Y = 65535 };
enum { CPU_CHUNK = 4096 }; /* columns; some 2 us */
enum { WAY_THREADS, WAY_BLOCKS };

static const struct jit_kernel sm80 = {"silu_and_mul_sm80", JIT_CUDA, {"T:dtype", "VEC"}};
static const struct jit_kernel cpu = {"silu_and_mul_cpu", JIT_CPU, {"T:dtype", "CHUNK"}};

static bool fill_args(const struct call *call, struct silu_and_mul_args *a)
{
    const struct flashinfer_silu_and_mul *c = call_args(call);
    *a = (struct silu_and_mul_args){
        .out = tensor_data(c->out), .input = tensor_data(c->input), .intermediate = tensor_shape(c->out, -1)};
    return tensor_rows(c->out, 1, &a->rows, &a->out_stride) && tensor_rows(c->input, 1, &a->rows, &a->input_stride);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct flashinfer_silu_and_mul *c = call_args(call);
    struct silu_and_mul_args a;
    if (!fill_args(call, &a))
        return "the leading axes of a tensor cannot be walked with one stride";
    int vec = 8;
    while (vec > 1 && (a.intermediate % vec || !tensor_is_aligned(c->out, vec * 2) || !tensor_is_aligned(c->input, vec * 2)))
        vec /= 2;
    int64_t pieces = a.intermediate / vec, blocks = ceil_div(pieces, MAX_THREADS);
    if (a.rows > INT32_MAX || blocks > MAX_GRID_Y)
        return "there are more rows or columns than a grid has blocks for";
    way->value[WAY_BLOCKS] = blocks;
    way->value[WAY_THREADS] = blocks ? ceil_div(pieces, blocks * 32) * 32 : 0;
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = tensor_dtype(c->input);
    constant[1] = vec;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct flashinfer_silu_and_mul *c = call_args(call);
    struct silu_and_mul_args a;
    if (!fill_args(call, &a))
        return "the leading axes of a tensor cannot be walked with one stride";
    int32_t *constant = way_spec(way, &cpu);
    constant[0] = tensor_dtype(c->input);
    constant[1] = CPU_CHUNK;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    struct silu_and_mul_args a;
    fill_args(call, &a);
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)a.rows;
        launch.grid[1] = (uint32_t)way->value[WAY_BLOCKS];
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
    } else {
        launch.grid[0] = (uint32_t)(a.intermediate < CPU_CHUNK ? ceil_div(a.rows * a.intermediate, CPU_CHUNK)
                                                               : a.rows * ceil_div(a.intermediate, CPU_CHUNK));
    }
    return call_launch(call, way, 0, launch);
}

static const struct op_kernel kernels[] = {
    {"silu_and_mul_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"silu_and_mul_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

static void reference(const struct reference *r)
{
    const struct flashinfer_silu_and_mul *a = r->args;
    const struct dims *d = call_dims(r->call);
    const double *gate = a->input->data, *up = gate + d->intermediate;
    double *out = a->out->data, *bound = reference_bound(r, a->out);

    for (int64_t row = 0; row < d->rows; row++, gate += 2 * d->intermediate, up += 2 * d->intermediate)
        for (int64_t i = 0; i < d->intermediate; i++, out++, bound++) {
            double silu = gate[i] < -104 ? 0 * gate[i] : gate[i] / (1 + exp(-gate[i]));
            *out = silu * up[i];
            /* In units: the exponential 4, the denominator 1, the division 4, the products 2. A negative result is
             * gate * t / (1 + t) with t = exp(gate), which near 0 is off by a subnormal. */
            *bound = fabs(*out) * 11 * REFERENCE_UNIT + (fabs(gate[i] * up[i]) + fabs(up[i]) + 1) * FLT_TRUE_MIN;
        }
}

static const struct op_range ranges[] = {{"rows", 0, 300, 0}, {"intermediate", 1, 9000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "rows=1 intermediate=1536 dtype=bf16"},
    {"odd", "rows=7 intermediate=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 intermediate=14336 dtype=bf16"},
    {"llama_8b_prefill", "rows=4096 intermediate=14336 dtype=bf16"},
    {"narrow", "rows=16384 intermediate=4096 dtype=f16"},
    {0},
};

DEFINE_OP("activation", "out = silu(first half of input) * second half, over the last dimension",
          .kernels = kernels, .ranges = ranges, .shapes = shapes, .reference = reference);
