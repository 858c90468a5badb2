/* SPDX-License-Identifier: Apache-2.0 */
/* The op softmax. Kernels: softmax_sm90.cu, softmax_sm80.cu, softmax_cpu.c. */
#include <float.h>
#include <math.h>

#include "flashinfer/sampling.h"
#include "harness/reference.h"
#include "ops/sampling/softmax_args.h"

#define OP softmax
DIMS(batch, vocab);

static const struct op_arg args[] = {
    OUT(out, F32, "batch vocab", MAY_ALIAS(logits)),
    IN(logits, F16 | BF16 | F32, "batch vocab",
       .fill = NORMAL_WITH_ALL),
    NUMBER(temperature, .value = 1, .max = 1e36, .dtype.set = F32, .shape = "batch"),
    {0},
};

enum { THREADS = 1024, MAX_VEC = 4 };
enum { MIN_CLUSTER_VOCAB = 24576, CLUSTER_VOCAB_PER_ROW = 8000 }; /* where clusters are faster; on an H200, up to 16 of them */
enum { CPU_ELEMENTS_PER_PART = 4096 }; /* some 2 us */

static const struct jit_kernel sm90 = {"softmax_sm90", JIT_CUDA, {"T:dtype", "VEC"}};
static const struct jit_kernel sm80 = {"softmax_sm80", JIT_CUDA, {"T:dtype", "VEC"}};
static const struct jit_kernel cpu = {"softmax_cpu", JIT_CPU, {"T:dtype"}};

static const char *fit_cuda(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct flashinfer_softmax *c = call_args(call);
    const struct dims *d = call_dims(call);
    int vec = MAX_VEC;
    while (vec > 1 && (d->vocab % vec || !tensor_is_aligned(c->out, vec * 4) ||
                       !tensor_is_aligned(c->logits, vec * dtype_bytes(tensor_dtype(c->logits)))))
        vec /= 2;
    if (d->batch > INT32_MAX / SOFTMAX_BLOCKS || d->vocab > INT32_MAX)
        return "there are more than 268435455 rows or 2147483647 columns";
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(c->logits);
    constant[1] = vec;
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way) { return fit_cuda(call, way, &sm80); }

static const char *fit_sm90(const struct call *call, struct way *way)
{
    const struct dims *d = call_dims(call);
    if (call->exec.flags & FLASHINFER_BATCH_INVARIANT)
        return "FLASHINFER_BATCH_INVARIANT: how a row is divided depends on how many there are";
    if (d->vocab < MIN_CLUSTER_VOCAB || d->batch > d->vocab / CLUSTER_VOCAB_PER_ROW)
        return "rows of less than 24576, or more than one for each 8000 columns, are for one block each";
    return fit_cuda(call, way, &sm90);
}

static const char *fit_cpu(const struct call *call, struct way *way)
{
    const struct flashinfer_softmax *c = call_args(call);
    way_spec(way, &cpu)[0] = tensor_dtype(c->logits);
    return NULL;
}

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_softmax *c = call_args(call);
    const struct dims *d = call_dims(call);
    struct softmax_args a = {.out = tensor_data(c->out),
                             .logits = tensor_data(c->logits),
                             .batch = d->batch,
                             .vocab = d->vocab,
                             .out_stride = tensor_stride(c->out, 0),
                             .logits_stride = tensor_stride(c->logits, 0)};
    if (c->temperature.kind == FLASHINFER_NUMBER_TENSOR) {
        a.temperatures = tensor_data(c->temperature.value.tensor);
        a.temperatures_step = tensor_elements(c->temperature.value.tensor) > 1;
    } else {
        a.temperature = (float)number_value(&c->temperature);
    }
    struct jit_launch launch = {.args = &a, .args_size = sizeof a};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.cluster[0] = way->spec[0].kernel == &sm90 ? SOFTMAX_BLOCKS : 1;
        launch.grid[0] = (uint32_t)d->batch * launch.cluster[0];
        launch.block[0] = THREADS;
    } else {
        launch.grid[0] = (uint32_t)ceil_div(d->batch, ceil_div(CPU_ELEMENTS_PER_PART, d->vocab));
    }
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"softmax_sm90", OP_CUDA, 90, 0, fit_sm90, run},
    {"softmax_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"softmax_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* exp(-distance), which is 0 long before distance overflows; `distance` of an infinity to itself is 0. */
static double distance(double max, double logit, double temperature)
{
    return isnan(logit) ? INFINITY : logit == max ? 0 : (max - logit) / temperature;
}

static void reference_row(double *out, double *bound, const double *logits, int64_t vocab, double temperature)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    if (max == -INFINITY || !(temperature >= 0))
        return;
    if (temperature == 0) {
        int64_t first = 0;
        while (logits[first] != max)
            first++;
        out[first] = 1;
        return;
    }
    for (int64_t i = 0; i < vocab; i++)
        sum += exp(-distance(max, logits[i], temperature));
    for (int64_t i = 0; i < vocab; i++) {
        double x = distance(max, logits[i], temperature);
        /* In units: the exponent x comes of five rounded steps (at most six with log2(e)), in the sum too,
         * where x is log(vocab) on average or less; exp, product and division are 12; each element passes
         * through at most vocab / 512 + 64 additions. */
        double units = 6 * (fmin(x, 200) + log((double)vocab)) + (double)vocab / 512 + 80;
        out[i] = exp(-x) / sum;
        bound[i] = out[i] * units * REFERENCE_UNIT + FLT_TRUE_MIN;
    }
}

static void reference(const struct reference *r)
{
    const struct flashinfer_softmax *a = r->args;
    const struct dims *d = call_dims(r->call);
    double *out = a->out->data, *bound = reference_bound(r, a->out);
    const double *logits = a->logits->data, *temperatures = NULL;
    int64_t step = 0;
    if (a->temperature.kind == FLASHINFER_NUMBER_TENSOR) {
        temperatures = a->temperature.value.tensor->data;
        step = tensor_elements(a->temperature.value.tensor) > 1;
    }
    for (int64_t row = 0; row < d->batch; row++)
        reference_row(out + row * d->vocab, bound + row * d->vocab, logits + row * d->vocab, d->vocab,
                      temperatures ? temperatures[row * step] : number_value(&a->temperature));
}

static const struct op_range ranges[] = {{"batch", 0, 60, 0}, {"vocab", 1, 9000, 0}, {0}};

static const struct op_shape shapes[] = {
    {"smollm2_135m", "batch=1 vocab=49152 logits:dtype=f32"},
    {"smollm2_135m_batch", "batch=128 vocab=49152 logits:dtype=bf16"},
    {"llama_8b", "batch=1 vocab=128256 logits:dtype=f16"},
    {"llama_8b_few", "batch=16 vocab=128256 logits:dtype=bf16"},
    {"llama_8b_batch", "batch=64 vocab=128256 logits:dtype=f32"},
    {"odd", "batch=7 vocab=1021 logits:dtype=f16"},
    {"gpt2_greedy", "batch=3 vocab=50257 temperature=0 logits:dtype=bf16"},
    {"greedy", "batch=16 vocab=32000 temperature=0 logits:dtype=f32"},
    {0},
};

DEFINE_OP("sampling", "out = softmax(logits / temperature) over the last dimension; temperature 0 is greedy",
          .kernels = kernels, .ranges = ranges, .shapes = shapes, .reference = reference);
