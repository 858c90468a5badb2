/* SPDX-License-Identifier: Apache-2.0 */
/* What the rope ops should give, and problems for them. */
#include <float.h>
#include <math.h>

#include "harness/problem.h"
#include "ops/rope/rope_kernels.h"

/* A pair's rotation, and by how much a kernel's sine and cosine may be off. */
struct rotation {
    double cosine, sine, error;
};

static struct rotation computed_rotation(const struct rope_view *v, double position, int64_t pair, int64_t pairs)
{
    double base = pow(v->rope_theta, -(double)pair / (double)pairs), low = 1 / v->rope_scale, smooth = 0, sensitivity = 0;
    /* The kernels multiply from pair to pair in float64, two roundings each; pow here is off by some, too. */
    double roundings = (double)(2 * pairs + 64) * 0x1p-53;
    if (v->high_freq_factor != 0) {
        double wavelengths = v->old_context_len * base / (2 * 3.141592653589793238463);
        double width = v->high_freq_factor - v->low_freq_factor;
        smooth = fmin(fmax((wavelengths - v->low_freq_factor) / width, 0), 1);
        sensitivity = (wavelengths + fabs(v->low_freq_factor)) / fabs(width) * fabs(1 - low);
    }
    double angle = position * base * ((1 - smooth) * low + smooth);
    /* The angle, rounded to float32 below half a turn, is off by 1.6 units, sine and cosine by 2. */
    return (struct rotation){cos(angle), sin(angle),
                             3.6 * REFERENCE_UNIT + (fabs(angle) + fabs(position * base) * sensitivity) * roundings};
}

static struct rotation rotation_of(const struct rope_view *v, double position, int64_t pair, int64_t pairs)
{
    if (!v->cos_sin_cache)
        return computed_rotation(v, position, pair, pairs);
    const double *row = (const double *)v->cos_sin_cache->data + (int64_t)position * 2 * pairs;
    return (struct rotation){row[pair], row[pairs + pair], 0};
}

static double position_of(const struct rope_view *v, int64_t token)
{
    if (v->pos_ids)
        return ((const double *)v->pos_ids->data)[token];
    const double *indptr = v->indptr->data, *offsets = v->offsets->data;
    for (int64_t b = 0; b < v->offsets->shape[0]; b++)
        if (indptr[b] <= (double)token && (double)token < indptr[b + 1])
            return offsets[b] + (double)token - indptr[b];
    return 0;
}

/* Where a token's head 0 is written, and by what heads are apart. False: nowhere. */
static bool place(const struct rope_view *v, const DLTensor *out, bool paged, int64_t token, int64_t head_dim, int64_t *at,
                  int64_t *stride)
{
    *stride = head_dim;
    *at = token * (tensor_elements(out) / (out->shape[0] ? out->shape[0] : 1));
    if (!v->paged.kv_indptr)
        return true;
    bool hnd = v->k_out->ndim == 4 && v->kv_layout == FLASHINFER_HND;
    int64_t slots = v->k_out->shape[hnd ? 2 : 1], heads = v->k_out->ndim == 4 ? v->k_out->shape[hnd ? 1 : 2] : 1;
    int64_t slot = reference_slot(&v->paged, slots, token);
    if (slot >= 0 && paged) {
        *stride = hnd ? slots * head_dim : head_dim;
        *at = (hnd ? slot / slots * slots * heads + slot % slots : slot * heads) * head_dim;
    }
    return slot >= 0;
}

static double saturated(double value, double largest)
{
    return isnan(value) ? value : fmax(fmin(value, largest), -largest);
}

/* fp8 saturates, and so does its error. NaN and infinity are certain. */
static void put(double *out, double *bound, double value, double error, double largest)
{
    if (error == 0 || !isfinite(value)) {
        *out = saturated(value, largest);
        return;
    }
    double low = saturated(value - error, largest), high = saturated(value + error, largest);
    *out = low + (high - low) / 2;
    *bound = (high - low) / 2;
}

/* Heads of one tensor, whose first `rotary` elements turn, to elements `to_first` on of another one's heads. */
struct heads {
    const DLTensor *out, *in;
    int64_t rotary, to_first;
    bool paged;
    double scale;
};

