/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a batch prefill over a paged KV cache: a pure host function of maxima, heads, dtypes and options. */
#include "tests/op/declarations.h"

#define OP paged_prefill_plan
DIMS(max_batch_size, max_total_tokens, num_qo_heads, num_kv_heads);

static const struct op_arg args[] = {
    PLAN_OUT(plan),
    IN(qo_indptr, I32, "planned_batch+1", .flags = HOST | OPTIONAL | DENSE, .fill = INDPTR("max_total_tokens")),
    IN(paged_kv_indptr, I32, "planned_batch+1", .flags = HOST | OPTIONAL | DENSE, .fill = INDPTR("max_kv_len")),
    INT(max_batch_size, .min = 1),
    INT(max_total_tokens),
    INT(max_kv_len),
    INT(num_qo_heads, .min = 1),
    INT(num_kv_heads, .min = 1),
    INT(head_dim_qk, .min = 1),
    INT(head_dim_vo, .value_of = "head_dim_qk"),
    INT(page_size, .min = 1),
    FLAG(causal),
    ENUM(pos_encoding_mode, "NONE ROPE_LLAMA ALIBI"),
    ENUM(kv_layout, "NHD HND"),
    NUMBER(sm_scale),
    NUMBER(logits_soft_cap),
    NUMBER(rope_scale, .value = 1),
    NUMBER(rope_theta, .value = 1e4),
    INT(window_left, .value = -1, .min = -1, .flags = HOST),
    DTYPE(q_data_type, F16 | BF16 | E4M3 | E5M2, .value = DTYPE_F16),
    DTYPE(kv_data_type, F16 | BF16 | E4M3 | E5M2, .dtype.like = "q_data_type"),
    DTYPE(o_data_type, F16 | BF16 | E4M3 | E5M2, .dtype.like = "q_data_type"),
    INT(fixed_split_size),
    FLAG(disable_split_kv),
    {0},
};

static const char *const rules[] = {
    "num_qo_heads % num_kv_heads == 0",
    "planned_batch <= max_batch_size",
    "head_dim_qk % 16 == 0 and head_dim_vo % 16 == 0",
    "fixed_split_size == 0 or disable_split_kv == 0",
    NULL,
};

static const char *fit(const struct call *call, struct way *way)
{
    (void)call;
    (void)way;
    return NULL;
}

/* The constant that a run finds: how many query heads share a KV head. */
static flashinfer_status run(const struct call *call, const struct way *way)
{
    const struct flashinfer_paged_prefill_plan *a = call_args(call);
    const struct dims *d = call_dims(call);
    const int64_t group = d->num_qo_heads / d->num_kv_heads;
    (void)way;
    return call_write_plan(call, a->plan, &group, sizeof group, 4096);
}

static const struct op_kernel kernels[] = {{"paged_prefill_plan_host", OP_ANYWHERE, 0, 0, fit, run}, {0}};

static const struct op_range ranges[] = {
    {"planned_batch", 1, 6, 0}, {"max_batch_size", 1, 12, 0}, {"max_total_tokens", 0, 64, 0}, {"max_kv_len", 0, 99, 0},
    {"num_qo_heads", 1, 32, 0}, {"num_kv_heads", 1, 8, 0},    {"head_dim_qk", 8, 256, 8},     {"head_dim_vo", 8, 256, 8},
    {"page_size", 1, 64, 0},    {"window_left", -1, 64, 0},   {"fixed_split_size", 0, 4, 0},  {0}};

DEFINE_OP("attention", "constants for any number of runs of paged_prefill", .rules = rules, .kernels = kernels, .ranges = ranges);
