/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the kernels that all samplers share: sampling_sm80.cu, sampling_cpu.c. */
#include "ops/sampling/sampling_kernels.h"

#include "ops/sampling/sampling_args.h"

enum { THREADS = 1024, MAX_VEC = 4 };
enum { CPU_ELEMENTS_PER_PART = 4096 }; /* some 2 us */

static const struct jit_kernel sm80 = {"sampling_sm80", JIT_CUDA, {"VEC", "FILTER"}};
static const struct jit_kernel cpu = {"sampling_cpu", JIT_CPU, {"FILTER"}};

static const char *refuse(const struct sampling_view *t)
{
    if (t->check_nan)
        return "check_nan would have to wait for the device; rows of NaN are told by `valid`";
    if (tensor_shape(t->probs, 1) > SAMPLING_MAX_VOCAB)
        return "vocab is above 16777216, what 64-bit sums hold";
    if (tensor_shape(t->samples, 0) > INT32_MAX)
        return "there are more rows than a grid has blocks";
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way)
{
    const struct sampling_view *t = call_view(call);
    const char *why = refuse(t);
    if (why)
        return why;
    int vec = MAX_VEC;
    while (vec > 1 && (tensor_shape(t->probs, 1) % vec || !tensor_is_aligned(t->probs, vec * 4)))
        vec /= 2;
    int32_t *constant = way_spec(way, &sm80);
    constant[0] = vec;
    constant[1] = t->has_filter;
    return NULL;
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct sampling_view *t = call_view(call);
    const char *why = refuse(t);
    if (why)
        return why;
    way_spec(way, &cpu)[0] = t->has_filter;
    return NULL;
}

static struct row_integers integers(const flashinfer_number *number)
{
    if (number->kind == FLASHINFER_NUMBER_INT)
        return (struct row_integers){.value = number->value.i};
    if (number->kind != FLASHINFER_NUMBER_TENSOR)
        return (struct row_integers){0};
    const DLTensor *tensor = number->value.tensor;
    return (struct row_integers){.at = tensor_data(tensor),
                                 .step = tensor_elements(tensor) > 1,
                                 .is_64 = dtype_bytes(tensor_dtype(tensor)) == 8};
}

static struct row_floats floats(const flashinfer_number *number)
{
    if (number->kind == FLASHINFER_NUMBER_FLOAT)
        return (struct row_floats){.value = (float)number->value.f};
    if (number->kind != FLASHINFER_NUMBER_TENSOR)
        return (struct row_floats){.value = 1.0f};
    return (struct row_floats){.at = tensor_data(number->value.tensor),
                               .step = tensor_elements(number->value.tensor) > 1};
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct sampling_view *t = call_view(call);
    struct sampling_args a = {.samples = tensor_data(t->samples),
                              .valid = tensor_data_or_null(t->valid),
                              .probs = tensor_data(t->probs),
                              .batch = tensor_shape(t->samples, 0),
                              .num_rows = tensor_shape(t->probs, 0),
                              .vocab = tensor_shape(t->probs, 1),
                              .probs_stride = tensor_stride(t->probs, 0),
                              .samples_are_64 = tensor_dtype(t->samples) == DTYPE_I64,
                              .joint = t->joint,
                              .number = {[SAMPLING_SEED] = integers(&t->seed),
                                         [SAMPLING_OFFSET] = integers(&t->offset),
                                         [SAMPLING_TOP_K] = integers(&t->top_k)},
                              .top_p = floats(&t->top_p)};
    if (t->indices)
        a.indices =
            (struct row_integers){.at = tensor_data(t->indices), .step = 1, .is_64 = a.samples_are_64};
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)a.batch;
        launch.block[0] = THREADS;
    } else {
        launch.grid[0] = (uint32_t)ceil_div(a.batch, ceil_div(CPU_ELEMENTS_PER_PART, a.vocab));
    }
    return call_launch(call, way, 0, &launch);
}

const struct op_kernel sampling_kernels[] = {
    {"sampling_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"sampling_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};
