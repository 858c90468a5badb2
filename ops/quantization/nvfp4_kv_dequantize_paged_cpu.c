/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of requests, gathered from pages of e2m1 codes with an e4m3 scale for each 16, on a CPU: out = code * scale *
 * global scale, the last product rounded to float32 first. A part takes a range of positions of all requests.
 *
 *   T f16, bf16, f32 */
#include "fp4.h"
#include "nvfp4_kv_dequantize_paged_args.h"

static void dequantize(const struct nvfp4_kv_dequantize_paged_args *a, const struct paged_half *h, int64_t request,
                       int64_t position, int64_t page)
{
    float global_scale = h->scale ? *h->scale : h->scale_value;
    for (int64_t head = 0; head < a->num_kv_heads; head++) {
        int64_t slot = position % a->page_size;
        const uint8_t *codes = h->codes + page * h->codes_stride[0] + slot * h->codes_stride[1] + head * h->codes_stride[2];
        const uint8_t *scales = h->scales + page * h->scales_stride[0] + slot * h->scales_stride[1] + head * h->scales_stride[2];
        T *out = (T *)h->out + request * h->out_stride[0] + position * h->out_stride[1] + head * h->out_stride[2];
        for (int64_t column = 0, end; column < a->head_dim; column = end) {
            e4m3 code[LANES] = {{0}};
            float scale[LANES];
            end = a->head_dim - column < LANES * LANES ? a->head_dim : column + LANES * LANES;
            memcpy(code, scales + column / LANES, (size_t)((end - column) / LANES));
            vec_store(scale, vec_load(code));
            for (int64_t at = column; at < end; at += LANES)
                vec_store(out + at, vec_load_e2m1(codes + at / 2) * scale[(at - column) / LANES] * global_scale);
        }
    }
}

void nvfp4_kv_dequantize_paged_cpu(const struct nvfp4_kv_dequantize_paged_args *a, int part, int parts)
{
    int64_t last = part_begin(a->batch * a->max_seq_len, part + 1, parts);
    for (int64_t i = part_begin(a->batch * a->max_seq_len, part, parts); i < last; i++) {
        int64_t request = i / a->max_seq_len, position = i % a->max_seq_len, page = page_of(a, request, position);
        for (int half = 0; half < 2 && page >= 0; half++)
            dequantize(a, &a->half[half], request, position, page);
    }
}
