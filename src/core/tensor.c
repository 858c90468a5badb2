/* SPDX-License-Identifier: Apache-2.0 */
/* Questions asked of DLTensors. Products of sizes and strides are unsigned and may wrap: they are also asked of tensors with an
 * empty axis, whose other sizes and strides may be any number. Whether views overlap is decided on their elements, not on address
 * ranges: K and V interleaved in one cache, or q, k and v as slices of one row, do not overlap although their ranges do. */
#include "core/tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int64_t tensor_packed_stride(const DLTensor *t, int axis)
{
    uint64_t stride = 1;
    for (int i = t->ndim - 1; i > axis; i--)
        stride *= (uint64_t)t->shape[i];
    return (int64_t)stride;
}

int64_t tensor_elements(const DLTensor *t)
{
    uint64_t elements = 1;
    for (int i = 0; i < t->ndim; i++)
        elements *= (uint64_t)t->shape[i];
    return (int64_t)elements;
}

bool tensor_is_dense(const DLTensor *t)
{
    if (!t->strides || tensor_elements(t) == 0)
        return true;
    uint64_t expected = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && (uint64_t)t->strides[i] != expected)
            return false;
        expected *= (uint64_t)t->shape[i];
    }
    return true;
}

bool tensor_is_aligned(const DLTensor *t, int bytes)
{
    const uint64_t element = (uint64_t)(t->dtype.bits * t->dtype.lanes) / 8;
    uint64_t strides = 0, dense = 1;
    if (t->strides)
        for (int i = t->ndim - 2; i >= 0; i--)
            strides |= t->shape[i] > 1 ? (uint64_t)t->strides[i] : 0;
    else
        for (int i = t->ndim - 1; i > 0; i--) {
            dense *= (uint64_t)t->shape[i];
            strides |= t->shape[i - 1] > 1 ? dense : 0;
        }
    return (((uintptr_t)tensor_data(t) | strides * element) & (uint64_t)(bytes - 1)) == 0;
}

bool tensor_rows(const DLTensor *t, int keep, int64_t *rows, int64_t *stride)
{
    uint64_t dense = 1, count = 1, between;
    for (int i = t->ndim - 1; i >= 0 && i >= t->ndim - keep; i--)
        dense *= (uint64_t)t->shape[i];
    between = dense;
    for (int i = t->ndim - keep - 1; i >= 0; i--) {
        uint64_t extent = (uint64_t)t->shape[i], step = t->strides ? (uint64_t)t->strides[i] : dense;
        dense *= extent;
        if (extent == 1)
            continue;
        if (count == 1)
            between = step;
        else if (count > 1 && extent > 1 && step != count * between)
            return false;
        count *= extent;
    }
    *rows = (int64_t)count;
    *stride = (int64_t)between;
    return true;
}

/* One term of a sum of multiples: any of low .. high times stride, which is positive. */
struct term {
    int64_t stride, low, high;
};

/* Where a view's bytes lie: runs of `width` bytes at `base` plus any multiples of its strides, in bytes. */
struct view {
    int64_t base, width, last; /* last: offset of its last run from its first */
    int axes;
    struct term axis[TENSOR_MAX_DIMS]; /* 0 .. size - 1 times stride, strides ascending */
};

enum { SEARCH_BUDGET = 20000 }; /* sums tried before an overlap is assumed: well under a millisecond */

enum extent { EMPTY, FINITE, HUGE_EXTENT };

/* HUGE_EXTENT: there are too many axes, or offsets come near the limit of 64 bits. */
static enum extent view_of(const DLTensor *t, struct view *view)
{
    const int64_t limit = INT64_MAX / 8;
    int64_t element = dtype_bytes(tensor_dtype(t)), dense = element;
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] == 0)
            return EMPTY;
    if (t->ndim > TENSOR_MAX_DIMS)
        return HUGE_EXTENT;
    *view = (struct view){.base = (int64_t)(uintptr_t)tensor_data(t), .width = element};
    for (int i = t->ndim - 1; i >= 0; i--) {
        int64_t size = t->shape[i], stride = dense, reach;
        if (size == 1)
            continue;
        if (__builtin_mul_overflow(dense, size, &dense)
            || (t->strides && __builtin_mul_overflow(t->strides[i], element, &stride))
            || __builtin_mul_overflow(stride, size - 1, &reach) || reach > limit || reach < -limit)
            return HUGE_EXTENT;
        if (stride < 0)
            view->base += reach, stride = -stride, reach = -reach;
        view->last += reach;
        int at = view->axes++;
        for (; at > 0 && view->axis[at - 1].stride > stride; at--)
            view->axis[at] = view->axis[at - 1];
        view->axis[at] = (struct term){stride, 0, size - 1};
    }
    return view->last > limit ? HUGE_EXTENT : FINITE;
}

/* Joins axes that leave no gap into the run. Says nothing of elements that overlap within the view. */
static void view_solidify(struct view *view)
{
    int solid = 0;
    while (solid < view->axes && view->axis[solid].stride <= view->width) {
        view->width += view->axis[solid].stride * view->axis[solid].high;
        view->last -= view->axis[solid].stride * view->axis[solid].high;
        solid++;
    }
    view->axes -= solid;
    memmove(view->axis, view->axis + solid, (size_t)view->axes * sizeof *view->axis);
}

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* True if -below < offset + sum of x_i * stride_i < above for some x_i in low_i .. high_i. Terms ascend by
 * stride; the largest is settled first, so that with nested strides only a value or two of each x can lead
 * there. True when the budget is spent. */
