/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as most calls have them, with little work for each: sizes and strides that cannot overflow, nothing near an output.
 * What is not found to be right here, because it is wrong or because it is rare, is left to check_tensor, as if it had not been
 * looked at; what is accepted here, check_tensor accepts, too. Functions that are not inlined are so to leave registers to their
 * caller. */
#include <string.h>

#include "op/check.h"

/* Sizes and strides of fewer bits give addresses of less than 63, whatever the rank and the dtype. */
enum { PLAIN_BITS = 28 };

static inline const DLTensor *tensor_of(const struct check *c, const struct program_arg *a)
{
    return *(const DLTensor *const *)(c->args + a->offset);
}

static inline bool dtype_is_plain(const struct check *c, const struct program_arg *a, DLDataType type)
{
    if (a->like >= 0) {
        const DLTensor *like = tensor_of(c, &c->program->arg[a->like]);
        return like && check_same_type(type, like->dtype);
    }
    if (a->like_symbol >= 0)
        return c->call->bound >> a->like_symbol & 1 &&
               check_same_type(type, dtype_dlpack((enum dtype)c->call->dim[a->like_symbol]));
    return check_among(type, a);
}

/* The first tensor says where the call runs. */
static bool learn_device(struct check *c, const uint8_t *at, const uint8_t *end)
{
    const struct program_arg *args = c->program->arg;
    while (at < end && !tensor_of(c, &args[*at]))
        at++;
    if (at == end || !args[*at].plain)
        return false;
    const DLDevice device = tensor_of(c, &args[*at])->device;
    if (device.device_type != kDLCUDA && (device.device_type != kDLCPU || device.device_id != 0))
        return false;
    c->device = c->given = device;
    c->device_arg = *at;
    return true;
}

/* The leading axes: those of the call, or the first that the call has. */
__attribute__((noinline)) static bool learn_leading(struct check *c, int arg, const DLTensor *t, int count)
{
    const int symbol = c->program->rows;
    int64_t rows = 1;
    if (c->leading_arg >= 0)
        return count == c->num_leading && !memcmp(t->shape, c->leading, (size_t)count * sizeof *t->shape);
    for (int i = 0; i < count; i++)
        if (__builtin_mul_overflow(rows, t->shape[i], &rows))
            return false;
    if (count < 0 || rows < 0 || (c->call->bound >> symbol & 1 && c->call->dim[symbol] != rows))
        return false;
    c->leading = t->shape;
    c->num_leading = count;
    c->leading_arg = arg;
    check_bind(c, arg, symbol, rows);
    return true;
}

/* What an expression is, which may tell a dimension: [2*intermediate]. -1: nothing that is plain. */
static int64_t learn_expression(struct check *c, int arg, const struct expression *axis, int64_t size)
{
    int64_t value = -1, multiple = size - axis->offset;
    if (!(axis->symbols & ~c->call->bound))
        return expression_evaluate(axis, c->call->dim, &value) ? value : -1;
    if (axis->linear < 0 || multiple < 0 || multiple % axis->scale != 0)
        return -1;
    check_bind(c, arg, axis->linear, multiple / axis->scale);
    return size;
}

/* Dimensions that are not known yet. False if that is not all. */
__attribute__((noinline)) static bool learn_axes(struct check *c, int arg, const struct program_alternative *shape,
                                                 const int64_t *size)
{
    const struct program_axis *axis = shape->axes, *end = axis + shape->count;
    for (; axis < end; axis++, size++) {
        if (c->call->bound >> axis->symbol & 1)
            continue;
        if (*size < axis->offset || *size >> PLAIN_BITS)
            return false;
        if (axis->symbol == SYMBOL_EXPRESSION)
            c->call->dim[SYMBOL_EXPRESSION] =
                learn_expression(c, arg, &c->program->axes[shape->first + (axis - shape->axes)], *size);
        else
            check_bind(c, arg, axis->symbol, *size - axis->offset);
    }
    return true;
}

static inline bool is_known(const int64_t *dim, struct program_axis axis, int64_t size)
{
    return (uint64_t)dim[axis.symbol] + (uint64_t)axis.offset == (uint64_t)size;
}

/* Compares axes with what is known. Returns the number of elements from the first to past the last; 0 if the tensor is not
 * plain. */
__attribute__((noinline)) static uint64_t walk_strided(const int64_t *size, const int64_t *stride,
                                                       const struct program_axis *axis, int count, const int64_t *dim)
{
    uint64_t extent = 1, bits = 0;
    for (int64_t i = count - 1; i >= 0; i--) {
        const uint64_t steps = (uint64_t)size[i] - 1;
        if (!is_known(dim, axis[i], size[i]))
            return 0;
        bits |= steps | (uint64_t)stride[i];
        extent += steps * (uint64_t)stride[i];
    }
    return bits >> PLAIN_BITS ? 0 : extent;
}

/* Likewise, of a tensor without strides. */
__attribute__((noinline)) static uint64_t walk_packed(const int64_t *size, const struct program_axis *axis, int count,
                                                      const int64_t *dim)
{
    uint64_t extent = 1, bits = 0;
    for (int64_t i = count - 1; i >= 0; i--) {
        if (!is_known(dim, axis[i], size[i]))
            return 0;
        bits |= ((uint64_t)size[i] - 1) | extent;
        extent *= (uint64_t)size[i];
    }
    return bits >> PLAIN_BITS ? 0 : extent;
}

