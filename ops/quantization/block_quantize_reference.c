/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops should give that quantize blocks of a row. Their arithmetic is defined to the bit, so no error is allowed: each
 * operation is done in double and rounded to float32, which is the same as to do it in float32. */
#include <float.h>
#include <math.h>

#include "ops/quantization/block_quantize_kernels.h"

/* The exponent of the least power of two that times `largest` is at least amax. */
static int scale_exponent(double amax, double largest)
{
    int of_amax, of_largest;
    double fraction = frexp(isinf(amax) ? 0x1p128 : amax, &of_amax), limit = frexp(largest, &of_largest);
    int exponent = amax > 0 ? of_amax - of_largest + (fraction > limit) : -127;
    return exponent < -127 ? -127 : exponent;
}

struct scale {
    double stored; /* a byte, or f32 */
    double multiplier;
};

static struct scale scale_of(const struct block_quantize_view *t, double amax, double global_scale, double largest)
{
    uint8_t code;
    if (t->scale_kind == SCALE_E4M3) {
        dtype_store(DTYPE_E4M3, &code, (float)(global_scale * (float)(amax / 6)));
        return (struct scale){code, code ? (float)(global_scale / dtype_load(DTYPE_E4M3, &code)) : 0};
    }
    if (t->scale_kind == SCALE_E8M0) {
        int exponent = scale_exponent(amax, largest);
        return (struct scale){exponent + 127, ldexp(1, -exponent)};
    }
    amax = fmax(amax, (float)t->least_amax);
    double value = t->scale_kind == SCALE_POWER ? ldexp(1, scale_exponent(amax, largest)) : (float)(amax / largest);
    return (struct scale){value, (float)(1 / value)};
}

struct place {
    double *out;
    const double *input;
    double global_scale;
};

static double input_value(const struct reference *r, const struct block_quantize_view *t, double x, double global_scale)
{
    if (reference_dtype(r, t->input) != DTYPE_E4M3)
        return x;
    return reference_round(DTYPE_F16, (float)(x * (float)(6 / global_scale)));
}

static void quantize_block(const struct reference *r, const struct place *p, int64_t block, int64_t columns, double *scale_at)
{
    const struct block_quantize_view *t = r->view;
    enum dtype code = reference_dtype(r, t->out);
    double amax = 0;
    for (int64_t i = block * t->block; i < (block + 1) * t->block && i < columns; i++)
        amax = fmax(amax, fabs(input_value(r, t, p->input[i], p->global_scale)));
    struct scale s = scale_of(t, amax, p->global_scale, code == DTYPE_E4M3 ? 448 : code == DTYPE_I8 ? 127 : 6);
    uint8_t byte = (uint8_t)s.stored;
    enum dtype scale_dtype = reference_dtype(r, t->scales);
    *scale_at = scale_dtype == DTYPE_F32 ? s.stored : dtype_load(scale_dtype, &byte);
    for (int64_t i = block * t->block; i < (block + 1) * t->block; i++) {
        double x = i < columns ? (float)(input_value(r, t, p->input[i], p->global_scale) * s.multiplier) : 0;
        if (code == DTYPE_E4M3 || code == DTYPE_I8)
            p->out[i] = code == DTYPE_I8 && isnan(x) ? 0 : x;
        else
            p->out[i / 2] = reference_e2m1_code(x) * (i % 2 ? 16 : 1) + (i % 2 ? p->out[i / 2] : 0);
    }
}

/* A row's place in the tensors, or false if the mask leaves it out. */
struct row {
    int64_t index, group, row, blocks, scales; /* scales: of its group, in the tensor of scales */
    double global_scale;
    bool counts;
};

static int64_t row_count(const struct block_quantize_view *t)
{
    int64_t columns = tensor_shape(t->input, -1);
    return columns ? tensor_elements(t->input) / columns : 0;
}

