/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that the gated activations share: gated_activation_sm80.cu, gated_activation_cpu.c. */
#include "ops/activation/gated_activation_kernels.h"

#include <float.h>
#include <math.h>

#include "ops/activation/gated_activation_args.h"

enum { MAX_THREADS = 256, RESIDENT_THREADS = 2048, MAX_GRID_Y = 65535 };
enum { WIDE_PIECES = 1024, WIDE_THREADS = 512 }; /* of a row from which threads have four pieces, and then of a block */
enum { CPU_CHUNK = 4096 }; /* columns; some 2 us */
enum { WAY_THREADS, WAY_BLOCKS };

static const struct jit_kernel sm80 = {"gated_activation_sm80", JIT_CUDA, {"T:dtype", "O:dtype", "ACTIVATION", "VEC", "PIECES"}};
static const struct jit_kernel cpu = {"gated_activation_cpu", JIT_CPU, {"T:dtype", "O:dtype", "ACTIVATION", "CHUNK"}};

static bool fill_args(const struct gated_activation_view *t, struct gated_activation_args *a)
{
    bool is_tensor = t->scale.kind == FLASHINFER_NUMBER_TENSOR;
    *a = (struct gated_activation_args){.out = tensor_data(t->out),
                                        .input = tensor_data(t->input),
                                        .scale = is_tensor ? tensor_data(t->scale.value.tensor) : NULL,
                                        .factor = is_tensor ? 1.0f : 1.0f / (float)number_value(&t->scale),
                                        .intermediate = tensor_shape(t->out, -1)};
    return tensor_rows(t->out, 1, &a->rows, &a->out_stride) && tensor_rows(t->input, 1, &a->rows, &a->input_stride);
}

/* The constants that both kernels begin with. */
static int32_t *set_constants(const struct gated_activation_view *t, struct way *way, const struct jit_kernel *kernel)
{
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(t->input);
    constant[1] = tensor_dtype(t->out);
    constant[2] = t->activation;
    return constant;
}

