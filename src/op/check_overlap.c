/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs share memory with nothing, unless declared to be the very same tensor. Address ranges decide at once in most calls;
 * views of one buffer, such as K and V of a fused cache, are compared element by element. */
#include <string.h>

#include "core/status.h"
#include "op/check.h"

static bool same_tensor(const DLTensor *a, const DLTensor *b)
{
    if (tensor_data(a) != tensor_data(b) || a->ndim != b->ndim || memcmp(&a->dtype, &b->dtype, sizeof a->dtype))
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i] || (a->shape[i] > 1 && tensor_stride(a, i) != tensor_stride(b, i)))
            return false;
    return true;
}

/* The two ranges meet: do elements? */
__attribute__((noinline)) static flashinfer_status compare(const struct check *c, const struct check_span *a,
                                                           const struct check_span *b)
{
    const struct program_arg *args = c->program->arg;
    bool may_alias = args[a->arg].may_alias >> b->arg & 1 || args[b->arg].may_alias >> a->arg & 1;
    if (may_alias && same_tensor(a->tensor, b->tensor))
        return FLASHINFER_OK;
    if (!tensor_overlap(a->tensor, b->tensor))
        return FLASHINFER_OK;
    return fail(FLASHINFER_INVALID, "%s: %s overlaps %s, %s", c->op->name, c->op->args[a->arg].name, c->op->args[b->arg].name,
                may_alias ? "must be the very same tensor or share no memory with it" : "must share no memory with it");
}

static inline bool writes(const struct check *c, int arg)
{
    return c->program->written >> arg & 1;
}

static inline flashinfer_status compare_all(const struct check *c, const struct check_span *span, const struct check_span *others,
                                            int count)
{
    for (const struct check_span *other = others; other < others + count; other++)
        if (span->low < other->high && other->low < span->high)
            TRY(writes(c, span->arg) ? compare(c, span, other) : compare(c, other, span));
    return FLASHINFER_OK;
}

flashinfer_status check_overlap(struct check *c, int arg, const DLTensor *tensor, uintptr_t low, uintptr_t high, bool nested)
{
    const bool output = writes(c, arg);
    struct check_span *span = output ? &c->written[c->num_written] : &c->read[c->num_read];
    *span = (struct check_span){low, high, tensor, arg};
    TRY(compare_all(c, span, c->written, c->num_written));
    if (!output) {
        c->num_read++;
        return FLASHINFER_OK;
    }
    TRY(compare_all(c, span, c->read, c->num_read));
    if (!nested && tensor_overlap(tensor, NULL))
        return complain_strides(c, arg, tensor, "elements of an output must not overlap");
    c->num_written++;
    return FLASHINFER_OK;
}
