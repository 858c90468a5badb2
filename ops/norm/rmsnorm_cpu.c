/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm on a CPU: out = x / sqrt(mean(x^2) + eps) * weight, x = input, or input + residual (which is stored, rounded) if
 * ADD_RESIDUAL. A part takes a range of rows; a row is read twice, the second time from the cache.
 *
 *   T            f16, bf16
 *   ADD_RESIDUAL 0, 1
 *   R            dtype of the residual: T or f32 */
#include "vec.h"
#include "rmsnorm_args.h"

/* Sums that run side by side, to keep the adders busy. */
enum { SUMS = 4 };

INLINE vec load_x(const T *input, const R *residual, int64_t n)
{
    vec x = vec_load_n(input, n);
#if ADD_RESIDUAL
    x += vec_load_n(residual, n);
#endif
    (void)residual;
    return x;
}

static void normalise(T *out, const T *input, R *residual, const T *weight, const struct rmsnorm_args *a)
{
    int64_t hidden = a->hidden, at = 0;
    vec squares[SUMS] = {{0}};
    for (; at + SUMS * LANES <= hidden; at += SUMS * LANES)
        for (int i = 0; i < SUMS; i++) {
            vec x = load_x(input + at + i * LANES, residual + at + i * LANES, LANES);
            squares[i] += x * x;
        }
    for (; at < hidden; at += LANES) {
        vec x = load_x(input + at, residual + at, hidden - at);
        squares[0] += x * x;
    }
    float sum = vec_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
    vec scale = vec_set(1.0f / sqrtf(sum * a->inverse_hidden + a->eps));
    for (at = 0; at < hidden; at += LANES) {
        vec x = load_x(input + at, residual + at, hidden - at);
#if ADD_RESIDUAL
        vec_store_n(residual + at, x, hidden - at);
#endif
        vec_store_n(out + at, x * scale * vec_load_n(weight + at, hidden - at), hidden - at);
    }
}

void rmsnorm_cpu(const struct rmsnorm_args *a, int part, int parts)
{
    int64_t end = part_begin(a->rows * a->groups, part + 1, parts);
    for (int64_t i = part_begin(a->rows * a->groups, part, parts); i < end; i++) {
        int64_t row = i / a->groups, group = i % a->groups;
        normalise((T *)a->out + row * a->out_stride[0] + group * a->out_stride[1],
                  (const T *)a->input + row * a->input_stride[0] + group * a->input_stride[1],
                  (R *)a->residual + row * a->residual_stride[0] + group * a->residual_stride[1], a->weight, a);
    }
}
