/* SPDX-License-Identifier: Apache-2.0 */
/* Checks tensors: what they are (dtype, device, strides, alignment) and their shapes, which bind dimensions or are compared. */
#include <string.h>

#include "core/status.h"
#include "op/check.h"

/* How a tensor lies in memory. */
struct layout {
    int64_t extent; /* elements from its first to past its last */
    bool empty;     /* it has no elements */
    bool dense;
    bool unit;       /* the last axis is walked in steps of one element */
    bool nested;     /* each axis steps over all that the axes after it cover: no two elements can meet */
    bool negative;   /* a stride is */
    bool impossible; /* a size is negative */
    bool overflow;
};

/* Without strides. */
static inline struct layout measure_packed(const DLTensor *t)
{
    struct layout l = {.extent = 1, .dense = true, .unit = true, .nested = true};
    int64_t signs = 0;
    for (int i = 0; i < t->ndim; i++) {
        int64_t size = t->shape[i];
        signs |= size;
        l.empty |= size == 0;
        l.overflow |= __builtin_mul_overflow(l.extent, size, &l.extent);
    }
    l.impossible = signs < 0;
    return l;
}

/* Axes of size 0 or 1 have no say in strides. */
static inline struct layout measure_strided(const DLTensor *t)
{
    struct layout l = {.extent = 1, .dense = true, .unit = true, .nested = true};
    int64_t dense = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        int64_t size = t->shape[i], stride = t->strides[i], reach;
        if (size > 1) {
            l.negative |= stride < 0;
            l.dense &= stride == dense;
            l.unit &= i < t->ndim - 1 || stride == 1;
            l.nested &= stride >= l.extent;
            l.overflow |= __builtin_mul_overflow(size - 1, stride, &reach) ||
                          __builtin_add_overflow(l.extent, reach, &l.extent) || __builtin_mul_overflow(dense, size, &dense);
        }
        l.empty |= size == 0;
        l.impossible |= size < 0;
    }
    return l;
}

static inline flashinfer_status check_device(struct check *c, int arg, DLDevice given)
{
    const struct program_arg *a = &c->program->arg[arg];
    const bool host = a->flags & HOST && a->kind <= OP_INOUT;
    if (!host && c->device_arg >= 0 && device_equal(given, c->given))
        return FLASHINFER_OK;
    DLDevice device = device_canonical(given);
    if (host)
        return device.device_type == kDLCPU ? FLASHINFER_OK : complain_device(c, arg, given);
    if (c->device_arg < 0) {
        if (device.device_type != kDLCPU && device.device_type != kDLCUDA)
            return complain_device(c, arg, given);
        c->device = device;
        c->given = given;
        c->device_arg = arg;
    }
    return device_equal(device, c->device) ? FLASHINFER_OK : complain_device(c, arg, given);
}

static const DLTensor *given(const struct check *c, int arg)
{
    return *(const DLTensor *const *)op_field_const(c->args, &c->op->args[arg]);
}

/* An absent argument passes the question on to the one it is like. */
static inline bool dtype_is_right(const struct check *c, int arg, DLDataType type)
{
    const struct program_arg *a = &c->program->arg[arg];
    for (; a->like >= 0; a = &c->program->arg[a->like]) {
        const DLTensor *like = given(c, a->like);
        if (like)
            return check_same_type(type, like->dtype) || check_among(type, a);
        if (check_among(type, a))
            return true;
    }
    if (check_among(type, a))
        return true;
    if (a->like_symbol < 0)
        return false;
    if (!(c->call->bound >> a->like_symbol & 1))
        return dtype_of(type) != DTYPE_NONE;
    return check_same_type(type, dtype_dlpack((enum dtype)c->call->dim[a->like_symbol]));
}

