/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at integers that lie on the call's device. Only under FLASHINFER_VALIDATE_INPUTS. */
#include <inttypes.h>
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

flashinfer_status validate_fetch(const struct call *call, const DLTensor *tensor, int32_t **out)
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

flashinfer_status validate_indices(const struct call *call, const char *name, const int32_t *indices, int64_t count,
                                   int64_t limit, const char *limit_name)
{
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= limit)
            return fail(FLASHINFER_INVALID, "%s: %s[%" PRId64 "] is %d, must be at least 0 and below %" PRId64 ", %s",
                        call->op->name, name, i, indices[i], limit, limit_name);
    return FLASHINFER_OK;
}
