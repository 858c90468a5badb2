/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of an accepted call: addresses are computed one by one and compared in order. */
#include "tests/fuzz/oracle_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/program.h"
#include "tests/fuzz/oracle.h"

enum { MOST_ELEMENTS = 4096 };

static int64_t count(const DLTensor *t)
{
    __int128 elements = 1;
    for (int i = 0; i < t->ndim; i++) {
        elements *= t->shape[i];
        if (elements > INT64_MAX)
            elements = INT64_MAX;
    }
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] == 0)
            return 0;
    return (int64_t)elements;
}

static int64_t stride_of(const DLTensor *t, int axis)
{
    int64_t stride = 1;
    if (t->strides)
        return t->strides[axis];
    for (int i = axis + 1; i < t->ndim; i++)
        stride *= t->shape[i];
    return stride;
}

static int bytes_of(const DLTensor *t)
{
    return t->dtype.bits * t->dtype.lanes / 8;
}

bool oracle_elements(const DLTensor *t, int64_t most, void (*each)(void *context, uintptr_t address), void *context)
{
    int64_t index[TENSOR_MAX_DIMS] = {0}, elements = count(t);
    if (elements > most)
        return false;
    for (int64_t n = 0; n < elements; n++) {
        int64_t offset = 0;
        for (int i = 0; i < t->ndim; i++)
            offset += index[i] ? index[i] * stride_of(t, i) : 0;
        each(context, (uintptr_t)t->data + t->byte_offset + (uintptr_t)(offset * bytes_of(t)));
        for (int i = t->ndim - 1; i >= 0 && ++index[i] == t->shape[i]; i--)
            index[i] = 0;
    }
    return true;
}

const char *oracle_memory(const struct op_arg *arg, const DLTensor *t, bool loosely)
{
    __int128 dense = 1, reach = 1;
    bool is_dense = true;
    if (count(t) == 0)
        return NULL;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1) {
            __int128 stride = t->strides ? t->strides[i] : dense;
            if (stride < 0)
                return "a stride is negative";
            if (i == t->ndim - 1 && stride != 1 && !(arg->flags & STRIDED))
                return "the last axis has steps";
            is_dense = is_dense && stride == dense;
            reach += (t->shape[i] - 1) * stride;
            if (reach > INT64_MAX)
                return "it is larger than memory";
        }
        dense *= t->shape[i];
        if (dense > INT64_MAX && !t->strides)
            return "it is larger than memory";
        dense = dense > INT64_MAX ? INT64_MAX : dense;
    }
    if (arg->flags & DENSE && !is_dense)
        return "it is not dense";
    __int128 low = (__int128)(uintptr_t)t->data + t->byte_offset;
    if (low + reach * bytes_of(t) > INTPTR_MAX)
        return "it reaches past the end of memory";
    if (!t->data)
        return loosely ? NULL : "it has no data";
    return low % bytes_of(t) ? "it is misaligned" : NULL;
}

struct addresses {
    uintptr_t *first;
    int64_t count;
};

static void add(void *context, uintptr_t address)
{
    struct addresses *list = context;
    list->first[list->count++] = address;
}

static int ascending(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static bool list(const DLTensor *t, struct addresses *out)
{
    out->count = 0;
    out->first = malloc(MOST_ELEMENTS * sizeof *out->first);
    if (!out->first || !t->data || !oracle_elements(t, MOST_ELEMENTS, add, out))
        return false;
    qsort(out->first, (size_t)out->count, sizeof *out->first, ascending);
    return true;
}

void oracle_extent(const DLTensor *t, uintptr_t *low, uintptr_t *high)
{
    int64_t last = 0;
    *low = *high = (uintptr_t)t->data + t->byte_offset;
    if (count(t) == 0)
        return;
    for (int i = 0; i < t->ndim; i++)
        last += t->shape[i] > 1 ? (t->shape[i] - 1) * stride_of(t, i) : 0;
    *high += (uintptr_t)((last + 1) * bytes_of(t));
}

static bool meet(const DLTensor *a, const DLTensor *b)
{
    struct addresses x = {0}, y = {0};
    uintptr_t a_low, a_high, b_low, b_high;
    oracle_extent(a, &a_low, &a_high);
    oracle_extent(b, &b_low, &b_high);
    bool found = false, near = a_low < b_high && b_low < a_high, listed = near && list(a, &x) && list(b, &y);
    for (int64_t i = 0, j = 0; listed && !found && i < x.count && j < y.count;) {
        uintptr_t p = x.first[i], q = y.first[j];
        found = p < q + (uintptr_t)bytes_of(b) && q < p + (uintptr_t)bytes_of(a);
        if (p < q)
            i++;
        else
            j++;
    }
    free(x.first);
    free(y.first);
    return found;
}

static bool meets_itself(const DLTensor *t)
{
    struct addresses x = {0};
    bool listed = t->strides && list(t, &x), found = false;
    for (int64_t i = 1; listed && i < x.count; i++)
        found = found || x.first[i] - x.first[i - 1] < (uintptr_t)bytes_of(t);
    free(x.first);
    return found;
}

static bool very_same(const DLTensor *a, const DLTensor *b)
{
    bool same = (uintptr_t)a->data + a->byte_offset == (uintptr_t)b->data + b->byte_offset && a->ndim == b->ndim &&
                a->dtype.code == b->dtype.code && a->dtype.bits == b->dtype.bits && a->dtype.lanes == b->dtype.lanes;
    for (int i = 0; same && i < a->ndim; i++)
        same = a->shape[i] == b->shape[i] && (a->shape[i] == 1 || stride_of(a, i) == stride_of(b, i));
    return same;
}

static bool names(const char *list_of_names, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list_of_names; at && (at = strstr(at, name)); at += length)
        if ((at == list_of_names || at[-1] == ' ') && (!at[length] || at[length] == ' '))
            return true;
    return false;
}

static bool is_written(const struct op_arg *arg)
{
    return arg->kind == OP_OUT || arg->kind == OP_INOUT;
}

static bool on_cpu(DLDevice device)
{
    return device.device_type == kDLCPU || device.device_type == kDLCUDAHost;
}

static bool is_there(const DLTensor *t, const struct op_arg *arg, const DLDevice *device)
{
    if (arg->flags & HOST && op_is_tensor(arg))
        return on_cpu(t->device);
    if (device->device_type == kDLCPU)
        return on_cpu(t->device);
    return (t->device.device_type == kDLCUDA || t->device.device_type == kDLCUDAManaged) &&
           t->device.device_id == device->device_id;
}

const char *oracle_places(const struct op *op, const void *args, const DLDevice *device)
{
    static char text[160];
    for (const struct op_arg *a = op->args; a->kind != OP_END; a++) {
        const DLTensor *first = op_tensor(args, a);
        if (!first)
            continue;
        if (device && !is_there(first, a, device)) {
            snprintf(text, sizeof text, "%s lies on another device", a->name);
            return text;
        }
        if (is_written(a) && meets_itself(first)) {
            snprintf(text, sizeof text, "elements of %s share memory", a->name);
            return text;
        }
        for (const struct op_arg *b = op->args; is_written(a) && b->kind != OP_END; b++) {
            const DLTensor *second = op_tensor(args, b);
            if (a == b || !second || (is_written(b) && b < a) || !meet(first, second))
                continue;
            bool allowed = names(a->may_alias, b->name) || names(b->may_alias, a->name);
            if (allowed && very_same(first, second))
                continue;
            snprintf(text, sizeof text, "%s shares memory with %s", a->name, b->name);
            return text;
        }
    }
    return NULL;
}
