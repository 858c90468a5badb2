/* SPDX-License-Identifier: Apache-2.0 */
/* What a call of attention is to every kernel: which kind serves it, and the argument that it launches with. */
#include <math.h>

#include "flashinfer/attention.h"
#include "op/variant.h"
#include "ops/attention/attention_host.h"

struct attention_divisor attention_divisor(uint32_t by)
{
    uint32_t shift = 31;
    while ((UINT64_C(1) << (shift - 31)) < by)
        shift++;
    return (struct attention_divisor){(uint32_t)(((UINT64_C(1) << shift) + by - 1) / by), shift};
}

int32_t attention_window(int64_t window_left) { return window_left < INT32_MAX ? (int32_t)window_left : -1; }

int32_t attention_window_of(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    bool own = t->window_left && t->window_left->kind != FLASHINFER_NUMBER_ABSENT;
    return own ? attention_window(t->window_left->value.i) : attention_plan_of(call)->window_left;
}

struct attention_cache attention_see_cache(const struct attention_plan *plan, const DLTensor *cache)
{
    bool paged = cache->ndim == 4;
    int slot_axis = paged + (plan->kv_layout != FLASHINFER_NHD), head_axis = paged + (plan->kv_layout == FLASHINFER_NHD);
    return (struct attention_cache){.pages = paged ? tensor_shape(cache, 0) : 1,
                                    .slots = tensor_shape(cache, slot_axis),
                                    .page = paged ? tensor_stride(cache, 0) : 0,
                                    .slot = tensor_stride(cache, slot_axis),
                                    .head = tensor_stride(cache, head_axis)};
}

int64_t attention_most_tokens(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    const int64_t pages = t->kv_indices ? least(tensor_shape(t->kv_indices, 0), INT32_MAX) : 1;
    return least(pages * (t->kv_indices ? plan->page_size : attention_see_cache(plan, t->k_cache).slots), INT32_MAX);
}

static float factor_of(const flashinfer_number *number)
{
    bool is_value = number->kind == FLASHINFER_NUMBER_FLOAT || number->kind == FLASHINFER_NUMBER_INT;
    return is_value ? (float)number_value(number) : 1.0f;
}

static const float *pointer_of(const flashinfer_number *number)
{
    return number->kind == FLASHINFER_NUMBER_TENSOR ? tensor_data(number->value.tensor) : NULL;
}

/* A scale of each head. */
static bool is_of_heads(const flashinfer_number *number)
{
    return number->kind == FLASHINFER_NUMBER_TENSOR && tensor_elements(number->value.tensor) > 1;
}

static bool scales_heads(const struct attention_view *t) { return is_of_heads(t->q_scale) || is_of_heads(t->k_scale); }

static uint32_t hooks_of(const struct call *call) { return call->op->variant ? call->op->variant->hooks : 0; }

bool attention_converts(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    return hooks_of(call) & (HOOK_QUERY | HOOK_KEY) || plan->q_dtype != plan->dtype || plan->kv_dtype != plan->dtype ||
           plan->pos == ATTENTION_POS_ROPE || scales_heads(t) || t->v_indptr;
}

const char *attention_unserved(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    bool scaled = t->k_scale->kind != FLASHINFER_NUMBER_ABSENT && t->v_scale->kind != FLASHINFER_NUMBER_ABSENT;
    if (t->unserved)
        return t->unserved;
    if (dtype_bytes((enum dtype)plan->kv_dtype) == 1 && !scaled)
        return "keys and values of 8 bits must come with k_scale and v_scale";
    if (hooks_of(call) & HOOK_NO_SOFTMAX && (t->lse || t->sinks))
        return "without softmax there are neither lse nor sinks";
    return NULL;
}

const char *attention_needs_generic(const struct call *call, bool widens)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    const char *why = attention_unserved(call);
    if (why)
        return why;
    if (plan->head_dim != plan->head_dim_vo && !(plan->head_dim == 192 && plan->head_dim_vo == 128))
        return "head_dim_vo is neither head_dim_qk nor 128 with 192";
    if (plan->q_dtype != plan->o_dtype || plan->q_dtype != plan->dtype)
        return "q and out must be both f16 or both bf16";
    if (plan->kv_dtype != plan->dtype && !(widens && dtype_bytes((enum dtype)plan->kv_dtype) == 1))
        return "keys and values are not of q's dtype";
    if (plan->mask != ATTENTION_MASK_NONE)
        return "it knows no masks but causal and window";
    if (plan->pos != ATTENTION_POS_NONE)
        return "pos_encoding_mode must be NONE";
    if (t->v_indptr || t->o_indptr)
        return "v_indptr and o_indptr are not read";
    if (scales_heads(t))
        return "q_scale and k_scale must be one number";
    return NULL;
}

