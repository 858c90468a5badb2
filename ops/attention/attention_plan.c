/* SPDX-License-Identifier: Apache-2.0 */
/* What plan ops do: refuse what no kernel serves, and write down what runs need. Ops without a plan do so in each call. */
#include <math.h>

#include "core/status.h"
#include "flashinfer/attention.h"
#include "ops/attention/attention_kernels.h"

enum {
    MAX_DECODE_BLOCKS = 3,   /* of a multiprocessor, as far as registers go */
    STATIC_DECODE_SMEM = 3072, /* of a block, and what the driver takes */
};

const char *attention_plan_fit(const struct attention_options *o)
{
    enum dtype q = dtype_of(o->q_data_type);
    int32_t head_dim = o->head_dim_qk;
    if (head_dim != 64 && head_dim != 128 && (o->is_decode || head_dim != 256))
        return "head_dim must be 64 or 128, or 256 in batch_prefill";
    if (o->head_dim_vo && o->head_dim_vo != head_dim)
        return "head_dim_vo must be head_dim_qk";
    if (q != DTYPE_F16 && q != DTYPE_BF16)
        return "q_data_type must be f16 or bf16";
    if (dtype_of(o->kv_data_type) != q || dtype_of(o->o_data_type) != q)
        return "kv_data_type and o_data_type must be q_data_type";
    if (o->custom_mask)
        return "custom masks are not served";
    if (o->multi_item_scoring)
        return "multi-item scoring is not served";
    if (o->pos_encoding_mode != FLASHINFER_POS_ENCODING_NONE)
        return "pos_encoding_mode must be NONE";
    if (o->fixed_split_size)
        return "fixed_split_size is not served; disable_split_kv makes a row's bits independent of the batch, too";
    if (o->q_len_per_req > 1)
        return "q_len_per_req must be 1; batch_prefill takes more";
    return NULL;
}

/* The largest tile that a typical request fills and that leaves no multiprocessor idle. */
static int32_t choose_tile_q(const struct device *device, int64_t group, int64_t num_kv_heads, int64_t total, int64_t batch)
{
    for (int32_t tile = 128; tile > 16; tile = tile == 128 ? 64 : 16)
        if (total * group / batch > tile / 2 && total * group / tile * num_kv_heads >= device->sms)
            return tile;
    return 16;
}

int32_t attention_tile_q(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    return plan->tile_q ? plan->tile_q
                        : choose_tile_q(call->device, plan->group, plan->num_kv_heads, attention_total_q(call_view(call)), 1);
}

static int32_t plan_tile_q(const struct call *call, const struct attention_options *o)
{
    int64_t batch = o->max_batch_size, total = o->max_total_qo < INT32_MAX ? o->max_total_qo : INT32_MAX;
    if (o->qo_indptr && tensor_data(o->qo_indptr) && tensor_shape(o->qo_indptr, 0) > 1) {
        const int32_t *indptr = tensor_data(o->qo_indptr);
        batch = tensor_shape(o->qo_indptr, 0) - 1;
        total = indptr[batch];
    }
    return choose_tile_q(call->device, o->num_qo_heads / o->num_kv_heads, o->num_kv_heads, total, batch);
}

int32_t attention_count_workers(const struct device *device)
{
    int32_t blocks = device->smem_sm / (ATTENTION_DECODE_SMEM + STATIC_DECODE_SMEM);
    return device->sms * (blocks < 1 ? 1 : blocks < MAX_DECODE_BLOCKS ? blocks : MAX_DECODE_BLOCKS);
}

static struct attention_divisor divisor(uint32_t by)
{
    uint32_t shift = 31;
    while ((UINT64_C(1) << (shift - 31)) < by)
        shift++;
    return (struct attention_divisor){(uint32_t)(((UINT64_C(1) << shift) + by - 1) / by), shift};
}

const char *attention_single_fit(const struct attention_options *o, int64_t kv_len)
{
    if (o->max_total_qo > INT32_MAX || kv_len > INT32_MAX)
        return "there are more tokens than a kernel counts";
    return attention_plan_fit(o);
}

struct attention_plan attention_single_plan(const struct attention_options *o)
{
    const int32_t group = o->num_qo_heads / o->num_kv_heads;
    return (struct attention_plan){
        .num_qo_heads = o->num_qo_heads,
        .num_kv_heads = o->num_kv_heads,
        .group = group,
        .head_dim = o->head_dim_qk,
        .page_size = o->page_size,
        .by_page_size = divisor((uint32_t)o->page_size),
        .by_group = divisor((uint32_t)group),
        .kv_layout = o->kv_layout,
        .causal = o->causal,
        .window_left = attention_window(o->window_left.value.i),
        .whole = o->disable_split_kv,
        .dtype = (int32_t)dtype_of(o->q_data_type),
        .max_batch_size = (int32_t)(o->max_batch_size < INT32_MAX ? o->max_batch_size : INT32_MAX),
        .sm_scale = o->sm_scale > 0 ? o->sm_scale : 1 / sqrt(o->head_dim_qk),
        .logits_soft_cap = o->logits_soft_cap,
    };
}

flashinfer_status attention_plan_run(const struct call *call, const struct attention_options *o)
{
    struct attention_plan plan = attention_single_plan(o);
    size_t workspace = attention_schedule_bytes(plan.max_batch_size);
    if (o->is_decode) {
        plan.workers = call->device->id.device_type == kDLCUDA ? attention_count_workers(call->device) : 0;
        workspace = attention_decode_workspace(&plan, plan.workers);
    } else {
        plan.tile_q = plan_tile_q(call, o);
    }
    return call_write_plan(call, o->plan, &plan, sizeof plan, workspace);
}
