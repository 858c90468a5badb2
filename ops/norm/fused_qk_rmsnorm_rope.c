/* SPDX-License-Identifier: Apache-2.0 */
/* The op fused_qk_rmsnorm_rope. Kernels: fused_qk_rmsnorm_rope_sm80.cu, fused_qk_rmsnorm_rope_cpu.c. */
#include <float.h>
#include <math.h>

#include "core/power.h"
#include "flashinfer/norm.h"
#include "harness/reference.h"
#include "ops/norm/fused_qk_rmsnorm_rope_args.h"

#define OP fused_qk_rmsnorm_rope
DIMS(rows, num_heads_q, num_heads_k, num_heads_v, head_dim, num_frame_channels, num_height_channels, num_width_channels, ppf, pph,
     ppw);

enum { MAX_HEADS = 32, VEC = 8, CPU_ELEMENTS_PER_PART = 8192 /* some 2 us */ };
enum { MAX_NARROW_THREADS = 512, AHEAD_BYTES = 12288 /* of a multiprocessor, that are fetched to the L2 cache before */ };

#define SPECIAL NORMAL_WITH(SPECIAL_ZERO | SPECIAL_SUBNORMAL | SPECIAL_NAN)

static const struct op_arg args[] = {
    OUT(q_out, LIKE_OR(qkv, E4M3), "... num_heads_q head_dim"),
    OUT(k_out, LIKE(q_out), "... num_heads_k head_dim"),
    OUT(v_out, LIKE(q_out), "... num_heads_v head_dim"),
    IN(qkv, F16 | BF16, "... (num_heads_q+num_heads_k+num_heads_v)*head_dim", .fill = SPECIAL),
    IN(q_weight, LIKE(qkv), "num_heads_q*head_dim"),
    IN(k_weight, LIKE(qkv), "num_heads_k*head_dim"),
    INT(ppf, .min = 1),
    INT(pph, .min = 1),
    INT(ppw, .min = 1),
    INT(num_frame_channels),
    INT(num_height_channels),
    INT(num_width_channels),
    INT(num_heads_q, .min = 1, .max = MAX_HEADS),
    INT(num_heads_k, .min = 1, .max = MAX_HEADS),
    INT(num_heads_v, .min = 1, .max = MAX_HEADS),
    INT(head_dim, .min = 64, .max = 256),
    NUMBER(eps, .value = 1e-6, .min = 1e-30),
    NUMBER(base, .value = 10000, .min = 1, .max = 1e12),
    INT(interleave, .value = 1, .max = 1, .flags = HOST),
    NUMBER(factor, .value = 1, .min = 1e-6, .max = 1e6),
    NUMBER(low, .max = 1e6),
    NUMBER(high, .max = 1e6),
    NUMBER(attention_factor, .value = 1, .min = 1e-6, .max = 1e6),
    INT(is_qk_norm, .value = 1, .max = 1, .flags = HOST),
    NUMBER(output_quant_scale, .value = 1, .min = 1e-30, .max = 1e30),
    NUMBER(v_quant_scale, .value = 1, .min = 1e-30, .max = 1e30),
    {0},
};

static const char *const rules[] = {
    "head_dim == 64 or head_dim == 128 or head_dim == 256",
    "num_frame_channels + num_height_channels + num_width_channels == head_dim",
    "num_frame_channels % 2 == 0",
    "num_height_channels % 2 == 0",
    "rows % (ppf*pph*ppw) == 0",
    NULL,
};

static const struct jit_kernel sm80 = {
    "fused_qk_rmsnorm_rope_sm80", JIT_CUDA, {"T:dtype", "OUT:dtype", "HEAD_DIM", "INTERLEAVE", "ACCESS", "WIDE"}};
static const struct jit_kernel cpu = {"fused_qk_rmsnorm_rope_cpu", JIT_CPU, {"T:dtype", "OUT:dtype", "HEAD_DIM", "INTERLEAVE"}};