static struct row row_of(const struct reference *r, int64_t index)
{
    const struct block_quantize_view *t = r->view;
    enum dtype code = reference_dtype(r, t->out);
    const flashinfer_number *g = &t->global_scale;
    const double *mask = t->mask ? t->mask->data : NULL;
    const double *global = g->kind == FLASHINFER_NUMBER_TENSOR ? g->value.tensor->data : NULL;
    int64_t rows = row_count(t) / (t->grouped ? tensor_shape(t->input, 0) : 1);
    struct row row = {.index = index, .group = index / rows, .row = index % rows};
    row.blocks = tensor_shape(t->out, -1) * (code == DTYPE_E4M3 || code == DTYPE_I8 ? 1 : 2) / t->block;
    row.scales = row.group * block_scale_bytes(t->layout, rows, row.blocks);
    row.counts = !mask || (double)row.row < mask[row.group];
    if (global)
        row.global_scale = global[tensor_elements(g->value.tensor) == 1 ? 0 : t->grouped ? row.group : index];
    else
        row.global_scale = g->kind == FLASHINFER_NUMBER_ABSENT ? 1 : (float)number_value(g);
    if (t->inverse)
        row.global_scale = (float)(1 / row.global_scale);
    return row;
}

void block_quantize_reference(const struct reference *r)
{
    const struct block_quantize_view *t = r->view;
    int64_t columns = tensor_shape(t->input, -1), stored = tensor_shape(t->out, -1);
    for (int64_t i = 0; i < row_count(t); i++) {
        struct row row = row_of(r, i);
        double *scales = (double *)t->scales->data + row.scales;
        struct place p = {.out = (double *)t->out->data + i * stored,
                          .input = (const double *)t->input->data + i * columns,
                          .global_scale = row.global_scale};
        for (int64_t block = 0; row.counts && block < block_scale_blocks(t->layout, row.blocks); block++) {
            double *scale = scales + block_scale_offset(t->layout, row.row, block, row.blocks);
            *scale = 0;
            if (block < row.blocks)
                quantize_block(r, &p, block, columns, scale);
        }
    }
}

/* T(silu(gate) * up) lies between low and high; both are NaN if it is. */
static void gated_value(enum dtype dtype, double gate, double up, double *low, double *high)
{
    double silu = gate < -104 ? 0 * gate : gate / (1 + exp(-gate)), value = silu * up;
    /* In units: the exponential 4, the denominator 1, the division 4, the products 2; a negative result near 0 is off by a
     * subnormal. */
    double bound = isinf(value) ? 0 : fabs(value) * 11 * REFERENCE_UNIT + (fabs(gate * up) + fabs(up) + 1) * FLT_TRUE_MIN;
    *low = reference_round(dtype, value - bound);
    *high = reference_round(dtype, value + bound);
}

/* The scale that was written must come from an amax that may be; each code from a value that may be, under that scale. */
static const char *verify_block(const struct reference *r, const struct row *row, int64_t block)
{
    const struct block_quantize_view *t = r->view;
    int64_t columns = tensor_shape(t->input, -1) / 2, first = block * t->block;
    const double *gate = (const double *)t->input->data + row->index * 2 * columns + first, *up = gate + columns;
    const double *out = reference_got(r, t->out) + (row->index * columns + first) / 2;
    double written = reference_got(r, t->scales)[row->scales + block_scale_offset(t->layout, row->row, block, row->blocks)];
    double low[32], high[32], least = 0, most = 0;
    uint8_t byte = (uint8_t)written;
    if (reference_dtype(r, t->scales) == DTYPE_E4M3)
        dtype_store(DTYPE_E4M3, &byte, written);
    for (int i = 0; i < t->block; i++) {
        gated_value(reference_dtype(r, t->input), gate[i], up[i], &low[i], &high[i]);
        least = fmax(least, fmax(low[i], -high[i]));
        most = fmax(most, fmax(fabs(low[i]), fabs(high[i])));
    }
    struct scale from = scale_of(t, least, row->global_scale, 6), to = scale_of(t, most, row->global_scale, 6);
    if (!(byte >= from.stored && byte <= to.stored))
        return reference_complain("row %lld, block %lld: the scale is 0x%02x, must be 0x%02x to 0x%02x", (long long)row->index,
                                  (long long)block, byte, (unsigned)from.stored, (unsigned)to.stored);
    double multiplier = byte ? (float)(row->global_scale / dtype_load(DTYPE_E4M3, &byte)) : 0;
    for (int i = 0; i < t->block; i++) {
        unsigned got = (unsigned)out[i / 2] >> i % 2 * 4 & 15;
        unsigned from_low = reference_e2m1_code((float)(low[i] * multiplier));
        unsigned from_high = reference_e2m1_code((float)(high[i] * multiplier));
        double value = reference_e2m1_value(got);
        if (!(value >= reference_e2m1_value(from_low) && value <= reference_e2m1_value(from_high)))
            return reference_complain("row %lld, column %lld: the code is %u, must be %u to %u", (long long)row->index,
                                      (long long)(first + i), got, from_low, from_high);
    }
    return NULL;
}

