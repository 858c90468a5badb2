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

/* Of a table; if `fresh`, not from the L1 cache. */
DEVICE int entry(const int32_t *table, int i, bool fresh)
{
    if (fresh) /* not by ?:, which would make both volatile */
        return *(const volatile int32_t *)(table + i);
    return table[i];
}

/* Where a request's query tokens start. */
DEVICE int first_query(const struct attention_args &a, int request)
{
    return a.qo_indptr ? a.qo_indptr[request] : request * a.qo_len;
}

/* A request. No load waits for another. */
DEVICE struct attention_scheduled see_request(const struct attention_args &a, int request, bool fresh = false)
{
    int first_q = request * a.qo_len, end_q = first_q + a.qo_len, first = request * a.kv_len, end = first + a.kv_len, last = 0;
    if (a.qo_indptr) {
        first_q = entry(a.qo_indptr, request, fresh);
        end_q = entry(a.qo_indptr, request + 1, fresh);
    }
    if (a.kv_indptr) {
        first = entry(a.kv_indptr, request, fresh);
        end = entry(a.kv_indptr, request + 1, fresh);
    }
    if (a.kv_last_page_len)
        last = entry(a.kv_last_page_len, request, fresh);
    int pages = end - first;
    return {first_q, end_q - first_q, !a.kv_last_page_len ? pages : pages > 0 ? (pages - 1) * a.page_size + last : 0, first};
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
    float factor = a.logit_factor;
    factor *= a.q_scale && !a.modes.q_scale_step ? *a.q_scale : 1.0f;
    factor *= a.k_scale && !a.modes.k_scale_step ? *a.k_scale : 1.0f;
    struct logit_rule rule = {factor * (a.soft_cap > 0.0f ? reciprocal_approx(a.soft_cap) : LOG2E), a.soft_cap * LOG2E};
    return rule;
}

/* The head's own share of the factor, where there are scales for each. */
DEVICE float head_factor(const struct attention_args &a, int head)
{
    float q = a.modes.q_scale_step ? a.q_scale[head] : 1.0f;
    return q * (a.modes.k_scale_step ? a.k_scale[divide(head, a.by_group)] : 1.0f);
}

/* ALiBi's, of natural logits: 2^(-8 k / n) for the k-th of the first n = 2^floor(log2(heads)) heads, then those between. */
DEVICE float alibi_slope(int head, int heads)
{
    int n = 1 << (31 - __clz(heads));
    return exp2f(head < n ? -8.0f * (head + 1) / n : -4.0f * (2 * (head - n) + 1) / n);
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
    *lse = sum == 0.0f ? -INFINITY : (top + log2f(sum)) * a.modes.lse_factor;
    float v_scale = a.v_scale ? a.v_scale[a.modes.v_scale_step ? divide(head, a.by_group) : 0] : 1.0f;
    return sum == 0.0f ? 0.0f : shrink * a.out_factor * v_scale * reciprocal_approx(sum);
}

#endif