static void do_heads(const struct reference *r, const struct heads *h)
{
    const struct rope_view *v = r->view;
    enum dtype dtype = reference_dtype(r, h->out);
    bool quantizes = dtype == DTYPE_E4M3 || dtype == DTYPE_E5M2;
    double largest = dtype == DTYPE_E4M3 ? 448 : dtype == DTYPE_E5M2 ? 57344 : INFINITY;
    int64_t nnz = h->in->shape[0], in_dim = v->head_size ? v->head_size : h->in->shape[h->in->ndim - 1];
    int64_t out_dim = v->head_size ? v->head_size : h->out->shape[h->out->ndim - 1], pairs = h->rotary / 2;
    int64_t heads = nnz && in_dim ? tensor_elements(h->in) / nnz / in_dim : 0, at, stride;
    double scale = quantizes ? (float)h->scale : 1, *out = h->out->data, *bound = reference_bound(r, h->out);
    for (int64_t token = 0; token < nnz; token++) {
        if (!place(v, h->out, h->paged, token, out_dim, &at, &stride))
            continue;
        const double *in = (const double *)h->in->data + token * heads * in_dim;
        /* A product in double is rounded once more, to float32, as the kernels' is. */
        for (int64_t head = 0; head < heads; head++)
            for (int64_t i = h->rotary; i < in_dim; i++)
                put(&out[at + head * stride + h->to_first + i], &bound[at + head * stride + h->to_first + i],
                    quantizes ? (float)(in[head * in_dim + i] * scale) : in[head * in_dim + i], 0, largest);
        for (int64_t pair = 0; pair < pairs; pair++) {
            struct rotation t = rotation_of(v, position_of(v, token), pair, pairs);
            int64_t one = v->interleave ? 2 * pair : pair, other = v->interleave ? 2 * pair + 1 : pairs + pair;
            for (int64_t head = 0; head < heads; head++) {
                double x = in[head * in_dim + one], y = in[head * in_dim + other];
                int64_t to = at + head * stride + h->to_first;
                /* Products, sum and scale: 3 units; a product below float32's normal numbers is off by half its smallest one. */
                double size = fmax(fabs(x * t.cosine) + fabs(y * t.sine), fabs(y * t.cosine) + fabs(x * t.sine));
                double error = size * 3 * REFERENCE_UNIT + (fabs(x) + fabs(y)) * t.error + 2 * FLT_TRUE_MIN;
                put(&out[to + one], &bound[to + one], (x * t.cosine - y * t.sine) * scale, error * fmax(scale, 1), largest);
                put(&out[to + other], &bound[to + other], (y * t.cosine + x * t.sine) * scale, error * fmax(scale, 1), largest);
            }
        }
    }
}

void rope_reference(const struct reference *r)
{
    const struct rope_view *v = r->view;
    int64_t head_dim = v->head_size ? v->head_size : v->q->shape[v->q->ndim - 1];
    int64_t rotary = v->cos_sin_cache ? v->cos_sin_cache->shape[1] : v->rotary_dim ? v->rotary_dim : head_dim;
    bool paged = v->paged.kv_indptr != NULL;
    do_heads(r, &(struct heads){v->q_out, v->q, rotary, 0, false, v->q_scale});
    do_heads(r, &(struct heads){v->k_out, v->k, rotary, 0, paged, v->kv_scale});
    if (v->q_nope && v->q_nope_out)
        do_heads(r, &(struct heads){v->q_nope_out, v->q_nope, 0, 0, false, v->q_scale});
    if (v->k_nope && v->k_nope_out)
        do_heads(r, &(struct heads){v->k_nope_out, v->k_nope, 0, v->k_nope_out == v->k_out ? rotary : 0, paged, v->kv_scale});
    if (v->v)
        do_heads(r, &(struct heads){v->v_out, v->v, 0, 0, paged, v->kv_scale});
}

void rope_make(struct problem *problem)
{
    struct problem_tensor *indptr = problem_tensor(problem, "indptr");
    int64_t nnz = problem_dim(problem, "nnz");
    double total = (double)(problem->seed ? (int64_t)problem_random(problem, 2 * (uint64_t)nnz + 1) : nnz);
    for (int64_t batch = 0; batch <= problem_dim(problem, "batch"); batch++)
        if (problem_get(indptr, batch) > total)
            problem_set(indptr, batch, total);
}
