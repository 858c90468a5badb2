/* SPDX-License-Identifier: Apache-2.0 */
/* What all CUDA kernels of attention agree on: lengths, how a product becomes a logit, how a row ends. */
#ifndef ATTENTION_RULES_CUH
#define ATTENTION_RULES_CUH

#include "attention_args.h"
#include "math.cuh"

/* How a product of query and key becomes a logit in base 2. */
struct logit_rule {
    float factor, cap; /* cap * tanh(factor * s), or factor * s if cap is 0 */
};

DEVICE int divide(int n, struct attention_divisor by) { return (uint64_t)(uint32_t)n * by.factor >> by.shift; }

/* Where a request's query tokens start; its place in kv_indices, or if ragged its first slot. */
DEVICE int first_query(const struct attention_args &a, int request) { return a.qo_indptr ? a.qo_indptr[request] : request * a.qo_len; }
DEVICE int first_page(const struct attention_args &a, int request) { return a.kv_indptr ? a.kv_indptr[request] : request * a.kv_len; }

DEVICE int kv_length(const struct attention_args &a, int request)
{
    int pages = first_page(a, request + 1) - first_page(a, request);
    if (!a.kv_last_page_len)
        return pages;
    return pages > 0 ? (pages - 1) * a.page_size + a.kv_last_page_len[request] : 0;
}

/* A slot of the cache. */
struct slot {
    int page, at;
};

/* Where a token of the request with that first page lies. */
DEVICE struct slot find_slot(const struct attention_args &a, int first_page, int token)
{
    if (!a.kv_last_page_len)
        return {0, first_page + token};
    int page = divide(token, a.by_page_size);
    return {a.kv_indices[first_page + page], token - page * a.page_size};
}

DEVICE struct logit_rule make_logit_rule(const struct attention_args &a)
{
    float factor = a.logit_factor * (a.q_scale ? *a.q_scale : 1.0f) * (a.k_scale ? *a.k_scale : 1.0f);
    struct logit_rule rule = {a.soft_cap > 0.0f ? factor / a.soft_cap : factor * LOG2E, a.soft_cap * LOG2E};
    return rule;
}

/* What the weighted values of a row are multiplied by in the end; *lse gets its lse. */
DEVICE float finish_row(const struct attention_args &a, float top, float sum, int head, float *lse)
{
    float shrink = 1.0f;
    if (a.sinks) {
        float sink = a.sinks[head] * LOG2E, peak = fmaxf(top, sink), base = peak == -INFINITY ? 0.0f : peak;
        shrink = exp2_approx(top - base);
        sum = sum * shrink + exp2_approx(sink - base);
        top = peak;
    }
    *lse = sum == 0.0f ? -INFINITY : top + log2f(sum);
    return sum == 0.0f ? 0.0f : shrink * a.out_factor * (a.v_scale ? *a.v_scale : 1.0f) / sum;
}

#endif
