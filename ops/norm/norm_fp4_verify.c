/* SPDX-License-Identifier: Apache-2.0 */
/* Judges norms with e2m1 output in float64. A block's scale may fall either way where the largest magnitude may lie on both
 * sides of a boundary; the codes must be right for the scale that was written. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "block_scale.h"
#include "ops/norm/norm_reference.h"

struct row {
    const struct reference *r;
    const struct norm_view *t;
    int64_t index, hidden;
    double *x, *y, *error;
};

static unsigned scale_code(const struct row *row, const DLTensor *scales, int64_t at)
{
    enum dtype dtype = reference_dtype(row->r, scales);
    double got = reference_got(row->r, scales)[at];
    uint8_t code = (uint8_t)(dtype == DTYPE_U8 ? got : 0);
    if (dtype != DTYPE_U8)
        dtype_store(dtype, &code, got);
    return code;
}

static double round_e2m1(double x) { return reference_e2m1_value(reference_e2m1_code(x)); }

/* The least power of two, 2^-127 or more, with amax <= 6 * that; amax is at most 2^128. */
static double e8m0_scale(double amax)
{
    int exponent;
    if (amax <= 0)
        return 0x1p-127;
    double fraction = frexp(fmin(amax, 0x1p128) / 6, &exponent);
    exponent -= fraction == 0.5;
    return ldexp(1, exponent < -127 ? -127 : exponent);
}

static const char *verify_scale(const struct row *row, int64_t block, unsigned code, double *multiplier)
{
    double global = reference_scale(&row->t->scale), low = 0, high = 0, scale, least, most;
    for (int64_t i = block * row->t->block_size; i < (block + 1) * row->t->block_size; i++) {
        low = fmax(low, fabs(row->y[i]) - row->error[i]); /* NaN does not count */
        high = fmax(high, fabs(row->y[i]) + row->error[i]);
    }
    if (row->t->e8m0) {
        scale = ldexp(1, (int)code - 127);
        least = e8m0_scale(low);
        most = e8m0_scale(high);
        *multiplier = 1 / scale;
    } else { /* two roundings */
        uint8_t byte = (uint8_t)code;
        scale = dtype_load(DTYPE_E4M3, &byte);
        least = reference_round(DTYPE_E4M3, fmax(global * low / 6 * (1 - 3 * REFERENCE_UNIT) - (global + 1) * FLT_TRUE_MIN, 0));
        most = reference_round(DTYPE_E4M3, global * high / 6 * (1 + 3 * REFERENCE_UNIT) + (global + 1) * FLT_TRUE_MIN);
        *multiplier = scale > 0 ? global / scale : 0;
    }
    if (scale >= least && scale <= most)
        return NULL;
    return reference_complain("the scale of row %lld, block %lld is %.9g (0x%02x), expected %.9g to %.9g", (long long)row->index,
                              (long long)block, scale, code, least, most);
}

static const char *verify_codes(const struct row *row, int64_t block, double multiplier)
{
    const double *bytes = reference_got(row->r, row->t->out) + row->index * row->hidden / 2;
    for (int64_t i = block * row->t->block_size; i < (block + 1) * row->t->block_size; i++) {
        unsigned byte = (unsigned)bytes[i / 2];
        double got = reference_e2m1_value(i % 2 ? byte >> 4 : byte);
        double slack = row->error[i] * multiplier + fabs(row->y[i] * multiplier) * 3 * REFERENCE_UNIT + FLT_TRUE_MIN;
        double value = row->y[i] * multiplier, low = round_e2m1(value), high = low;
        if (isfinite(value)) {
            low = round_e2m1(value - slack);
            high = round_e2m1(value + slack);
        }
        if (!(got >= low && got <= high))
            return reference_complain("row %lld, element %lld: got %g, expected %g to %g (%.9g, scaled %.9g)",
                                      (long long)row->index, (long long)i, got, low, high, row->y[i], value);
    }
    return NULL;
}