static bool fill_args(const struct call *call, struct fused_qk_rmsnorm_rope_args *a)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *c = call_args(call);
    const struct dims *d = call_dims(call);
    const DLTensor *const out[3] = {c->q_out, c->k_out, c->v_out};
    const int64_t heads[3] = {d->num_heads_q, d->num_heads_k, d->num_heads_v};
    const int64_t channels[3] = {d->num_frame_channels, d->num_height_channels, d->num_width_channels};
    bool narrow = tensor_dtype(c->q_out) == DTYPE_E4M3;
    double width = fabs(c->high - c->low) <= 1e-6 ? c->high + 0.001 - c->low : c->high - c->low;
    *a = (struct fused_qk_rmsnorm_rope_args){.qkv = tensor_data(c->qkv),
                                             .weight = {tensor_data(c->q_weight), tensor_data(c->k_weight)},
                                             .rows = d->rows,
                                             .seq_len = (int32_t)(d->ppf * d->pph * d->ppw),
                                             .frame_len = (int32_t)(d->pph * d->ppw),
                                             .width = (int32_t)d->ppw,
                                             .is_qk_norm = c->is_qk_norm.value.i != 0,
                                             .ramp_low = c->low,
                                             .ramp_scale = 1 / width,
                                             .inverse_factor = 1 / c->factor,
                                             .eps = (float)c->eps,
                                             .attention_factor = (float)c->attention_factor};
    for (int i = 0; i < 3; i++) {
        a->out[i] = tensor_data(out[i]);
        a->heads[i] = (int32_t)heads[i];
        a->channels[i] = (int32_t)channels[i];
        a->ratio[i] = channels[i] ? remembered_pow(c->base, -2.0 / (double)channels[i]) : 1;
        a->scale[i] = narrow ? (float)(i < 2 ? c->output_quant_scale : c->v_quant_scale) : 1;
        a->out_stride[i][1] = tensor_stride(out[i], -2);
        int64_t rows;
        if (!tensor_rows(out[i], 2, &rows, &a->out_stride[i][0]))
            return false;
    }
    for (int i = 0; i < 2; i++)
        a->inverse_hidden[i] = (float)(1 / (double)(heads[i] * d->head_dim));
    int64_t rows;
    return tensor_rows(c->qkv, 1, &rows, &a->qkv_stride);
}

/* Of a GPU's block: a piece of a token's q, of its k and of its v each. */
static int64_t threads_of(const struct dims *d)
{
    int64_t heads = most(d->num_heads_q, most(d->num_heads_k, d->num_heads_v));
    return ceil_div(most(heads * d->head_dim / VEC, d->head_dim / 2), 32) * 32;
}

static const char *fit(const struct call *call, struct way *way, const struct jit_kernel *kernel)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *c = call_args(call);
    const struct dims *d = call_dims(call);
    if (!fill_args(call, WAY_ARGS(way, struct fused_qk_rmsnorm_rope_args)))
        return "the leading axes of a tensor cannot be walked with one stride";
    if (d->rows > INT32_MAX)
        return "there are more tokens than a grid has blocks";
    int32_t *constant = way_spec(way, kernel);
    constant[0] = tensor_dtype(c->qkv);
    constant[1] = tensor_dtype(c->q_out);
    constant[2] = (int32_t)d->head_dim;
    constant[3] = c->interleave.value.i != 0;
    if (kernel->target == JIT_CUDA) {
        struct fused_qk_rmsnorm_rope_args *a = WAY_ARGS(way, struct fused_qk_rmsnorm_rope_args);
        int64_t row = (d->num_heads_q + d->num_heads_k + d->num_heads_v) * d->head_dim * dtype_bytes(tensor_dtype(c->qkv));
        if (tensor_is_aligned(c->qkv, 16) && row % 16 == 0)
            a->ahead = fetch_ahead((int64_t)call->device->sms * AHEAD_BYTES, d->rows, row);
        constant[5] = threads_of(d) > MAX_NARROW_THREADS;
        for (constant[4] = VEC; constant[4] > 1; constant[4] /= 2) {
            int bytes = constant[4] * 2, out_bytes = constant[4] * dtype_bytes(tensor_dtype(c->q_out));
            if (tensor_is_aligned(c->qkv, bytes) && tensor_is_aligned(c->q_weight, bytes) &&
                tensor_is_aligned(c->k_weight, bytes) && tensor_is_aligned(c->q_out, out_bytes) &&
                tensor_is_aligned(c->k_out, out_bytes) && tensor_is_aligned(c->v_out, out_bytes))
                break;
        }
    }
    return NULL;
}

