/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops should give that quantize blocks of a row. Their arithmetic is defined to the bit, so no error is allowed: each
 * operation is done in double and rounded to float32, which is the same as to do it in float32. */
#include <math.h>

#include "ops/quantization/block_quantize_kernels.h"

/* The nearest code, of two equally near ones the even; 6 for NaN. */
static unsigned e2m1_code(double x)
{
    static const double values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    unsigned best = 7;
    for (unsigned code = 0; code < 7; code++) {
        double magnitude = fmin(fabs(x), 8), here = fabs(magnitude - values[code]), next = fabs(magnitude - values[code + 1]);
        if (here < next || (here == next && !(code & 1))) {
            best = code;
            break;
        }
    }
    return isnan(x) ? 7 : best | (signbit(x) ? 8 : 0);
}

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
    double *out, *scales;
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
            p->out[i / 2] = e2m1_code(x) * (i % 2 ? 16 : 1) + (i % 2 ? p->out[i / 2] : 0);
    }
}

void block_quantize_reference(const struct reference *r)
{
    const struct block_quantize_view *t = r->view;
    int64_t columns = tensor_shape(t->input, -1), stored = tensor_shape(t->out, -1);
    enum dtype code = reference_dtype(r, t->out);
    int64_t blocks = stored * (code == DTYPE_E4M3 || code == DTYPE_I8 ? 1 : 2) / t->block;
    int64_t all_rows = columns ? tensor_elements(t->input) / columns : 0, groups = t->grouped ? tensor_shape(t->input, 0) : 1;
    int64_t rows = groups ? all_rows / groups : 0, scale_bytes = block_scale_bytes(t->layout, rows, blocks);
    const double *mask = t->mask ? t->mask->data : NULL;
    const double *global = t->global_scale.kind == FLASHINFER_NUMBER_TENSOR ? t->global_scale.value.tensor->data : NULL;
    bool one_each = global && tensor_elements(t->global_scale.value.tensor) > 1;
    for (int64_t i = 0; i < all_rows; i++) {
        int64_t group = i / rows, row = i % rows;
        struct place p = {.out = (double *)t->out->data + i * stored,
                          .scales = (double *)t->scales->data + group * scale_bytes,
                          .input = (const double *)t->input->data + i * columns,
                          .global_scale = global ? global[one_each ? (t->grouped ? group : i) : 0]
                                          : t->global_scale.kind == FLASHINFER_NUMBER_ABSENT
                                              ? 1
                                              : (float)number_value(&t->global_scale)};
        if (t->inverse)
            p.global_scale = (float)(1 / p.global_scale);
        if (mask && !((double)row < mask[group]))
            continue;
        for (int64_t block = blocks; block < block_scale_blocks(t->layout, blocks); block++)
            p.scales[block_scale_offset(t->layout, row, block, blocks)] = 0;
        for (int64_t block = 0; block < blocks; block++)
            quantize_block(r, &p, block, columns, p.scales + block_scale_offset(t->layout, row, block, blocks));
    }
}
