/* SPDX-License-Identifier: Apache-2.0 */
/* The norm family in float64, and by how much float32 arithmetic may be off. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/norm/norm_reference.h"

/* mean: 0 without LAYERNORM. deviation: the reciprocal of the root mean square, or of the standard deviation. */
struct statistics {
    double mean, mean_error, deviation, relative_error;
};

/* No kernel adds more than hidden/16 + 32 terms one after the other, each time off by at most a unit. */
static double sum_units(int64_t hidden) { return (double)hidden / 16 + 32; }

static struct statistics row_statistics(const struct norm_view *t, const double *x, int64_t hidden)
{
    struct statistics s = {0};
    double sum = 0, magnitudes = 0, squares = 0, n = (double)hidden, units = sum_units(hidden) * REFERENCE_UNIT;
    for (int64_t i = 0; t->layernorm && i < hidden; i++) {
        sum += x[i];
        magnitudes += fabs(x[i]);
    }
    s.mean = sum / n;
    s.mean_error = magnitudes / n * (units + 2 * REFERENCE_UNIT);
    for (int64_t i = 0; i < hidden; i++)
        squares += (x[i] - s.mean) * (x[i] - s.mean);
    if (squares > FLT_MAX)
        squares = INFINITY;
    double variance = squares / n + t->eps;
    s.deviation = 1 / sqrt(variance);
    /* The square root halves what the sum is off. Around a mean that is off by d the variance is d^2 larger. The differences,
     * squares, mean and root add 6 units at most. */
    s.relative_error = (units + s.mean_error * s.mean_error / variance) / 2 + 6 * REFERENCE_UNIT;
    return s;
}

/* An output that may lie anywhere from low to high before its last rounding. */
static void set_range(double *out, double *bound, double low, double high)
{
    *out = (low + high) / 2;
    *bound = (high - low) / 2;
}

static double clamp(double x, double limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/* y, off by at most `error`, over the scale, saturated. */
static void quantise(const struct reference *r, const struct norm_view *t, double scale, double y, double error, double *out,
                     double *bound)
{
    double low = y - error, high = y + error, limit = reference_dtype(r, t->out) == DTYPE_E4M3 ? 448 : 57344;
    if (t->layernorm) { /* which is rounded to the dtype of input first */
        low = reference_round(reference_dtype(r, t->input), low);
        high = reference_round(reference_dtype(r, t->input), high);
    }
    /* The reciprocal of the scale and the product are rounded. */
    low = low / scale - fabs(low / scale) * 3 * REFERENCE_UNIT - FLT_TRUE_MIN;
    high = high / scale + fabs(high / scale) * 3 * REFERENCE_UNIT + FLT_TRUE_MIN;
    set_range(out, bound, clamp(low, limit), clamp(high, limit));
}

void norm_reference_x(const struct norm_view *t, int64_t at, int64_t hidden, double *x)
{
    const double *input = (const double *)t->input->data + at;
    const double *residual = t->residual ? (const double *)t->residual->data + at : NULL;
    for (int64_t i = 0; i < hidden; i++)
        x[i] = residual ? (float)(input[i] + residual[i]) : input[i]; /* by definition the sum is a float32 */
}

/* x * deviation * factor, as the op orders and rounds it. */
static double product(const struct reference *r, double x, double deviation, double factor)
{
    const struct norm_view *t = r->view;
    if (t->block_size && t->residual)
        return reference_round(reference_dtype(r, t->residual), x) * deviation * factor;
    if (t->block_size && !t->silu)
        return reference_round(reference_dtype(r, t->input), x * factor) * deviation;
    return x * deviation * factor;
}

void norm_reference_y(const struct reference *r, const double *x, int64_t hidden, double *y, double *error)
{
    const struct norm_view *t = r->view;
    const double *weight = t->weight->data, *beta = t->beta ? t->beta->data : NULL;
    struct statistics s = row_statistics(t, x, hidden);
    for (int64_t i = 0; i < hidden; i++) {
        double factor = weight[i] + t->weight_bias;
        y[i] = product(r, x[i] - s.mean, s.deviation, factor);
        /* A difference and three roundings of factors and products; below the normal numbers of float32, or of bf16, a product is
         * off by up to half the smallest one. */
        error[i] = fabs(y[i]) * (s.relative_error + 4 * REFERENCE_UNIT) + s.mean_error * s.deviation * fabs(factor) +
                   (fabs(factor) + 1) * FLT_TRUE_MIN + (t->block_size ? s.deviation * 0x1p-133 : 0);
        if (beta) {
            y[i] += beta[i];
            error[i] += fabs(y[i]) * REFERENCE_UNIT;
        }
        if (t->silu) { /* its slope is at most 1.1; exponential, quotient and product are off by 8 units */
            y[i] = y[i] / (1 + exp(-y[i]));
            error[i] = 1.1 * error[i] + 8 * REFERENCE_UNIT * fabs(y[i]) + 104 * FLT_TRUE_MIN;
        }
        if (isinf(y[i]))
            error[i] = 0;
    }
}

void norm_reference(const struct reference *r)
{
    const struct norm_view *t = r->view;
    int64_t hidden = tensor_shape(t->input, -1), elements = tensor_elements(t->input);
    double *residual = t->residual ? t->residual->data : NULL, *out = t->out->data, *bound = reference_bound(r, t->out);
    bool quantised = dtype_bytes(reference_dtype(r, t->out)) == 1;
    double *x = calloc((size_t)hidden, sizeof *x), scale = reference_scale(&t->scale);
    for (int64_t at = 0; x && at < elements; at += hidden) {
        norm_reference_x(t, at, hidden, x);
        norm_reference_y(r, x, hidden, out + at, bound + at);
        for (int64_t i = at; quantised && i < at + hidden; i++)
            quantise(r, t, scale, out[i], bound[i], &out[i], &bound[i]);
        if (residual)
            memcpy(residual + at, x, (size_t)hidden * sizeof *x);
    }
    free(x);
}