static const char *fit_sm80(const struct call *call, struct way *way) { return fit(call, way, &sm80); }
static const char *fit_cpu(const struct call *call, struct way *way) { return fit(call, way, &cpu); }

static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct dims *d = call_dims(call);
    struct jit_launch launch = {.args = way->args, .args_size = sizeof(struct fused_qk_rmsnorm_rope_args)};
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch.grid[0] = (uint32_t)d->rows;
        launch.block[0] = (uint32_t)threads_of(d);
    } else {
        int64_t elements = (d->num_heads_q + d->num_heads_k + d->num_heads_v) * d->head_dim;
        launch.grid[0] = (uint32_t)ceil_div(d->rows, ceil_div(CPU_ELEMENTS_PER_PART, elements));
    }
    return call_launch(call, way, 0, &launch);
}

static const struct op_kernel kernels[] = {
    {"fused_qk_rmsnorm_rope_sm80", OP_CUDA, 80, 0, fit_sm80, run},
    {"fused_qk_rmsnorm_rope_cpu", OP_CPU, 0, 0, fit_cpu, run},
    {0},
};

/* A value and by how much it may be off. */
struct about {
    double value, error;
};

/* Element i of n, normalised, and rounded unless the output is narrower. */
static struct about normalised(const struct reference *r, const double *x, const double *weight, double scale, int64_t n,
                               int64_t i)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *a = r->args;
    if (!a->is_qk_norm.value.i)
        return (struct about){x[i], 0};
    /* No kernel adds more than n/16 + 32 squares one after the other; the root halves that. Mean, root and products add 8
     * units. */
    double y = x[i] * scale * weight[i], error = fabs(y) * (((double)n / 16 + 32) / 2 + 8) * REFERENCE_UNIT + FLT_TRUE_MIN;
    enum dtype dtype = reference_dtype(r, a->qkv);
    if (reference_dtype(r, a->q_out) == DTYPE_E4M3)
        return (struct about){y, error};
    double low = reference_round(dtype, y - error), high = reference_round(dtype, y + error);
    return (struct about){(low + high) / 2, (high - low) / 2};
}

/* How far pair i of a head turns at a token. */
static double angle_of(const struct reference *r, int64_t token, int64_t pair)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *a = r->args;
    const struct dims *d = call_dims(r->call);
    int64_t frame = token / (d->pph * d->ppw), line = token / d->ppw % d->pph, column = token % d->ppw;
    int64_t channel = 2 * pair, channels = d->num_frame_channels, place = frame;
    if (channel >= channels) {
        channel -= channels;
        channels = d->num_height_channels;
        place = line;
        if (channel >= channels) {
            channel -= channels;
            channels = d->num_width_channels;
            place = column;
        }
    }
    double frequency = pow(a->base, -(double)channel / (double)channels);
    double high = fabs(a->high - a->low) <= 1e-6 ? a->high + 0.001 : a->high;
    double share = fmin(fmax(((double)channel / 2 - a->low) / (high - a->low), 0), 1);
    return (double)place * (frequency / a->factor * share + frequency * (1 - share));
}

static void rotated(const struct reference *r, const double *x, const double *weight, int64_t n, int64_t row, double *out,
                    double *bound)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *a = r->args;
    const struct dims *d = call_dims(r->call);
    int64_t half = d->head_dim / 2;
    double squares = 0, factor = (float)a->attention_factor;
    double quant = reference_dtype(r, a->q_out) == DTYPE_E4M3 ? (float)a->output_quant_scale : 1;
    for (int64_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    double scale = 1 / sqrt(squares / (double)n + a->eps);
    for (int64_t pair = 0; pair < half; pair++) {
        double angle = angle_of(r, row % (d->ppf * d->pph * d->ppw), pair), c = cos(angle), s = sin(angle);
        for (int64_t head = 0; head < n; head += d->head_dim) {
            int64_t one = head + (a->interleave.value.i ? 2 * pair : pair), other = a->interleave.value.i ? one + 1 : one + half;
            struct about u = normalised(r, x, weight, scale, n, one), v = normalised(r, x, weight, scale, n, other);
            /* Sines and cosines are off by 8 units absolutely; four roundings of products and a sum. */
            double error = (fabs(u.value) + fabs(v.value)) * 12 * REFERENCE_UNIT + u.error + v.error;
            out[one] = (u.value * c - v.value * s) * factor * quant;
            out[other] = (v.value * c + u.value * s) * factor * quant;
            bound[one] = bound[other] = error * factor * quant + FLT_TRUE_MIN;
        }
    }
}

