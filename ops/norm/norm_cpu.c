/* SPDX-License-Identifier: Apache-2.0 */
/* A norm on a CPU. A part takes a range of rows; a row is read twice, three times for LAYERNORM, after the first time from the
 * cache.
 *
 *   T            dtype of input: f16, bf16, f32
 *   W            dtype of weight and beta: T or f32
 *   R            dtype of the residual: T or f32
 *   OUT          dtype of the output: T, e4m3, e5m2
 *   ADD_RESIDUAL 0, 1: x = input, or input + residual, which is stored, rounded
 *   LAYERNORM    0: x / rms(x) * (weight + weight_bias); 1: (x - mean(x)) / deviation(x) * (weight + weight_bias) + beta
 *   SILU         0, 1: then silu of that */
#include "activation.h"
#include "vec.h"
#include "norm_args.h"

/* Sums that run side by side, to keep the adders busy. */
enum { SUMS = 4 };

struct row {
    const T *input;
    R *residual;
    OUT *out;
};

INLINE vec load_x(const struct row *row, int64_t at, int64_t n)
{
    vec x = vec_load_n(row->input + at, n);
#if ADD_RESIDUAL
    x += vec_load_n(row->residual + at, n);
#endif
    return x;
}

INLINE vec round_to_input(vec x)
{
    T rounded[LANES];
    vec_store(rounded, x);
    return vec_load(rounded);
}

/* Of x, or of (x - mean)^2; lanes beyond the row are no elements of it. */
INLINE vec term(vec x, int squares, float mean, int64_t n)
{
    if (!squares)
        return x;
    return LAYERNORM && n < LANES ? vec_first((x - mean) * (x - mean), n) : (x - mean) * (x - mean);
}

INLINE float row_sum(const struct row *row, int64_t hidden, int squares, float mean)
{
    vec sums[SUMS] = {{0}};
    int64_t at = 0;
    for (; at + SUMS * LANES <= hidden; at += SUMS * LANES)
        for (int i = 0; i < SUMS; i++)
            sums[i] += term(load_x(row, at + i * LANES, LANES), squares, mean, LANES);
    for (; at < hidden; at += LANES)
        sums[0] += term(load_x(row, at, hidden - at), squares, mean, hidden - at);
    return vec_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static void normalise(const struct norm_args *a, const struct row *row, float multiplier)
{
    int64_t hidden = a->hidden;
    float mean = LAYERNORM ? row_sum(row, hidden, 0, 0) * a->inverse_hidden : 0;
    float deviation = 1.0f / sqrtf(row_sum(row, hidden, 1, mean) * a->inverse_hidden + a->eps);
    for (int64_t at = 0, n = hidden; at < hidden; at += LANES, n -= LANES) {
        vec x = load_x(row, at, n);
#if ADD_RESIDUAL
        vec_store_n(row->residual + at, x, n);
#endif
        vec y = (x - mean) * deviation * (vec_load_n((const W *)a->weight + at, n) + a->weight_bias);
#if LAYERNORM
        y += vec_load_n((const W *)a->beta + at, n);
#endif
#if SILU
        y = silu(y);
#endif
        if (sizeof(OUT) == 1)
            y = (LAYERNORM ? round_to_input(y) : y) * multiplier;
        vec_store_n(row->out + at, y, n);
    }
}

void norm_cpu(const struct norm_args *a, int part, int parts)
{
    float multiplier = sizeof(OUT) == 1 ? 1.0f / (a->scale ? *a->scale : a->scale_value) : 1;
    int64_t end = part_begin(a->rows * a->groups, part + 1, parts);
    for (int64_t i = part_begin(a->rows * a->groups, part, parts); i < end; i++) {
        int64_t row = i / a->groups, group = i % a->groups;
        struct row r = {(const T *)a->input + row * a->input_stride[0] + group * a->input_stride[1],
                        (R *)a->residual + row * a->residual_stride[0] + group * a->residual_stride[1],
                        (OUT *)a->out + row * a->out_stride[0] + group * a->out_stride[1]};
        normalise(a, &r, multiplier);
    }
}