static bool sum_reaches(const struct term *term, int terms, int64_t offset, int64_t below, int64_t above,
                        int *budget)
{
    if (--*budget < 0)
        return true;
    if (terms == 0)
        return -below < offset && offset < above;
    int64_t least = 0, most = 0;
    for (int i = 0; i < terms - 1; i++) {
        least += term[i].low * term[i].stride;
        most += term[i].high * term[i].stride;
    }
    const struct term *largest = &term[terms - 1];
    int64_t first = -floor_divide(offset + most + below - 1, largest->stride);
    int64_t final = floor_divide(above - 1 - offset - least, largest->stride);
    if (first < largest->low)
        first = largest->low;
    if (final > largest->high)
        final = largest->high;
    for (int64_t x = first; x <= final; x++)
        if (sum_reaches(term, terms - 1, offset + x * largest->stride, below, above, budget))
            return true;
    return false;
}

static bool overlaps_itself(const struct view *view)
{
    bool nested = true;
    int64_t extent = view->width;
    for (int i = 0; i < view->axes; i++) {
        if (view->axis[i].stride == 0)
            return true;
        nested &= view->axis[i].stride >= extent;
        extent += view->axis[i].stride * view->axis[i].high;
    }
    if (nested)
        return false;
    /* Do two different indices meet? Axis `i` is the last in which they differ. */
    int budget = SEARCH_BUDGET;
    struct term difference[TENSOR_MAX_DIMS];
    for (int i = 0; i < view->axes; i++) {
        difference[i] = view->axis[i];
        difference[i].low = 1;
        if (sum_reaches(difference, i + 1, 0, view->width, view->width, &budget))
            return true;
        difference[i].low = -difference[i].high;
    }
    return false;
}

static bool views_overlap(struct view *a, struct view *b)
{
    if (a->base + a->last + a->width <= b->base || b->base + b->last + b->width <= a->base)
        return false;
    view_solidify(a);
    view_solidify(b);
    /* The difference of two offsets: b's axes count up, a's count down; equal strides make one term. */
    struct term difference[2 * TENSOR_MAX_DIMS];
    int terms = 0, i = 0, j = 0;
    while (i < a->axes || j < b->axes) {
        bool from_a = j == b->axes || (i < a->axes && a->axis[i].stride <= b->axis[j].stride);
        const struct term *next = from_a ? &a->axis[i++] : &b->axis[j++];
        if (terms == 0 || difference[terms - 1].stride != next->stride)
            difference[terms++] = (struct term){next->stride, 0, 0};
        difference[terms - 1].low -= from_a ? next->high : 0;
        difference[terms - 1].high += from_a ? 0 : next->high;
    }
    int budget = SEARCH_BUDGET;
    return sum_reaches(difference, terms, b->base - a->base, b->width, a->width, &budget);
}

bool tensor_overlap(const DLTensor *a, const DLTensor *b)
{
    struct view va, vb;
    enum extent extent = view_of(a, &va);
    if (extent != FINITE)
        return extent == HUGE_EXTENT;
    if (!b)
        return overlaps_itself(&va);
    extent = view_of(b, &vb);
    if (extent != FINITE)
        return extent == HUGE_EXTENT;
    return a->data && b->data && views_overlap(&va, &vb);
}

static void add(char **end, size_t *left, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void add(char **end, size_t *left, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(*end, *left, format, arguments);
    va_end(arguments);
    size_t used = (size_t)length < *left ? (size_t)length : *left - 1;
    *end += used;
    *left -= used;
}

static void add_axes(char **end, size_t *left, const int64_t *values, int n)
{
    add(end, left, "[");
    for (int i = 0; i < n; i++)
        add(end, left, "%s%lld", i ? ", " : "", (long long)values[i]);
    add(end, left, "]");
}

char *tensor_describe(const DLTensor *t, char *buffer, size_t size)
{
    char *end = buffer;
    DLDataType d = t->dtype;
    add_axes(&end, &size, t->shape, t->ndim);
    if (!tensor_is_dense(t)) {
        add(&end, &size, " strides ");
        add_axes(&end, &size, t->strides, t->ndim);
    }
    if (dtype_of(d) != DTYPE_NONE)
        add(&end, &size, " %s on ", dtype_name(dtype_of(d)));
    else
        add(&end, &size, " dtype {code %d, bits %d, lanes %d} on ", d.code, d.bits, d.lanes);
    switch ((int)t->device.device_type) {
    case kDLCPU: add(&end, &size, "cpu"); break;
    case kDLCUDA: add(&end, &size, "cuda:%d", (int)t->device.device_id); break;
    case kDLCUDAHost: add(&end, &size, "pinned cpu"); break;
    case kDLCUDAManaged: add(&end, &size, "managed cuda:%d", (int)t->device.device_id); break;
    default: add(&end, &size, "device type %d", (int)t->device.device_type);
    }
    return buffer;
}
