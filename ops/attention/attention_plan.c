/* SPDX-License-Identifier: Apache-2.0 */
/* What plan ops do: refuse what no kernel serves, and write down what runs need. Ops without a plan do so in each call. */
#include <math.h>

#include "core/status.h"
#include "flashinfer/attention.h"
#include "ops/attention/attention_host.h"

static bool is_head_dim(int64_t head_dim)
{
    return head_dim > 0 && head_dim % 16 == 0 && (head_dim <= 256 || head_dim == 512);
}

/* Query heads that read one KV head, as far as they are counted. */
static int64_t group_of(const struct attention_options *o) { return least(o->num_qo_heads / o->num_kv_heads, INT32_MAX); }

static bool is_narrow(enum dtype dtype) { return dtype == DTYPE_E4M3 || dtype == DTYPE_E5M2; }

static const char *misfit(const struct attention_options *o)
{
    enum dtype q = dtype_of(o->q_data_type), kv = dtype_of(o->kv_data_type);
    if (!is_head_dim(o->head_dim_qk) || !is_head_dim(o->head_dim_vo))
        return "head_dim must be a multiple of 16 up to 256, or 512";
    if (kv == DTYPE_U8)
        return "caches of e2m1 are not served";
    if (kv != q && !is_narrow(kv))
        return "kv_data_type must be q_data_type, e4m3 or e5m2";
    return NULL;
}

const char *attention_fit_plan(const struct call *call, struct way *way)
{
    (void)way;
    return misfit(call_view(call));
}

static bool is_known(const DLTensor *indptr) { return indptr && tensor_data(indptr) && tensor_shape(indptr, 0) > 1; }

static int64_t longest_of(const DLTensor *indptr)
{
    const int32_t *at = tensor_data(indptr);
    int64_t longest = 0;
    for (int64_t b = 0; b + 1 < tensor_shape(indptr, 0); b++)
        longest = most(longest, (int64_t)at[b + 1] - at[b]);
    return longest;
}

static struct attention_typical typical_of(const struct attention_options *o)
{
    struct attention_typical typical = {least(o->max_total_qo, INT32_MAX), o->max_batch_size, 0, 0};
    if (is_known(o->qo_indptr)) {
        typical.batch = tensor_shape(o->qo_indptr, 0) - 1;
        typical.total_q = ((const int32_t *)tensor_data(o->qo_indptr))[typical.batch];
    }
    if (is_known(o->kv_indptr)) {
        int64_t batch = tensor_shape(o->kv_indptr, 0) - 1;
        typical.tokens = ((const int32_t *)tensor_data(o->kv_indptr))[batch] * (int64_t)o->page_size / batch;
        typical.longest = longest_of(o->kv_indptr) * o->page_size;
    }
    return typical;
}

const char *attention_single_fit(const struct attention_options *o, int64_t kv_len)
{
    if (o->max_total_qo > INT32_MAX || kv_len > INT32_MAX || o->num_qo_heads > INT32_MAX || o->num_kv_heads > INT32_MAX)
        return "there are more tokens or heads than a kernel counts";
    return misfit(o);
}

/* Packed rows of the longest request of a typical batch. */
static int64_t typical_rows(const struct attention_options *o)
{
    int64_t group = group_of(o);
    if (o->is_decode)
        return group * (o->q_len_per_req > 1 ? o->q_len_per_req : 1);
    if (!o->qo_indptr || !tensor_data(o->qo_indptr))
        return group * ceil_div(least(o->max_total_qo, INT32_MAX), o->max_batch_size);
    return group * least(longest_of(o->qo_indptr), INT32_MAX);
}

struct attention_plan attention_single_plan(const struct attention_options *o)
{
    const int32_t group = (int32_t)group_of(o);
    enum dtype q = dtype_of(o->q_data_type);
    bool custom = o->custom_mask, items = o->multi_item_scoring && !custom;
    bool rope = o->pos_encoding_mode == FLASHINFER_POS_ENCODING_ROPE_LLAMA;
    return (struct attention_plan){
        .num_qo_heads = (int32_t)o->num_qo_heads,
        .num_kv_heads = (int32_t)o->num_kv_heads,
        .group = group,
        .head_dim = (int32_t)o->head_dim_qk,
        .head_dim_vo = (int32_t)o->head_dim_vo,
        .page_size = o->page_size,
        .by_page_size = attention_divisor((uint32_t)o->page_size),
        .by_group = attention_divisor((uint32_t)group),
        .kv_layout = o->kv_layout,
        .causal = (o->causal && !custom) || items || o->q_len_per_req > 1,
        .window_left = attention_window(o->window_left.value.i),
        .whole = o->disable_split_kv || o->fixed_split_size,
        .dtype = (int32_t)(is_narrow(q) ? DTYPE_F16 : q),
        .q_dtype = (int32_t)q,
        .kv_dtype = (int32_t)dtype_of(o->kv_data_type),
        .o_dtype = (int32_t)dtype_of(o->o_data_type),
        .mask = custom ? ATTENTION_MASK_CUSTOM : items ? ATTENTION_MASK_ITEMS : ATTENTION_MASK_NONE,
        .pos = o->pos_encoding_mode,
        .q_len_per_req = o->q_len_per_req > 1 ? o->q_len_per_req : 1,
        .stream_split =
            o->disable_split_kv ? INT32_MAX : (int32_t)least((int64_t)o->fixed_split_size * o->page_size, INT32_MAX),
        .stream_rows = (int32_t)least(typical_rows(o), INT32_MAX),
        .stream_rows_known = o->is_decode || o->max_batch_size == 1 || (o->qo_indptr && tensor_data(o->qo_indptr)),
        .max_batch_size = (int32_t)least(o->max_batch_size, INT32_MAX),
        .sm_scale = o->sm_scale > 0 ? o->sm_scale : 1 / sqrt((double)o->head_dim_qk),
        .logits_soft_cap = o->logits_soft_cap,
        .rope_ratio = rope ? pow(o->rope_theta, -2.0 / (double)o->head_dim_qk) : 0,
        .rope_unit = rope ? 1 / (2 * M_PI * o->rope_scale) : 0,
    };
}

flashinfer_status attention_run_plan(const struct call *call, const struct way *way)
{
    const struct attention_options *o = call_view(call);
    struct attention_plan plan = attention_single_plan(o);
    size_t workspace = 0;
    (void)way;
    if (!o->is_decode) {
        struct attention_typical typical = typical_of(o);
        plan.tile_q = attention_typical_tile_q(call->device, &plan, typical);
        plan.parts = attention_typical_parts(call->device, &plan, typical);
        plan.is_small = attention_typical_is_small(call->device, &plan, typical);
        workspace = attention_schedule_bytes(plan.max_batch_size);
    }
    if (call->device->id.device_type == kDLCUDA)
        workspace = (size_t)most((int64_t)workspace, (int64_t)attention_stream_workspace(&plan, call->device));
    return call_write_plan(call, o->plan, &plan, sizeof plan, workspace);
}
