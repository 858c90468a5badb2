/* SPDX-License-Identifier: Apache-2.0 */
/* softmax on a CPU: out = exp((logits - max) / temperature) / sum, row by row. A part takes a range of rows.
 * The sum runs in 16 lanes over pieces of PIECE elements, then over the pieces, so bits do not depend on the
 * parts.
 *
 *   T f16, bf16, f32 */
#include <float.h>

#include "vec.h"
#include "softmax_args.h"

enum { PIECE = 1024 };

static float row_max(const T *logits, int64_t vocab)
{
    vec top = vec_set(-INFINITY);
    int64_t at = 0;
    for (; at + LANES <= vocab; at += LANES)
        top = vec_max2(vec_load(logits + at), top); /* top where a logit is NaN */
    float max = vec_max(top);
    for (; at < vocab; at++)
        max = to_float(logits[at]) > max ? to_float(logits[at]) : max;
    return max;
}

/* The limit of temperature towards 0: all to the first largest. */
static void write_greedy(float *out, const T *logits, int64_t vocab, float max)
{
    int64_t first = 0;
    while (to_float(logits[first]) != max)
        first++;
    memset(out, 0, (size_t)vocab * sizeof *out);
    out[first] = 1.0f;
}

static void write_infinities(float *out, const T *logits, int64_t vocab)
{
    int64_t number = 0;
    for (int64_t i = 0; i < vocab; i++)
        number += to_float(logits[i]) == INFINITY;
    for (int64_t i = 0; i < vocab; i++)
        out[i] = to_float(logits[i]) == INFINITY ? 1.0f / (float)number : 0.0f;
}

/* exp((x - max) * scale), 0 where x is NaN; max is finite. */
INLINE vec power(vec x, float max, float scale)
{
    return vec_exp(vec_max2((x - max) * scale, vec_set(-104.0f)));
}

static void normalise(float *out, const T *logits, int64_t vocab, float max, float scale)
{
    vec total = {0};
    int64_t whole = vocab / LANES * LANES;
    for (int64_t piece = 0; piece < whole; piece += PIECE) {
        vec sum = {0};
        for (int64_t at = piece; at < piece + PIECE && at < whole; at += LANES) {
            vec y = power(vec_load(logits + at), max, scale);
            sum += y;
            vec_store(out + at, y);
        }
        total += sum;
    }
    float rest = 0.0f;
    if (whole < vocab) {
        vec y = power(vec_load_n(logits + whole, vocab - whole), max, scale);
        vec_store_n(out + whole, y, vocab - whole);
        for (int64_t at = whole; at < vocab; at++)
            rest += out[at];
    }
    vec share = vec_set(1.0f / (vec_sum(total) + rest));
    for (int64_t at = 0; at < vocab; at += LANES)
        vec_store_n(out + at, vec_load_n(out + at, vocab - at) * share, vocab - at);
}

void softmax_cpu(const struct softmax_args *a, int part, int parts)
{
    int64_t end = part_begin(a->batch, part + 1, parts);
    for (int64_t row = part_begin(a->batch, part, parts); row < end; row++) {
        const T *logits = (const T *)a->logits + row * a->logits_stride;
        float *out = a->out + row * a->out_stride;
        float temperature = a->temperatures ? a->temperatures[row * a->temperatures_step] : a->temperature;
        float max = row_max(logits, a->vocab);
        if (max == -INFINITY || !(temperature >= 0.0f))
            memset(out, 0, (size_t)a->vocab * sizeof *out);
        else if (temperature == 0.0f)
            write_greedy(out, logits, a->vocab, max);
        else if (max == INFINITY)
            write_infinities(out, logits, a->vocab);
        else
            normalise(out, logits, a->vocab, max, fminf(1.0f / temperature, FLT_MAX));
    }
}
