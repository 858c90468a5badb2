/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at what a run reads on the device: indptr, page ids, lengths of last pages, places of masks. Only under
 * FLASHINFER_VALIDATE_INPUTS. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/status.h"
#include "op/validate.h"
#include "ops/attention/attention_host.h"

/* The integers of a call, on the host. */
struct integers {
    int32_t *qo_indptr, *kv_indptr, *kv_indices, *kv_last_page_len, *mask_indptr, *v_indptr, *o_indptr;
};

static flashinfer_status fetch_all(const struct call *call, const struct attention_view *t, struct integers *i)
{
    if (t->qo_indptr)
        TRY(validate_fetch(call, t->qo_indptr, &i->qo_indptr));
    TRY(validate_fetch(call, t->kv_indptr, &i->kv_indptr));
    if (t->mask_indptr && ((const struct attention_plan *)call->plan)->mask == ATTENTION_MASK_CUSTOM)
        TRY(validate_fetch(call, t->mask_indptr, &i->mask_indptr));
    if (t->v_indptr)
        TRY(validate_fetch(call, t->v_indptr, &i->v_indptr));
    if (t->o_indptr)
        TRY(validate_fetch(call, t->o_indptr, &i->o_indptr));
    if (!t->kv_indices)
        return FLASHINFER_OK;
    TRY(validate_fetch(call, t->kv_indices, &i->kv_indices));
    return validate_fetch(call, t->kv_last_page_len, &i->kv_last_page_len);
}

/* The rows of a request start at `first` and lie in a tensor of `total` tokens. */
static flashinfer_status check_place(const struct call *call, const char *name, int64_t request, int64_t first, int64_t count,
                                     int64_t total)
{
    if (first >= 0 && first + count <= total)
        return FLASHINFER_OK;
    return fail(FLASHINFER_INVALID,
                "%s: %s[%" PRId64 "] is %" PRId64 ", must be at least 0, with the request's %" PRId64 " at most %" PRId64,
                call->op->name, name, request, first, count, total);
}

/* Masks, and values and results that lie apart. */
static flashinfer_status check_places(const struct call *call, const struct attention_view *t, const struct integers *i)
{
    const struct attention_plan *plan = call->plan;
    for (int64_t b = 0; b < attention_batch(t); b++) {
        int64_t qo_len = i->qo_indptr ? i->qo_indptr[b + 1] - i->qo_indptr[b] : 1, kv_len = i->kv_indptr[b + 1] - i->kv_indptr[b];
        if (i->kv_last_page_len && kv_len)
            kv_len = (kv_len - 1) * plan->page_size + i->kv_last_page_len[b];
        if (i->mask_indptr)
            TRY(check_place(call, "mask_indptr", b, i->mask_indptr[b], ceil_div(qo_len * least(kv_len, INT32_MAX), 8),
                            tensor_shape(t->packed_custom_mask, 0)));
        if (i->v_indptr)
            TRY(check_place(call, "v_indptr", b, i->v_indptr[b], kv_len, attention_see_cache(plan, t->v_cache).slots));
        if (i->o_indptr)
            TRY(check_place(call, "o_indptr", b, i->o_indptr[b], qo_len, tensor_shape(t->out, 0)));
    }
    return FLASHINFER_OK;
}

static flashinfer_status check_all(const struct call *call, const struct attention_view *t, const struct integers *i)
{
    const struct attention_plan *plan = call->plan;
    int64_t batch = attention_batch(t), num_pages = tensor_shape(t->k_cache, 0);
    if (i->qo_indptr)
        TRY(validate_indptr(call, "qo_indptr", i->qo_indptr, batch, tensor_shape(t->q, 0), "the number of query tokens"));
    if (!t->kv_indices)
        return validate_indptr(call, "kv_indptr", i->kv_indptr, batch, attention_see_cache(plan, t->k_cache).slots,
                               "the number of keys");
    TRY(validate_indptr(call, "kv_indptr", i->kv_indptr, batch, tensor_shape(t->kv_indices, 0), "the length of kv_indices"));
    TRY(validate_indices(call, "kv_indices", i->kv_indices, i->kv_indptr[batch], num_pages, "the pages of k_cache"));
    for (int64_t b = 0; b < batch; b++)
        if (i->kv_indptr[b + 1] > i->kv_indptr[b] && (i->kv_last_page_len[b] < 1 || i->kv_last_page_len[b] > plan->page_size))
            return fail(FLASHINFER_INVALID, "%s: kv_last_page_len[%" PRId64 "] is %d, must be 1 to page_size, which is %d",
                        call->op->name, b, i->kv_last_page_len[b], plan->page_size);
    return FLASHINFER_OK;
}

flashinfer_status attention_validate(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    struct integers i = {0};
    flashinfer_status status = fetch_all(call, t, &i);
    if (!status)
        status = check_all(call, t, &i);
    if (!status)
        status = check_places(call, t, &i);
    free(i.qo_indptr);
    free(i.kv_indptr);
    free(i.kv_indices);
    free(i.kv_last_page_len);
    free(i.mask_indptr);
    free(i.v_indptr);
    free(i.o_indptr);
    return status;
}