/* One answers soonest; several hide what the activation takes behind loads, where there are more than the GPU holds at once. */
static int pieces_per_thread(const struct call *call, const struct gated_activation_args *a, int vec)
{
    const struct gated_activation_view *t = call_view(call);
    int64_t pieces = ceil_div(a->intermediate, vec);
    bool wide = pieces > WIDE_PIECES && t->activation == ACTIVATION_SILU && dtype_bytes(tensor_dtype(t->out)) == 2;
    return a->rows * pieces <= (int64_t)call->device->sms * RESIDENT_THREADS ? 1 : wide ? 4 : 2;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct gated_activation_view *t = call_view(call);
    struct gated_activation_args *a = WAY_ARGS(way, struct gated_activation_args);
    if (!fill_args(t, a))
        return "the leading axes of a tensor cannot be walked with one stride";
    int vec = 8;
    while (vec > 1 && (a->intermediate % vec || !tensor_is_aligned(t->out, vec * dtype_bytes(tensor_dtype(t->out))) ||
                       !tensor_is_aligned(t->input, vec * 2)))
        vec /= 2;
    int per_thread = pieces_per_thread(call, a, vec);
    int64_t pieces = ceil_div(a->intermediate, vec * per_thread);
    int64_t blocks = ceil_div(pieces, per_thread > 2 ? WIDE_THREADS : MAX_THREADS);
    if (a->rows > INT32_MAX || blocks > MAX_GRID_Y)
        return "there are more rows or columns than a grid has blocks for";
    way->value[WAY_BLOCKS] = blocks;
    way->value[WAY_THREADS] = blocks ? ceil_div(pieces, blocks * 32) * 32 : 0;
    int32_t *constant = set_constants(t, way, &sm80);
    constant[3] = vec;
    constant[4] = per_thread;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct gated_activation_view *t = call_view(call);
    struct gated_activation_args *a = WAY_ARGS(way, struct gated_activation_args);
    if (!fill_args(t, a))
        return "the leading axes of a tensor cannot be walked with one stride";
    set_constants(t, way, &cpu)[3] = CPU_CHUNK;
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct gated_activation_args *a = WAY_ARGS(way, const struct gated_activation_args);
    struct jit_launch launch = {.args = a, .args_size = sizeof *a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)a->rows;
        launch.grid[1] = (uint32_t)way->value[WAY_BLOCKS];
        launch.block[0] = (uint32_t)way->value[WAY_THREADS];
    } else {
        launch.grid[0] = jit_parts(a->intermediate < CPU_CHUNK ? ceil_div(a->rows * a->intermediate, CPU_CHUNK)
                                                       : a->rows * ceil_div(a->intermediate, CPU_CHUNK));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel gated_activation_kernels[] = {
    {"gated_activation_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"gated_activation_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* An activation in float64, by how many units float32 may be off, and what it is near 0: |x| times a subnormal. */
static double activate(enum activation activation, double x, double *units, double *small)
{
    double y = activation == ACTIVATION_GELU_TANH ? 1.5957691216057308 * (x + 0.044715 * x * x * x) : x;
    *small = fabs(x);
    if (activation == ACTIVATION_GELU) {
        /* The polynomial is off by 4, the exponential 4, the rest 8; z = x / sqrt(2) is off by 1.5 and z^2 by 1 more, which
         * exp(-z^2) makes 4 z^2, that is 2 x^2. */
        *units = 16 + 2 * x * x;
        return x < -14.5 ? 0 * x : x / 2 * erfc(-x / sqrt(2));
    }
    /* The exponential 4, the denominator 1, the division 4, the product 1. y of gelu_tanh is off by 6. */
    *units = 10 + (activation == ACTIVATION_GELU_TANH ? 6 * fabs(y) : 0);
    return y < -104 ? 0 * x : x / (1 + exp(-y));
}

void gated_activation_reference(const struct reference *r)
{
    const struct gated_activation_view *t = r->view;
    int64_t n = tensor_shape(t->out, -1), rows = n ? tensor_elements(t->out) / n : 0;
    const double *gate = t->input->data, *up = gate + n;
    double *out = t->out->data, *bound = reference_bound(r, t->out);
    double scale =
        t->scale.kind == FLASHINFER_NUMBER_TENSOR ? *(const double *)t->scale.value.tensor->data : number_value(&t->scale);
    enum dtype dtype = reference_dtype(r, t->out);
    double largest = dtype == DTYPE_E5M2 ? 57344 : dtype == DTYPE_E4M3 ? 448 : INFINITY;

    for (int64_t row = 0; row < rows; row++, gate += 2 * n, up += 2 * n)
        for (int64_t i = 0; i < n; i++, out++, bound++) {
            double units, small, product = activate(t->activation, gate[i], &units, &small) * up[i];
            double value = fabs(product) > FLT_MAX ? copysign(INFINITY, product) : product / scale;
            *out = isnan(value) ? value : fmax(-largest, fmin(largest, value));
            /* The product 1, 1 / scale and its product 2; a negative result near 0 is off by a subnormal. */
            if (!isinf(value))
                *bound =
                    fabs(value) * (units + 3) * REFERENCE_UNIT + (((small + 1) * fabs(up[i]) + 1) / scale + 1) * FLT_TRUE_MIN;
        }
}

const struct op_range gated_activation_ranges[] = {{"rows", 0, 300, 0}, {"intermediate", 1, 9000, 0}, {0}};

const struct op_shape gated_activation_shapes[] = {
    {"smollm2_135m", "rows=1 intermediate=1536 dtype=bf16"},
    {"odd", "rows=7 intermediate=111 dtype=f16"},
    {"llama_8b_decode", "rows=128 intermediate=14336 dtype=bf16"},
    {"llama_8b_prefill", "rows=4096 intermediate=14336 dtype=bf16"},
    {"narrow", "rows=16384 intermediate=4096 dtype=f16"},
    {"llama_8b_e4m3", "rows=4096 intermediate=14336 input:dtype=bf16 out:dtype=e4m3 scale=0.5"},
    {"qwen3_e5m2", "rows=128 intermediate=3072 input:dtype=f16 out:dtype=e5m2"},
    {0},
};