static const char *verify_block(const struct row *row, int64_t block)
{
    const struct norm_view *t = row->t;
    int64_t blocks = row->hidden / t->block_size;
    unsigned code[2];
    double multiplier;
    const DLTensor *any = t->swizzled_scales ? t->swizzled_scales : t->linear_scales;
    int64_t swizzled = block_scale_offset(SCALES_128X4, row->index, block, blocks), linear = row->index * blocks + block;
    code[0] = scale_code(row, any, t->swizzled_scales ? swizzled : linear);
    code[1] = t->linear_scales ? scale_code(row, t->linear_scales, linear) : code[0];
    if (code[0] != code[1])
        return reference_complain("row %lld, block %lld: the swizzled scale is 0x%02x, the linear one 0x%02x",
                                  (long long)row->index, (long long)block, code[0], code[1]);
    const char *wrong = verify_scale(row, block, code[0], &multiplier);
    return wrong ? wrong : verify_codes(row, block, multiplier);
}

/* An output of the input's width: within error of the expected value, rounded. */
static const char *verify_values(const struct row *row, const DLTensor *tensor, const double *expected, const double *error)
{
    const double *got = tensor ? reference_got(row->r, tensor) + row->index * row->hidden : NULL;
    enum dtype dtype = reference_dtype(row->r, tensor);
    for (int64_t i = 0; got && i < row->hidden; i++) {
        double slack = error ? error[i] : 0;
        bool right = isnan(expected[i]) ? isnan(got[i])
                                        : got[i] >= reference_round(dtype, expected[i] - slack) &&
                                              got[i] <= reference_round(dtype, expected[i] + slack);
        if (!right)
            return reference_complain("row %lld, element %lld of %s: got %.9g, expected %.9g, bound %.3g", (long long)row->index,
                                      (long long)i, tensor == row->t->y ? "y_out" : "residual", got[i], expected[i], slack);
    }
    return NULL;
}

static const char *verify_row(const struct row *row)
{
    norm_reference_x(row->t, row->index * row->hidden, row->hidden, row->x);
    norm_reference_y(row->r, row->x, row->hidden, row->y, row->error);
    const char *wrong = verify_values(row, row->t->residual, row->x, NULL);
    if (!wrong)
        wrong = verify_values(row, row->t->y, row->y, row->error);
    for (int64_t block = 0; !wrong && block < row->hidden / row->t->block_size; block++)
        wrong = verify_block(row, block);
    return wrong;
}

/* The bytes of the swizzled scales that belong to no row or block. */
static const char *verify_padding(const struct row *row, int64_t rows)
{
    int64_t blocks = row->hidden / row->t->block_size;
    for (int64_t i = 0; row->t->swizzled_scales && i < block_scale_rows(SCALES_128X4, rows); i++)
        for (int64_t block = i < rows ? blocks : 0; block < block_scale_blocks(SCALES_128X4, blocks); block++) {
            unsigned code = scale_code(row, row->t->swizzled_scales, block_scale_offset(SCALES_128X4, i, block, blocks));
            if (code)
                return reference_complain("the padding scale of row %lld, block %lld is 0x%02x, must be 0", (long long)i,
                                          (long long)block, code);
        }
    return NULL;
}

const char *norm_fp4_verify(const struct reference *r)
{
    struct row row = {.r = r, .t = r->view};
    row.hidden = tensor_shape(row.t->input, -1);
    int64_t rows = tensor_elements(row.t->input) / row.hidden;
    row.x = calloc((size_t)row.hidden * 3, sizeof *row.x);
    if (!row.x)
        return "no memory for the reference";
    row.y = row.x + row.hidden;
    row.error = row.y + row.hidden;
    const char *wrong = verify_padding(&row, rows);
    for (; !wrong && row.index < rows; row.index++)
        wrong = verify_row(&row);
    free(row.x);
    return wrong;
}