/* Rows that do not count still hold what lay there. */
static const char *verify_untouched(const struct reference *r, const struct row *row)
{
    const struct block_quantize_view *t = r->view;
    int64_t stored = tensor_shape(t->out, -1);
    const double *out = (const double *)t->out->data + row->index * stored, *got = reference_got(r, t->out) + row->index * stored;
    for (int64_t i = 0; i < stored; i++)
        if (out[i] != got[i])
            return reference_complain("row %lld, which the mask leaves out, was written", (long long)row->index);
    for (int64_t block = 0; block < block_scale_blocks(t->layout, row->blocks); block++) {
        int64_t at = row->scales + block_scale_offset(t->layout, row->row, block, row->blocks);
        double was = ((const double *)t->scales->data)[at], is = reference_got(r, t->scales)[at];
        if (was != is && !(isnan(was) && isnan(is)))
            return reference_complain("row %lld, which the mask leaves out, has a new scale", (long long)row->index);
    }
    return NULL;
}

/* Rows of padding behind those of each group: 0, or where the mask counts rows, what lay there. */
static const char *verify_padding(const struct reference *r)
{
    const struct block_quantize_view *t = r->view;
    const double *was = t->scales->data, *is = reference_got(r, t->scales);
    int64_t groups = t->grouped ? tensor_shape(t->input, 0) : 1, rows = groups ? row_count(t) / groups : 0;
    for (int64_t group = 0; rows && group < groups; group++) {
        struct row last = row_of(r, (group + 1) * rows - 1);
        for (int64_t row = rows; row < block_scale_rows(t->layout, rows); row++)
            for (int64_t block = 0; block < block_scale_blocks(t->layout, last.blocks); block++) {
                int64_t at = last.scales + block_scale_offset(t->layout, (uint32_t)row, (uint32_t)block, (uint32_t)last.blocks);
                if (is[at] != was[at] && !(isnan(is[at]) && isnan(was[at])))
                    return reference_complain("group %lld: the scale of row %lld, which is padding, is %g, must be %g",
                                              (long long)group, (long long)row, is[at], was[at]);
            }
    }
    return NULL;
}

const char *block_quantize_verify(const struct reference *r)
{
    const struct block_quantize_view *t = r->view;
    const char *wrong = verify_padding(r);
    for (int64_t i = 0; i < row_count(t) && !wrong; i++) {
        struct row row = row_of(r, i);
        if (!row.counts)
            wrong = verify_untouched(r, &row);
        for (int64_t block = 0; row.counts && !wrong && block < row.blocks; block++)
            wrong = verify_block(r, &row, block);
        for (int64_t block = row.blocks; row.counts && !wrong && block < block_scale_blocks(t->layout, row.blocks); block++)
            if (reference_got(r, t->scales)[row.scales + block_scale_offset(t->layout, row.row, block, row.blocks)] != 0)
                wrong = reference_complain("row %lld: the scale of padding is not 0", (long long)i);
    }
    return wrong;
}
