/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of requests, gathered from pages of e2m1 codes with an e4m3 scale for each 16, on a CPU: out = code * scale *
 * global scale, the last product rounded to float32 first. A part takes a range of positions of all requests.
 *
 *   T f16, bf16, f32 */
#include "blocks.h"
#include "fp4.h"
#include "stream.h"
#include "nvfp4_kv_dequantize_paged_args.h"

enum { ORDER = PAIR_ORDER(T), RUN = LANES * LANES };

/* Of elements [at, at + n) of the sixteen blocks whose scales are in `scale`, at most PAIR. */
INLINE struct pair values(const uint8_t *codes, int64_t at, int64_t n, const float *scale, float global_scale)
{
    struct pair x = pair_load_n_e2m1x2((const e2m1x2 *)(codes + at / 2), n, ORDER);
    return blocks_values(x, (unsigned)at, scale, LANES, global_scale, ORDER);
}

/* At most sixteen blocks. */
INLINE void dequantize_run(T *out, const uint8_t *codes, const uint8_t *scales, int64_t n, float global_scale, bool past_caches)
{
    e4m3 code[LANES] = {{0}};
    float scale[LANES];
    int64_t at = 0;
    memcpy(code, scales, (size_t)(n / LANES));
    vec_store(scale, vec_load(code));
    for (; at + PAIR <= n; at += PAIR)
        pair_write(out + at, values(codes, at, PAIR, scale, global_scale), ORDER, NUMBERS, past_caches);
    if (at < n)
        pair_store_n(out + at, values(codes, at, n - at, scale, global_scale), n - at, ORDER);
}

static void dequantize(const struct nvfp4_kv_dequantize_paged_args *a, const struct paged_half *h, int64_t request,
                       int64_t position, int64_t page, bool past_caches)
{
    float global_scale = h->scale ? *h->scale : h->scale_value;
    global_scale = global_scale == global_scale ? global_scale : NAN; /* then no NaN has lower bits, which codes lack: NUMBERS */
    int64_t slot = position % a->page_size, heads = a->num_kv_heads, n = a->head_dim;
    if (h->codes_stride[2] == n / 2 && h->scales_stride[2] == n / LANES && h->out_stride[2] == n) {
        n *= heads; /* heads that lie one after the other are one */
        heads = 1;
    }
    for (int64_t head = 0; head < heads; head++) {
        const uint8_t *codes = h->codes + page * h->codes_stride[0] + slot * h->codes_stride[1] + head * h->codes_stride[2];
        const uint8_t *scales = h->scales + page * h->scales_stride[0] + slot * h->scales_stride[1] + head * h->scales_stride[2];
        T *out = (T *)h->out + request * h->out_stride[0] + position * h->out_stride[1] + head * h->out_stride[2];
        int64_t at = 0;
        for (; at + RUN <= n && past_caches && (intptr_t)out % 64 == 0; at += RUN)
            dequantize_run(out + at, codes + at / 2, scales + at / LANES, RUN, global_scale, true);
        for (; at < n; at += RUN)
            dequantize_run(out + at, codes + at / 2, scales + at / LANES, n - at < RUN ? n - at : RUN, global_scale, false);
    }
}

void nvfp4_kv_dequantize_paged_cpu(const struct nvfp4_kv_dequantize_paged_args *a, int part, int parts)
{
    int64_t last = part_begin(a->batch * a->max_seq_len, part + 1, parts);
    bool past_caches = streams(2 * a->batch * a->max_seq_len * a->num_kv_heads * a->head_dim * (int)sizeof(T));
    for (int64_t i = part_begin(a->batch * a->max_seq_len, part, parts); i < last; i++) {
        int64_t request = i / a->max_seq_len, position = i % a->max_seq_len, page = page_of(a, request, position);
        for (int half = 0; half < 2 && page >= 0; half++)
            dequantize(a, &a->half[half], request, position, page, past_caches);
    }
    if (past_caches)
        stream_end();
}
