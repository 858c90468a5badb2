/* SPDX-License-Identifier: Apache-2.0 */
/* How batch_prefill_sm80 divides its work, from what is typical of a batch: when it is planned, or of a call without a plan. */
#include "ops/attention/attention_host.h"

enum { MAX_PARTS = 8, MIN_SEEN = 512 * 128 }; /* elements of a head's keys that a row sees, which repay joining */
enum { SMALL_TILE = 64, SMALL_KEYS = 64, FEW_KEYS = 48, SMALL_ROWS = 256, FEW_ROWS = 64 /* of a multiprocessor */ };

int32_t attention_typical_tile_q(const struct device *device, const struct attention_plan *plan,
                                 struct attention_typical typical)
{
    int64_t rows = typical.total_q * plan->group;
    for (int32_t tile = 128; tile > 16; tile = tile == 128 ? 64 : 16)
        if (rows / most(1, typical.batch) > tile / 2 && rows / tile * plan->num_kv_heads >= device->sms / (tile == 128 ? 1 : 2))
            return tile;
    return 16;
}

int32_t attention_typical_parts(const struct device *device, const struct attention_plan *plan, struct attention_typical typical)
{
    int64_t queries = typical.batch > 0 ? typical.total_q / typical.batch : 0, rows = queries * plan->group;
    int64_t blocks = typical.batch * ceil_div(rows, 128) * plan->num_kv_heads, room = 2 * device->sms;
    int64_t seen = typical.tokens - (plan->causal ? queries / 2 : 0);
    int32_t parts = MAX_PARTS;
    if (device->arch < 90 || rows <= 64 || plan->window_left >= 0 || seen < MIN_SEEN / plan->head_dim)
        return 1;
    while (parts > 1 && blocks * parts > (parts == MAX_PARTS ? room * 7 / 8 : room))
        parts /= 2;
    return parts;
}

bool attention_typical_is_small(const struct device *device, const struct attention_plan *plan, struct attention_typical typical)
{
    const int64_t rows = typical.total_q * plan->num_qo_heads, sms = device->sms;
    return plan->tile_q >= SMALL_TILE && plan->head_dim <= 128 && rows <= SMALL_ROWS * sms && typical.longest > 0 &&
           typical.longest <= (rows <= FEW_ROWS * sms ? FEW_KEYS : SMALL_KEYS);
}

bool attention_is_small(const struct call *call)
{
    const int64_t batch = least(attention_batch(call_view(call)), INT32_MAX);
    return attention_plan_of(call)->is_small && attention_most_tokens(call) <= SMALL_KEYS * batch;
}

int32_t attention_tile_q(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    const struct attention_view *t = call_view(call);
    struct attention_typical typical = {attention_total_q(t), attention_batch(t), 0, 0};
    return plan->tile_q ? plan->tile_q : attention_typical_tile_q(call->device, plan, typical);
}

int32_t attention_parts(const struct call *call)
{
    const struct attention_plan *plan = attention_plan_of(call);
    const struct attention_view *t = call_view(call);
    struct attention_typical typical = {attention_total_q(t), 1, attention_see_cache(plan, t->k_cache).slots, 0};
    if (plan->parts || t->kv_indptr)
        return (int32_t)most(1, plan->parts); /* of decode there is no plan of parts */
    return attention_typical_parts(call->device, plan, typical);
}
