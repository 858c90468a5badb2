/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at integers that lie on the call's device. Only under FLASHINFER_VALIDATE_INPUTS. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/status.h"
#include "op/validate.h"

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

/* `room`: bytes for an element of *out, at least as many as the tensor's. */
static flashinfer_status fetch(const struct call *call, const DLTensor *tensor, size_t room, void **out)
{
    size_t elements = (size_t)tensor_elements(tensor), bytes = elements * (size_t)dtype_bytes(tensor_dtype(tensor));
    *out = malloc(elements * room + 1);
    if (!*out)
        return fail(FLASHINFER_MEMORY, "%s: no memory to validate the inputs", call->op->name);
    if (bytes && call->device->id.device_type == kDLCUDA)
        return download(call, *out, tensor, bytes);
    if (bytes)
        memcpy(*out, tensor_data(tensor), bytes);
    return FLASHINFER_OK;
}

flashinfer_status validate_fetch(const struct call *call, const DLTensor *tensor, int32_t **out)
{
    void *data;
    flashinfer_status status = fetch(call, tensor, sizeof **out, &data);
    *out = data;
    return status;
}

flashinfer_status validate_fetch_wide(const struct call *call, const DLTensor *tensor, int64_t **out)
{
    void *data;
    flashinfer_status status = fetch(call, tensor, sizeof **out, &data);
    *out = data;
    for (int64_t i = tensor_elements(tensor) - 1; !status && tensor_dtype(tensor) == DTYPE_I32 && i >= 0; i--) {
        int32_t narrow;
        memcpy(&narrow, (char *)data + i * (int64_t)sizeof narrow, sizeof narrow);
        (*out)[i] = narrow;
    }
    return status;
}

flashinfer_status validate_indptr(const struct call *call, const char *name, const int32_t *indptr, int64_t batch, int64_t limit,
                                  const char *limit_name)
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

/* What 32 bits do not hold exceeds every limit, or is negative. */
flashinfer_status validate_starts(const struct call *call, const char *name, const DLTensor *starts, int64_t limit,
                                  const char *limit_name)
{
    int64_t *wide = NULL;
    if (!starts)
        return FLASHINFER_OK;
    flashinfer_status status = validate_fetch_wide(call, starts, &wide);
    int32_t *start = status ? NULL : malloc((size_t)tensor_elements(starts) * sizeof *start + 1);
    if (!status && !start)
        status = fail(FLASHINFER_MEMORY, "%s: no memory to validate the inputs", call->op->name);
    for (int64_t i = 0; !status && i < tensor_elements(starts); i++)
        start[i] = (int32_t)(wide[i] > INT32_MAX ? INT32_MAX : wide[i] < INT32_MIN ? INT32_MIN : wide[i]);
    if (!status)
        status = validate_indptr(call, name, start, tensor_shape(starts, 0) - 1, limit, limit_name);
    free(start);
    free(wide);
    return status;
}

flashinfer_status validate_rows(const struct call *call, const char *name, const DLTensor *rows, const DLTensor *pool,
                                const char *limit_name)
{
    int32_t *row = NULL;
    if (!rows || !pool)
        return FLASHINFER_OK;
    flashinfer_status status = validate_fetch(call, rows, &row);
    for (int64_t i = 0; !status && i < tensor_elements(rows); i++)
        if (row[i] >= tensor_shape(pool, 0))
            status = fail(FLASHINFER_INVALID, "%s: %s[%" PRId64 "] is %d, must be below %" PRId64 ", %s", call->op->name, name, i,
                          row[i], tensor_shape(pool, 0), limit_name);
    free(row);
    return status;
}

flashinfer_status validate_indices(const struct call *call, const char *name, const int32_t *indices, int64_t count,
                                   int64_t limit, const char *limit_name)
{
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= limit)
            return fail(FLASHINFER_INVALID, "%s: %s[%" PRId64 "] is %d, must be at least 0 and below %" PRId64 ", %s",
                        call->op->name, name, i, indices[i], limit, limit_name);
    return FLASHINFER_OK;
}

/* The same integers on the host. */
struct paged_integers {
    int32_t *batch_indices, *positions, *kv_indices, *kv_indptr;
};

static flashinfer_status fetch_paged(const struct call *call, const struct paged_tensors *t, struct paged_integers *i)
{
    TRY(validate_fetch(call, t->batch_indices, &i->batch_indices));
    TRY(validate_fetch(call, t->positions, &i->positions));
    TRY(validate_fetch(call, t->kv_indices, &i->kv_indices));
    return validate_fetch(call, t->kv_indptr, &i->kv_indptr);
}

static flashinfer_status check_paged(const struct call *call, const struct paged_tensors *t, const struct paged_integers *i,
                                     int64_t pages, int64_t page_size, const char *cache)
{
    int64_t num_requests = tensor_shape(t->kv_indptr, 0) - 1;
    TRY(validate_indptr(call, "kv_indptr", i->kv_indptr, num_requests, tensor_shape(t->kv_indices, 0),
                        "the length of kv_indices"));
    char limit[64];
    snprintf(limit, sizeof limit, "the pages of %s", cache);
    TRY(validate_indices(call, "kv_indices", i->kv_indices, i->kv_indptr[num_requests], pages, limit));
    for (int64_t token = 0; token < tensor_shape(t->batch_indices, 0); token++) {
        int32_t batch = i->batch_indices[token], position = i->positions[token];
        if (batch < 0)
            continue;
        if (batch >= num_requests)
            return fail(FLASHINFER_INVALID, "%s: batch_indices[%" PRId64 "] is %d, must be below %" PRId64
                        ", the number of requests", call->op->name, token, batch, num_requests);
        int64_t slots = (i->kv_indptr[batch + 1] - i->kv_indptr[batch]) * page_size;
        if (position < 0 || position >= slots)
            return fail(FLASHINFER_INVALID, "%s: positions[%" PRId64 "] is %d, must be at least 0 and below %" PRId64
                        ", the slots of request %d", call->op->name, token, position, slots, batch);
    }
    return FLASHINFER_OK;
}

flashinfer_status validate_paged_tokens(const struct call *call, const struct paged_tensors *t, int64_t pages, int64_t page_size,
                                        const char *cache)
{
    struct paged_integers i = {0};
    flashinfer_status status = fetch_paged(call, t, &i);
    if (!status)
        status = check_paged(call, t, &i, pages, page_size, cache);
    free(i.batch_indices);
    free(i.positions);
    free(i.kv_indices);
    free(i.kv_indptr);
    return status;
}