static int32_t out_of(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F16: return ATTENTION_OUT_F16;
    case DTYPE_BF16: return ATTENTION_OUT_BF16;
    case DTYPE_E4M3: return ATTENTION_OUT_E4M3;
    case DTYPE_E5M2: return ATTENTION_OUT_E5M2;
    default: return ATTENTION_OUT_F32;
    }
}

static struct attention_modes modes_of(const struct attention_view *t, const struct attention_plan *plan)
{
    const DLTensor *bytes = t->custom_mask, *mask = bytes ? bytes : t->packed_custom_mask;
    bool masks = plan->mask == ATTENTION_MASK_CUSTOM, items = plan->mask == ATTENTION_MASK_ITEMS;
    return (struct attention_modes){
        .v_indptr = tensor_data_or_null(t->v_indptr),
        .o_indptr = tensor_data_or_null(t->o_indptr),
        .mask = masks ? tensor_data(mask) : NULL,
        .mask_indptr = masks ? tensor_data_or_null(t->mask_indptr) : NULL,
        .prefix_len = items ? tensor_data(t->prefix_len) : NULL,
        .token_pos = items ? tensor_data(t->token_pos_in_items) : NULL,
        .mask_row = masks && bytes ? tensor_stride(bytes, 0) : 0,
        .token_pos_row = items ? tensor_stride(t->token_pos_in_items, 0) : 0,
        .token_pos_len = items ? (int32_t)least(tensor_shape(t->token_pos_in_items, 1), INT32_MAX) : 0,
        .lse_factor = t->lse_in_base_e ? (float)M_LN2 : 1.0f,
        .rope_ratio = plan->rope_ratio,
        .rope_unit = plan->rope_unit,
        .q_scale_step = is_of_heads(t->q_scale),
        .k_scale_step = is_of_heads(t->k_scale),
        .v_scale_step = is_of_heads(t->v_scale),
        .out = out_of((enum dtype)plan->o_dtype),
    };
}

struct attention_args attention_args(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    const struct attention_plan *plan = attention_plan_of(call);
    struct attention_cache k = attention_see_cache(plan, t->k_cache), v = attention_see_cache(plan, t->v_cache);
    bool has_tokens = t->q->ndim == 3, is_ragged = !t->kv_last_page_len;
    /* With every field: what is left out would make the compiler clear the whole, which takes longer than all the rest. */
    return (struct attention_args){
        .out = tensor_data(t->out),
        .q = tensor_data(t->q),
        .k = tensor_data(t->k_cache),
        .v = tensor_data(t->v_cache),
        .qo_indptr = tensor_data_or_null(t->qo_indptr),
        .kv_indptr = tensor_data_or_null(t->kv_indptr),
        .kv_indices = is_ragged ? NULL : tensor_data(t->kv_indices),
        .kv_last_page_len = is_ragged ? NULL : tensor_data(t->kv_last_page_len),
        .sinks = tensor_data_or_null(t->sinks),
        .q_scale = pointer_of(t->q_scale),
        .k_scale = pointer_of(t->k_scale),
        .v_scale = pointer_of(t->v_scale),
        .workspace = call->exec.workspace,
        .lse = tensor_data_or_null(t->lse),
        .lse_token = t->lse && has_tokens ? tensor_stride(t->lse, 0) : 0,
        .lse_head = t->lse ? tensor_stride(t->lse, -1) : 0,
        .out_token = has_tokens ? tensor_stride(t->out, 0) : 0,
        .out_head = tensor_stride(t->out, -2),
        .q_token = has_tokens ? tensor_stride(t->q, 0) : 0,
        .q_head = tensor_stride(t->q, -2),
        .k_page = k.page,
        .k_slot = k.slot,
        .k_head = k.head,
        .v_page = v.page,
        .v_slot = v.slot,
        .v_head = v.head,
        .logit_factor = (float)(plan->sm_scale * factor_of(t->q_scale) * factor_of(t->k_scale)),
        .out_factor = (float)(factor_of(t->v_scale) / (t->o_scale != 0 ? t->o_scale : 1)),
        .soft_cap = (float)plan->logits_soft_cap,
        .by_page_size = plan->by_page_size,
        .by_group = plan->by_group,
        .batch = (int32_t)attention_batch(t),
        .num_kv_heads = plan->num_kv_heads,
        .group = plan->group,
        .page_size = is_ragged ? INT32_MAX : plan->page_size,
        .qo_len = t->kv_indptr && !t->qo_indptr ? plan->q_len_per_req : (int32_t)attention_total_q(t),
        .kv_len = (int32_t)k.slots,
        .window_left = attention_window_of(call),
        .causal = plan->causal,
        .modes = modes_of(t, plan),
        .stream.num_indices = is_ragged ? 0 : (int32_t)least(tensor_shape(t->kv_indices, 0), INT32_MAX),
        .stream.ahead = call->exec.flags & FLASHINFER_PDL ? 1 : 0,
    };
}
