/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at what a run reads on the device: indptr, page ids, lengths of last pages. Only under FLASHINFER_VALIDATE_INPUTS. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/status.h"
#include "op/validate.h"
#include "ops/attention/attention_kernels.h"

/* The integers of a call, on the host. */
struct integers {
    int32_t *qo_indptr, *kv_indptr, *kv_indices, *kv_last_page_len;
};

static flashinfer_status fetch_all(const struct call *call, const struct attention_view *t, struct integers *i)
{
    if (t->qo_indptr)
        TRY(validate_fetch(call, t->qo_indptr, &i->qo_indptr));
    TRY(validate_fetch(call, t->kv_indptr, &i->kv_indptr));
    if (!t->kv_indices)
        return FLASHINFER_OK;
    TRY(validate_fetch(call, t->kv_indices, &i->kv_indices));
    return validate_fetch(call, t->kv_last_page_len, &i->kv_last_page_len);
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
    free(i.qo_indptr);
    free(i.kv_indptr);
    free(i.kv_indices);
    free(i.kv_last_page_len);
    return status;
}