/* An input may be like an output, which is looked at later: if that one is wrong, it is the one to name. */
__attribute__((cold)) static flashinfer_status complain_wrong_dtype(const struct check *c, int arg, const DLTensor *t)
{
    for (int like = c->program->arg[arg].like; like >= 0; like = c->program->arg[like].like) {
        const DLTensor *other = given(c, like);
        if (!other || dtype_is_right(c, like, other->dtype))
            break;
        arg = like;
        t = other;
    }
    return complain_dtype(c, arg, t);
}

/* How an axis of that size goes with what is known. */
enum fit { FITS, MISFITS, UNKNOWN };

static enum fit bind_axis(struct check *c, int arg, const struct expression *axis, int64_t size)
{
    struct call *call = c->call;
    int64_t expected;
    int symbol = axis->linear;
    if (symbol >= 0 && !(call->bound >> symbol & 1)) {
        int64_t value = size - axis->offset;
        if (axis->scale > 1 ? value % axis->scale != 0 || (value /= axis->scale) < 0 : value < 0)
            return MISFITS;
        check_bind(c, arg, symbol, value);
        return FITS;
    }
    if (axis->is_constant)
        return size == axis->offset ? FITS : MISFITS;
    if (axis->symbols & ~call->bound)
        return UNKNOWN;
    if (symbol >= 0 && axis->scale == 1)
        return !__builtin_add_overflow(call->dim[symbol], axis->offset, &expected) && expected == size ? FITS : MISFITS;
    return expression_evaluate(axis, call->dim, &expected) && expected == size ? FITS : MISFITS;
}

static enum fit bind_leading(struct check *c, int arg, const DLTensor *t, int num_leading)
{
    if (c->leading_arg >= 0) {
        if (num_leading != c->num_leading)
            return MISFITS;
        for (int i = 0; i < num_leading; i++)
            if (t->shape[i] != c->leading[i])
                return MISFITS;
        return FITS;
    }
    int64_t rows = 1;
    int symbol = c->program->rows;
    for (int i = 0; i < num_leading; i++)
        if (__builtin_mul_overflow(rows, t->shape[i], &rows))
            return MISFITS;
    if (c->call->bound >> symbol & 1 && c->call->dim[symbol] != rows)
        return MISFITS;
    c->leading = t->shape;
    c->num_leading = num_leading;
    c->leading_arg = arg;
    if (!(c->call->bound >> symbol & 1))
        check_bind(c, arg, symbol, rows);
    return FITS;
}

__attribute__((always_inline)) static inline enum fit bind_shape(struct check *c, int arg, const DLTensor *t)
{
    const struct program_alternative *shape = check_shape_of(c, arg);
    if (!shape)
        return MISFITS;
    int num_leading = t->ndim - shape->count;
    if (shape->leading ? num_leading < 0 || bind_leading(c, arg, t, num_leading) != FITS : num_leading != 0)
        return MISFITS;
    const struct expression *axis = &c->program->axes[shape->first];
    enum fit fit = FITS;
    for (int i = num_leading; i < t->ndim; i++, axis++) {
        int64_t size = t->shape[i];
        int symbol = axis->symbol;
        if (symbol >= 0 && c->call->bound >> symbol & 1) {
            if (size != c->call->dim[symbol])
                return MISFITS;
            continue;
        }
        enum fit one = bind_axis(c, arg, axis, size);
        if (one == MISFITS)
            return MISFITS;
        fit = one == UNKNOWN ? UNKNOWN : fit;
    }
    return fit;
}

/* The struct itself: nothing of it may be read before. */
static inline bool is_readable(const DLTensor *t)
{
    return (uint32_t)t->ndim <= TENSOR_MAX_DIMS && (t->shape || t->ndim == 0);
}

__attribute__((cold)) static flashinfer_status complain_unreadable(const struct check *c, int arg, const DLTensor *t)
{
    const char *op = c->op->name, *name = c->op->args[arg].name;
    if (t->ndim < 0 || t->ndim > TENSOR_MAX_DIMS)
        return fail(FLASHINFER_INVALID, "%s: %s has %d axes, must be 0 to %d", op, name, (int)t->ndim, TENSOR_MAX_DIMS);
    return fail(FLASHINFER_INVALID, "%s: %s.shape is NULL, must point to %d sizes", op, name, (int)t->ndim);
}

