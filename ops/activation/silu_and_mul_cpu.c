/* SPDX-License-Identifier: Apache-2.0 */
/* silu_and_mul on a CPU: out[i] = silu(input[i]) * input[intermediate + i] in each row. Rows are cut in chunks of CHUNK columns;
 * a part takes a range of chunks.
 *
 *   T     f16, bf16
 *   CHUNK columns; a multiple of 16 */
#include "vec.h"
#include "silu_and_mul_args.h"

/* With e^-|x| nothing overflows, and small results keep their digits. */
INLINE vec silu(vec x)
{
    vec t = vec_exp((vec)((vecu)x | 0x80000000u));
    return vec_select(x < 0.0f, x * t, x) / (1.0f + t);
}

void silu_and_mul_cpu(const struct silu_and_mul_args *a, int part, int parts)
{
    int64_t n = a->intermediate, chunks = (n + CHUNK - 1) / CHUNK;
    int64_t last = part_begin(a->rows * chunks, part + 1, parts);
    for (int64_t chunk = part_begin(a->rows * chunks, part, parts); chunk < last; chunk++) {
        int64_t row = chunk / chunks, begin = chunk % chunks * CHUNK, end = begin + CHUNK < n ? begin + CHUNK : n;
        const T *gate = (const T *)a->input + row * a->input_stride, *up = gate + n;
        T *out = (T *)a->out + row * a->out_stride;
        for (int64_t at = begin; at < end; at += LANES)
            vec_store_n(out + at, silu(vec_load_n(gate + at, end - at)) * vec_load_n(up + at, end - at), end - at);
    }
}
