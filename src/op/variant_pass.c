/* SPDX-License-Identifier: Apache-2.0 */
/* What a call of a variant asks of a kernel, and passes to it. */
#include <stdio.h>
#include <string.h>

#include "core/tensor.h"
#include "op/variant.h"

enum { MAX_REASON = 128 };

const char *variant_unserved(const struct op_variant *variant, uint32_t hooks)
{
    static _Thread_local char reason[MAX_REASON];
    const uint32_t missing = variant->hooks & ~hooks;
    if (!missing)
        return NULL;
    if (!hooks)
        return "takes in no hooks";
    if (missing & HOOK_NO_SOFTMAX)
        return "knows no weights without softmax";
    snprintf(reason, sizeof reason, "takes in no hook %s", variant_hook_name(missing & -missing));
    return reason;
}

static int64_t *pack_tensor(const DLTensor *tensor, int axes, int64_t *to)
{
    *to++ = (int64_t)(uintptr_t)tensor_data_or_null(tensor);
    for (int i = 0; i < axes; i++)
        *to++ = tensor ? tensor_shape(tensor, i) : 0;
    for (int i = 0; i < axes; i++)
        *to++ = tensor ? tensor_stride(tensor, i) : 0;
    return to;
}

size_t variant_pack(const struct call *call, void *to)
{
    const struct op_variant *v = call->op->variant;
    int64_t word[VARIANT_MAX_BYTES / sizeof(int64_t)] = {0}, *at = word;
    for (int i = 0; i < v->num_arguments; i++) {
        const void *field = (const char *)call->args + v->argument[i].offset;
        if (v->argument[i].kind == FLASHINFER_VARIANT_FLOAT) {
            const float value = (float)*(const double *)field;
            memcpy(at++, &value, sizeof value);
        } else if (v->argument[i].kind == FLASHINFER_VARIANT_INT) {
            *at++ = *(const int64_t *)field;
        } else {
            at = pack_tensor(*(const DLTensor *const *)field, v->argument[i].axes, at);
        }
    }
    at += at == word; /* an empty struct variant has one field */
    memcpy(to, word, (size_t)(at - word) * sizeof *word);
    return (size_t)(at - word) * sizeof *word;
}
