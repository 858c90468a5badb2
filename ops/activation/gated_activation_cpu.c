/* SPDX-License-Identifier: Apache-2.0 */
/* out[i] = ACTIVATION(input[i]) * input[intermediate + i] / scale in each row, on a CPU. Rows are cut in chunks of CHUNK columns;
 * a part takes a range of chunks.
 *
 *   T          f16, bf16
 *   O          f16, bf16, e4m3, e5m2
 *   ACTIVATION silu, gelu, gelu_tanh, as 0, 1, 2
 *   CHUNK      columns; a multiple of 16 */
#include "activation.h"
#include "stream.h"
#include "gated_activation_args.h"

INLINE vec activation(vec x)
{
    return ACTIVATION == 0 ? silu(x) : ACTIVATION == 1 ? gelu(x) : gelu_tanh(x);
}

enum { AHEAD = 1024 }; /* columns, which are fetched */
enum { ORDER = PAIR_ORDER(T), KNOWN = IS_BF16(T) && IS_BF16(O) ? NUMBERS : WILD };

INLINE struct pair activated(const T *gate, const T *up, float factor, int64_t n)
{
    struct pair x = pair_load_n(gate, n, ORDER), y = pair_load_n(up, n, ORDER);
    for (int i = 0; i < 2; i++)
        x.v[i] = activation(x.v[i]) * y.v[i];
    for (int i = 0; i < 2 && factor != 1; i++)
        x.v[i] *= factor;
    return x;
}

void gated_activation_cpu(const struct gated_activation_args *a, int part, int parts)
{
    float factor = a->scale ? 1.0f / *a->scale : a->factor;
    int64_t n = a->intermediate, chunks = (n + CHUNK - 1) / CHUNK;
    int64_t last = part_begin(a->rows * chunks, part + 1, parts);
    bool past_caches = streams(a->rows * n * (int)sizeof(O));
    for (int64_t chunk = part_begin(a->rows * chunks, part, parts); chunk < last; chunk++) {
        int64_t row = chunk / chunks, at = chunk % chunks * CHUNK, end = at + CHUNK < n ? at + CHUNK : n;
        const T *gate = (const T *)a->input + row * a->input_stride, *up = gate + n;
        O *out = (O *)a->out + row * a->out_stride;
        if (past_caches && (intptr_t)(out + at) % 64 == 0)
            for (; at + PAIR <= end; at += PAIR) {
                int64_t next = at + AHEAD < n ? at + AHEAD : at + AHEAD - n + a->input_stride;
                __builtin_prefetch(gate + next, 0, 2);
                __builtin_prefetch(up + next, 0, 2);
                pair_stream(out + at, activated(gate + at, up + at, factor, PAIR), ORDER, KNOWN);
            }
        for (; at + PAIR <= end; at += PAIR)
            pair_store(out + at, activated(gate + at, up + at, factor, PAIR), ORDER);
        if (at < end)
            pair_store_n(out + at, activated(gate + at, up + at, factor, end - at), end - at, ORDER);
    }
    if (past_caches)
        stream_end();
}
