/* SPDX-License-Identifier: Apache-2.0 */
/* Launch argument of the sampling kernels, and the arithmetic that makes them agree on every device: a
 * probability is an integer in two ways. Its key, the bits of the float, orders probabilities; 0 stands for
 * all that cannot be drawn. Its weight is what it adds to sums: weights are below 2^39, the largest one of a
 * row is at least 2^15 (2^38 unless it is subnormal), and 2^24 of them fit in 64 bits. */
#ifndef SAMPLING_ARGS_H
#define SAMPLING_ARGS_H

#include "philox.h"

enum { SAMPLING_MAX_VOCAB = 1 << 24 };
enum { SAMPLING_SEED, SAMPLING_OFFSET, SAMPLING_TOP_K, SAMPLING_NUMBERS };

/* A number for each row of the batch: at[row * step], or `value` for all where `at` is NULL. */
struct row_integers {
    const void *at; /* int64_t if is_64, else int32_t */
    int64_t value;
    int32_t step; /* 0 or 1 */
    int32_t is_64;
};

struct row_floats {
    const float *at;
    float value;
    int32_t step;
};

struct sampling_args {
    void *samples;      /* [batch] int64_t if samples_are_64, else int32_t */
    uint8_t *valid;     /* [batch]; may be NULL */
    const float *probs; /* [num_rows, vocab] */
    int64_t batch, num_rows, vocab;
    int64_t probs_stride; /* between rows, in elements */
    int32_t samples_are_64;
    int32_t joint;               /* top-p is of all the row, not of what top-k left */
    struct row_integers indices; /* rows of probs; NULL: the rows of the batch */
    struct row_integers number[SAMPLING_NUMBERS];
    struct row_floats top_p;
};

ANYWHERE int64_t row_integer(const struct row_integers *x, int64_t row)
{
    if (!x->at)
        return x->value;
    return x->is_64 ? ((const int64_t *)x->at)[row * x->step] : ((const int32_t *)x->at)[row * x->step];
}

ANYWHERE float row_float(const struct row_floats *x, int64_t row)
{
    return x->at ? x->at[row * x->step] : x->value;
}

/* The probabilities for a row of the batch; NULL if its index lies outside. */
ANYWHERE const float *row_probs(const struct sampling_args *a, int64_t row)
{
    int64_t index = a->indices.at ? row_integer(&a->indices, row) : row;
    return index >= 0 && index < a->num_rows ? a->probs + index * a->probs_stride : 0;
}

/* token: -1 if there is none. */
ANYWHERE void set_sample(const struct sampling_args *a, int64_t row, int64_t token)
{
    int64_t sample = a->valid && token < 0 ? 0 : token;
    if (a->samples_are_64)
        ((int64_t *)a->samples)[row] = sample;
    else
        ((int32_t *)a->samples)[row] = (int32_t)sample;
    if (a->valid)
        a->valid[row] = token >= 0;
}

/* Where probabilities are bits of floats, key and bits are the same for all that can be drawn. */
ANYWHERE uint32_t probability_key(uint32_t bits) { return bits < 0x7f800000u ? bits : 0; }

/* What makes weights of the probabilities of a row: floor(p * factor[0] * factor[1]), without rounding. */
struct weight_scale {
    float factor[2];
    uint32_t top_exponent;
};

/* top: the largest key of the row. The factors are 2^(165 - top_exponent), which may be more than a float
 * holds. */
ANYWHERE struct weight_scale weight_scale_of(uint32_t top)
{
    uint32_t top_exponent = top >> 23 ? top >> 23 : 1;
    uint32_t exponent = 127 + 165 - top_exponent, rest = exponent > 254 ? exponent - 254 : 0;
    union {
        uint32_t bits;
        float value;
    } first = {(exponent - rest) << 23}, second = {(127 + rest) << 23};
    struct weight_scale scale = {{first.value, second.value}, top_exponent};
    return scale;
}

ANYWHERE uint64_t multiply_high(uint64_t a, uint64_t b)
{
#ifdef __CUDACC_RTC__
    return __umul64hi(a, b);
#else
    uint64_t low = (a & 0xffffffffu) * (b & 0xffffffffu), cross = (a >> 32) * (b & 0xffffffffu) + (low >> 32);
    uint64_t other = (a & 0xffffffffu) * (b >> 32) + (cross & 0xffffffffu);
    return (a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32);
#endif
}

/* ceil(p * total), at least 1; p in [0, 1). */
ANYWHERE uint64_t share_of(uint64_t total, float p)
{
    uint64_t fraction = (uint64_t)(p * 18446744073709551616.0f);
    uint64_t share = multiply_high(fraction, total) + (fraction * total != 0);
    return share ? share : 1;
}

/* A key that the threshold of a share cannot lie below: since each key under it weighs less than rest /
 * vocab, together they weigh no more than `rest`, the total without the share. */
ANYWHERE uint32_t share_bound(uint64_t rest, int64_t vocab, uint32_t top_exponent)
{
    /* A key whose exponent is that much below top_exponent weighs less than 2^(39 - below_top). */
    uint32_t below_top = 39;
    while (below_top > 0 && ((uint64_t)vocab << (39 - below_top)) <= rest)
        below_top--;
    return top_exponent > below_top + 1 ? (top_exponent - below_top) << 23 : 1;
}

#endif