/* Compares the axes with what is known. Returns the number of elements from the first to past the last; 0 if the tensor is not
 * plain. */
static inline uint64_t walk_axes(struct check *c, int arg, const struct program_alternative *shape, const int64_t *size,
                                 const int64_t *stride)
{
    if (shape->symbols & ~c->call->bound && !learn_axes(c, arg, shape, size))
        return 0;
    return stride ? walk_strided(size, stride, shape->axes, shape->count, c->call->dim)
                  : walk_packed(size, shape->axes, shape->count, c->call->dim);
}

/* Likewise, of a shape with leading axes. */
__attribute__((noinline)) static uint64_t walk_all_axes(struct check *c, int arg, const struct program_alternative *shape,
                                                        const DLTensor *t)
{
    const int leading = t->ndim - shape->count;
    if (!learn_leading(c, arg, t, leading))
        return 0;
    uint64_t extent = walk_axes(c, arg, shape, t->shape + leading, t->strides ? t->strides + leading : NULL);
    uint64_t bits = extent ? 0 : UINT64_MAX;
    for (int i = leading - 1; i >= 0; i--) {
        const uint64_t steps = (uint64_t)t->shape[i] - 1, stride = t->strides ? (uint64_t)t->strides[i] : extent;
        bits |= steps | stride;
        extent += steps * stride;
    }
    return bits >> PLAIN_BITS ? 0 : extent;
}

static inline bool meets(const struct check_span *span, int count, uintptr_t low, uintptr_t high)
{
    intptr_t both = 0; /* negative: there is one that neither ends before this begins nor begins after it ends */
    for (const struct check_span *end = span + count; span < end; span++)
        both |= (intptr_t)(low - span->high) & (intptr_t)(span->low - high);
    return both < 0;
}

/* Each axis steps over all that the axes after it cover, so that no two elements can meet; if `dense`, over no more. */
static bool is_nested(const DLTensor *t, bool dense)
{
    int64_t extent = 1;
    for (int i = t->ndim - 1; t->strides && i >= 0; i--) {
        if (t->strides[i] < extent || (dense && t->strides[i] > extent))
            return false;
        extent += (t->shape[i] - 1) * t->strides[i];
    }
    return true;
}

/* Notes where it lies. */
static inline bool memory_is_plain(struct check *c, int arg, const struct program_arg *a, const DLTensor *t, uint64_t extent)
{
    const bool written = c->program->written >> arg & 1;
    const uintptr_t bytes = (uintptr_t)(t->dtype.bits * t->dtype.lanes) / 8;
    uintptr_t low;
    if (!t->data || __builtin_add_overflow((uintptr_t)t->data, t->byte_offset, &low) || low & (bytes - 1))
        return false;
    const uintptr_t high = low + extent * bytes;
    if ((intptr_t)(low | high) < 0 || meets(c->written, c->num_written, low, high))
        return false;
    if ((written || a->flags & DENSE) && !is_nested(t, a->flags & DENSE))
        return false;
    if (!written) {
        c->read[c->num_read++] = (struct check_span){low, high, t, arg};
        return true;
    }
    if (meets(c->read, c->num_read, low, high))
        return false;
    c->written[c->num_written++] = (struct check_span){low, high, t, arg};
    c->has_output = c->has_elements = true;
    return true;
}

static inline bool shape_and_memory_are_plain(struct check *c, int arg, const struct program_arg *a,
                                              const struct program_alternative *shape, const DLTensor *t)
{
    if (t->strides && t->strides[t->ndim - 1] != 1)
        return false;
    const uint64_t extent = shape->leading            ? walk_all_axes(c, arg, shape, t)
                            : t->ndim == shape->count ? walk_axes(c, arg, shape, t->shape, t->strides)
                                                      : 0;
    return extent && memory_is_plain(c, arg, a, t, extent);
}

static inline bool tensor_is_plain(struct check *c, int arg, const struct program_arg *a, const DLTensor *t)
{
    const struct program_alternative *shape = a->plain;
    if (!shape || (uint32_t)t->ndim - 1 >= TENSOR_MAX_DIMS || !t->shape || !device_equal(t->device, c->given) ||
        !(check_same_type(t->dtype, a->only_type) || dtype_is_plain(c, a, t->dtype)))
        return false;
    if (a->by >= 0) {
        const uint64_t choice = (uint64_t)c->call->dim[a->by];
        if (choice >= (uint64_t)a->num_shapes)
            return false;
        shape += choice;
    }
    const uint64_t bound = c->call->bound;
    if (shape_and_memory_are_plain(c, arg, a, shape, t))
        return true;
    c->call->bound = bound;
    if (c->leading_arg == arg)
        c->leading_arg = -1;
    return false;
}

const uint8_t *check_plain_tensors(struct check *c, const uint8_t *at, const uint8_t *end)
{
    if (c->device_arg < 0 && !learn_device(c, at, end))
        return at;
    for (; at < end; at++) {
        const struct program_arg *a = &c->program->arg[*at];
        const DLTensor *t = tensor_of(c, a);
        if (t ? !tensor_is_plain(c, *at, a, t) : !(a->flags & OPTIONAL))
            break;
        if (!t)
            c->absent |= UINT64_C(1) << *at;
    }
    return at;
}