__attribute__((cold)) static flashinfer_status complain_size(const struct check *c, int arg, const DLTensor *t)
{
    int i = 0;
    while (t->shape[i] >= 0)
        i++;
    return fail(FLASHINFER_INVALID, "%s: axis %d of %s has size %lld, must not be negative", c->op->name, i,
                c->op->args[arg].name, (long long)t->shape[i]);
}

__attribute__((cold)) static flashinfer_status complain_too_large(const struct check *c, int arg)
{
    return fail(FLASHINFER_INVALID, "%s: %s does not fit into memory: its sizes are too large", c->op->name,
                c->op->args[arg].name);
}

__attribute__((cold)) static flashinfer_status complain_no_data(const struct check *c, int arg)
{
    return fail(FLASHINFER_INVALID, "%s: %s.data is NULL, but it has elements", c->op->name, c->op->args[arg].name);
}

__attribute__((cold)) static flashinfer_status complain_misaligned(const struct check *c, int arg, uintptr_t address, int bytes)
{
    return fail(FLASHINFER_INVALID, "%s: %s begins at %p, must be a multiple of its element's %d bytes", c->op->name,
                c->op->args[arg].name, (void *)address, bytes);
}

/* Host code multiplies sizes: those of an empty tensor that are not 0 must not overflow, either. */
__attribute__((noinline)) static flashinfer_status check_empty(const struct check *c, int arg, const DLTensor *t)
{
    int64_t bytes = t->dtype.bits * t->dtype.lanes / 8;
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] && __builtin_mul_overflow(bytes, t->shape[i], &bytes))
            return complain_too_large(c, arg);
    return FLASHINFER_OK;
}

/* Strides, data and its alignment; then where it lies. */
__attribute__((always_inline)) static inline flashinfer_status check_memory(struct check *c, int arg, const DLTensor *t,
                                                                            struct layout l)
{
    const uint8_t flags = c->program->arg[arg].flags;
    bool output = c->program->written >> arg & 1;
    c->has_output |= output;
    if (l.empty)
        return check_empty(c, arg, t);
    c->has_elements |= output;
    if (l.negative)
        return complain_strides(c, arg, t, "strides must not be negative");
    if (!l.unit && !(flags & STRIDED))
        return complain_strides(c, arg, t, "the last axis must have stride 1");
    if (!l.dense && flags & DENSE)
        return complain_strides(c, arg, t, "it must be dense");
    uintptr_t bytes = (uintptr_t)(t->dtype.bits * t->dtype.lanes) / 8, low, high;
    if (l.overflow || __builtin_add_overflow((uintptr_t)t->data, t->byte_offset, &low) ||
        __builtin_mul_overflow((uintptr_t)l.extent, bytes, &high) || __builtin_add_overflow(low, high, &high) ||
        high > INTPTR_MAX)
        return complain_too_large(c, arg);
    if (!t->data)
        return c->loosely ? FLASHINFER_OK : complain_no_data(c, arg);
    if (low & (bytes - 1))
        return complain_misaligned(c, arg, low, (int)bytes);
    bool meets = output;
    for (const struct check_span *other = c->written, *end = other + c->num_written; other < end; other++)
        meets |= low < other->high && other->low < high;
    if (meets)
        return check_overlap(c, arg, t, low, high, l.nested);
    c->read[c->num_read++] = (struct check_span){low, high, t, arg};
    return FLASHINFER_OK;
}

