/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at what a run reads on the device: indptr, page ids, lengths of last pages. Only under FLASHINFER_VALIDATE_INPUTS. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/status.h"
#include "ops/attention/attention_kernels.h"

/* Copies from the device when all earlier work of the call's stream is done. */
static flashinfer_status download(const struct call *call, void *to, const DLTensor *from, size_t bytes)
{
    const struct cuda *driver;
    cuda_stream stream = call->exec.stream;
    cuda_context context = call->device->context, before;
    TRY(cuda_get(&driver));
    if (stream)
        CUDA_TRY(driver->stream_context(stream, &context), "cuStreamGetCtx");
    CUDA_TRY(driver->context_push(context), "cuCtxPushCurrent");
    int result = driver->copy_to_host_async(to, (cuda_pointer)(uintptr_t)tensor_data(from), bytes, stream);
    if (result == CUDA_OK)
        result = driver->stream_synchronize(stream);
    driver->context_pop(&before);
    CUDA_TRY(result, "a copy to the host");
    return FLASHINFER_OK;
}

/* A copy on the host of a dense tensor of 32-bit integers, which the caller frees. */
static flashinfer_status fetch(const struct call *call, const DLTensor *tensor, int32_t **out)
{
    size_t bytes = (size_t)tensor_elements(tensor) * sizeof **out;
    *out = malloc(bytes + 1);
    if (!*out)
        return fail(FLASHINFER_MEMORY, "%s: no memory to validate the inputs", call->op->name);
    if (bytes && call->device->id.device_type == kDLCUDA)
        return download(call, *out, tensor, bytes);
    if (bytes)
        memcpy(*out, tensor_data(tensor), bytes);
    return FLASHINFER_OK;
}

static flashinfer_status check_indptr(const struct call *call, const char *name, const int32_t *indptr, int64_t batch,
                                      int64_t limit, const char *limit_name)
{
    if (indptr[0] != 0)
        return fail(FLASHINFER_INVALID, "%s: %s[0] is %d, must be 0", call->op->name, name, indptr[0]);
    for (int64_t b = 0; b < batch; b++)
        if (indptr[b + 1] < indptr[b])
            return fail(FLASHINFER_INVALID, "%s: %s[%" PRId64 "] is %d, must be at least %s[%" PRId64 "], which is %d",
                        call->op->name, name, b + 1, indptr[b + 1], name, b, indptr[b]);
    if (indptr[batch] > limit)
        return fail(FLASHINFER_INVALID, "%s: %s[%" PRId64 "] is %d, must be at most %s, which is %" PRId64, call->op->name,
                    name, batch, indptr[batch], limit_name, limit);
    return FLASHINFER_OK;
}

/* The integers of a call, on the host. */
struct integers {
    int32_t *qo_indptr, *kv_indptr, *kv_indices, *kv_last_page_len;
};

static flashinfer_status fetch_all(const struct call *call, const struct attention_tensors *t, struct integers *i)
{
    if (t->qo_indptr)
        TRY(fetch(call, t->qo_indptr, &i->qo_indptr));
    TRY(fetch(call, t->kv_indptr, &i->kv_indptr));
    TRY(fetch(call, t->kv_indices, &i->kv_indices));
    return fetch(call, t->kv_last_page_len, &i->kv_last_page_len);
}

static flashinfer_status check_all(const struct call *call, const struct attention_tensors *t, const struct integers *i)
{
    const struct attention_plan *plan = call->plan;
    int64_t batch = tensor_shape(t->kv_last_page_len, 0), num_pages = tensor_shape(t->k_cache, 0);
    if (i->qo_indptr)
        TRY(check_indptr(call, "qo_indptr", i->qo_indptr, batch, tensor_shape(t->q, 0), "the number of query tokens"));
    TRY(check_indptr(call, "kv_indptr", i->kv_indptr, batch, tensor_shape(t->kv_indices, 0), "the length of kv_indices"));
    for (int32_t page = 0; page < i->kv_indptr[batch]; page++)
        if (i->kv_indices[page] < 0 || i->kv_indices[page] >= num_pages)
            return fail(FLASHINFER_INVALID, "%s: kv_indices[%d] is %d, must be at least 0 and below %" PRId64
                        ", the pages of k_cache", call->op->name, page, i->kv_indices[page], num_pages);
    for (int64_t b = 0; b < batch; b++)
        if (i->kv_indptr[b + 1] > i->kv_indptr[b] && (i->kv_last_page_len[b] < 1 || i->kv_last_page_len[b] > plan->page_size))
            return fail(FLASHINFER_INVALID, "%s: kv_last_page_len[%" PRId64 "] is %d, must be 1 to page_size, which is %d",
                        call->op->name, b, i->kv_last_page_len[b], plan->page_size);
    return FLASHINFER_OK;
}

flashinfer_status attention_validate(const struct call *call, const struct attention_tensors *t)
{
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