static void reference(const struct reference *r)
{
    const struct flashinfer_fused_qk_rmsnorm_rope *a = r->args;
    const struct dims *d = call_dims(r->call);
    int64_t q = d->num_heads_q * d->head_dim, k = d->num_heads_k * d->head_dim, v = d->num_heads_v * d->head_dim;
    double *v_out = a->v_out->data, *v_bound = reference_bound(r, a->v_out);
    double scale = reference_dtype(r, a->q_out) == DTYPE_E4M3 ? (float)a->v_quant_scale : 1;
    for (int64_t row = 0; row < d->rows; row++) {
        const double *x = (const double *)a->qkv->data + row * (q + k + v);
        rotated(r, x, a->q_weight->data, q, row, (double *)a->q_out->data + row * q, reference_bound(r, a->q_out) + row * q);
        rotated(r, x + q, a->k_weight->data, k, row, (double *)a->k_out->data + row * k, reference_bound(r, a->k_out) + row * k);
        for (int64_t i = 0; i < v; i++) {
            v_out[row * v + i] = x[q + k + i] * scale;
            v_bound[row * v + i] = scale == 1 ? 0 : fabs(v_out[row * v + i]) * REFERENCE_UNIT;
        }
    }
}

static const struct op_range ranges[] = {{"rows", 0, 48, 0},
                                         {"ppf", 1, 4, 0},
                                         {"pph", 1, 4, 0},
                                         {"ppw", 1, 4, 0},
                                         {"num_heads_q", 1, 8, 0},
                                         {"num_heads_k", 1, 8, 0},
                                         {"num_heads_v", 1, 8, 0},
                                         {"head_dim", 64, 256, 64},
                                         {"num_frame_channels", 0, 128, 2},
                                         {"num_height_channels", 0, 128, 2},
                                         {"num_width_channels", 0, 256, 2},
                                         {0}};

#define WAN "num_frame_channels=44 num_height_channels=42 num_width_channels=42 head_dim=128 "
static const struct op_shape shapes[] = {
    {"wan_14b", "rows=3600 ppf=1 pph=45 ppw=80 num_heads_q=32 num_heads_k=32 num_heads_v=32 dtype=bf16 " WAN},
    {"wan_5b_fp8", "rows=880 ppf=2 pph=22 ppw=20 num_heads_q=24 num_heads_k=24 num_heads_v=24 dtype=bf16 q_out:dtype=e4m3 " WAN},
    {"halves",
     "rows=24 ppf=3 pph=2 ppw=4 num_heads_q=3 num_heads_k=2 num_heads_v=1 head_dim=64 num_frame_channels=16 "
     "num_height_channels=24 "
     "num_width_channels=24 interleave=0 dtype=f16"},
    {"wide_heads",
     "rows=10 ppf=1 pph=5 ppw=2 num_heads_q=5 num_heads_k=3 num_heads_v=2 head_dim=256 num_frame_channels=96 "
     "num_height_channels=80 "
     "num_width_channels=80 factor=2 low=4 high=20 attention_factor=1.1 dtype=f16 q_out:dtype=e4m3"},
    {"one_token_frames", "rows=7 ppf=1 pph=1 ppw=1 num_heads_q=2 num_heads_k=2 num_heads_v=2 dtype=bf16 " WAN},
    {0},
};

DEFINE_OP("norm", "q, k = rope(rmsnorm over all heads), v copied, of a video's tokens", .rules = rules, .kernels = kernels,
          .ranges = ranges, .shapes = shapes, .reference = reference);