/* Compiled twice, with and without strides: without them there is little to check. */
__attribute__((always_inline)) static inline flashinfer_status check_measured(struct check *c, int arg, const DLTensor *t,
                                                                              bool any_shape, struct layout layout)
{
    if (layout.impossible)
        return complain_size(c, arg, t);
    if (!dtype_is_right(c, arg, t->dtype))
        return complain_wrong_dtype(c, arg, t);
    if (!c->elsewhere)
        TRY(check_device(c, arg, t->device));
    enum fit fit = any_shape ? FITS : bind_shape(c, arg, t);
    if (fit == MISFITS)
        return complain_shape(c, arg, t);
    if (fit == UNKNOWN)
        c->deferred |= UINT64_C(1) << arg;
    return check_memory(c, arg, t, layout);
}

flashinfer_status check_tensor(struct check *c, int arg, const DLTensor *t, bool any_shape)
{
    if (!is_readable(t))
        return complain_unreadable(c, arg, t);
    return t->strides ? check_measured(c, arg, t, any_shape, measure_strided(t))
                      : check_measured(c, arg, t, any_shape, measure_packed(t));
}

/* One element, whatever the rank, or the shape that is declared. */
flashinfer_status check_number_tensors(struct check *c)
{
    for (uint64_t left = c->number_tensors; left; left &= left - 1) {
        int arg = __builtin_ctzll(left);
        const DLTensor *t = op_tensor(c->args, &c->op->args[arg]);
        if (!t)
            return fail(FLASHINFER_INVALID, "%s: %s has kind 3 (tensor), but the tensor is NULL", c->op->name,
                        c->op->args[arg].name);
        if (!is_readable(t))
            return complain_unreadable(c, arg, t);
        bool one = true;
        for (int i = 0; i < t->ndim; i++)
            one &= t->shape[i] == 1;
        if (!one && c->program->arg[arg].first_shape < 0)
            return complain_shape(c, arg, t);
        TRY(check_tensor(c, arg, t, one));
    }
    return FLASHINFER_OK;
}

/* An axis [k//2] whose k no other axis tells means k = 2 * size: packed pairs. */
static void bind_quotients(struct check *c, int arg, const DLTensor *t)
{
    const struct program_alternative *shape = check_shape_of(c, arg);
    for (int i = 0; i < shape->count; i++) {
        const struct expression *axis = &c->program->axes[shape->first + i];
        int symbol = axis->quotient;
        int64_t value;
        if (symbol < 0 || c->call->bound >> symbol & 1 ||
            __builtin_mul_overflow(t->shape[t->ndim - shape->count + i], axis->divisor, &value))
            continue;
        check_bind(c, arg, symbol, value);
    }
}

/* A dimension that is an axis of absent arguments alone is 0 where it is part of a present one's sum. */
static void bind_absent(struct check *c)
{
    const struct expression *axes = c->program->axes;
    uint64_t needed = 0;
    for (uint64_t left = c->deferred; left; left &= left - 1) {
        const struct program_alternative *shape = check_shape_of(c, __builtin_ctzll(left));
        for (int i = 0; shape && i < shape->count; i++)
            needed |= axes[shape->first + i].symbols;
    }
    for (uint64_t left = c->absent; left; left &= left - 1) {
        int arg = __builtin_ctzll(left);
        const struct program_alternative *shape = check_shape_of(c, arg);
        for (int i = 0; shape && i < shape->count; i++) {
            int symbol = axes[shape->first + i].symbol;
            if (symbol >= 0 && (needed & ~c->call->bound) >> symbol & 1)
                check_bind(c, arg, symbol, 0);
        }
    }
}

flashinfer_status check_deferred(struct check *c)
{
    for (uint64_t left = c->deferred; left; left &= left - 1) {
        int arg = __builtin_ctzll(left);
        bind_quotients(c, arg, op_tensor(c->args, &c->op->args[arg]));
    }
    bind_absent(c);
    for (uint64_t left = c->deferred; left; left &= left - 1) {
        int arg = __builtin_ctzll(left);
        const DLTensor *t = op_tensor(c->args, &c->op->args[arg]);
        enum fit fit = bind_shape(c, arg, t);
        if (fit != FITS)
            return fit == MISFITS ? complain_shape(c, arg, t) : complain_undefined(c, arg);
    }
    return FLASHINFER_OK;
}
