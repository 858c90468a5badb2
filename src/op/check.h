/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of call_check:
 *
 *     check.c          the order of things: struct, exec, arguments, device, rules
 *     check_value.c    numbers, integers, enums, dtypes
 *     check_plain.c    tensors as most calls have them, in one pass
 *     check_tensor.c   tensors: dtype, device, shape, strides, alignment; dimensions bound and compared
 *     check_overlap.c  outputs share memory with nothing
 *     complain.c       sentences about shapes and rules
 *
 * The good path touches no string and allocates nothing; all that composes sentences is cold. */
#ifndef OP_CHECK_H
#define OP_CHECK_H

#include <string.h>

#include "op/program.h"

/* The addresses of a tensor's elements. */
struct check_span {
    uintptr_t low, high;
    const DLTensor *tensor;
    int arg;
};

struct check {
    struct call *call;
    const struct program *program;
    const struct op *op;
    unsigned char *args; /* call->storage */
    bool loosely;        /* data pointers may be NULL */
    bool elsewhere;      /* the caller says where the call runs, whatever the tensors say */
    bool has_output, has_elements;
    DLDevice device; /* of the tensors, once device_arg is known */
    DLDevice given;  /* the same as that argument gives it */
    int device_arg;  /* the argument that told it, -1 */
    int leading_arg; /* the argument that told the leading axes, -1 */
    int num_leading;
    const int64_t *leading;
    uint64_t absent;         /* bit i: optional argument i is NULL */
    uint64_t number_tensors; /* bit i: number i is a tensor, to be checked when all others are */
    uint64_t deferred;       /* bit i: an axis of argument i names a dimension that was not known yet */
    int num_read, num_written;
    struct check_span read[OP_MAX_ARGS], written[OP_MAX_ARGS];
    uint8_t source[OP_MAX_DIMS]; /* the argument that told a dimension */
};

enum { CHECK_FROM_PLAN = 255 }; /* in `source` */

/* Notes the value of a symbol and the argument that told it. */
static inline void check_bind(struct check *c, int arg, int symbol, int64_t value)
{
    c->call->dim[symbol] = value;
    c->call->bound |= UINT64_C(1) << symbol;
    c->source[symbol] = (uint8_t)arg;
}

/* The alternative of its shape that holds in this call; NULL if there is none. */
static inline const struct program_alternative *check_shape_of(const struct check *c, int arg)
{
    const struct program_arg *a = &c->program->arg[arg];
    int64_t choice = a->by >= 0 ? c->call->dim[a->by] : 0;
    return a->first_shape >= 0 && choice >= 0 && choice < a->num_shapes ? &c->program->shapes[a->first_shape + choice] : NULL;
}

static inline bool check_same_type(DLDataType a, DLDataType b)
{
    return !memcmp(&a, &b, sizeof a);
}

/* Whether it is one of those that the declaration lists. */
static inline bool check_among(DLDataType type, const struct program_arg *a)
{
    for (int i = 0; i < a->num_types; i++)
        if (check_same_type(type, a->types[i]))
            return true;
    return false;
}

flashinfer_status check_value(struct check *c, int arg);

/* Walks over tensors of the usual kind that are right, or absent and optional. Returns the first that is anything else, of which
 * nothing is noted. */
const uint8_t *check_plain_tensors(struct check *c, const uint8_t *at, const uint8_t *end);

/* any_shape: whatever is declared, its shape is right. */
flashinfer_status check_tensor(struct check *c, int arg, const DLTensor *tensor, bool any_shape);
flashinfer_status check_number_tensors(struct check *c);

/* Compares the axes that check_tensor could not, now that all dimensions are known. */
flashinfer_status check_deferred(struct check *c);

/* Notes where a tensor lies, and refuses it if an output shares memory with it. */
flashinfer_status check_overlap(struct check *c, int arg, const DLTensor *tensor, uintptr_t low, uintptr_t high, bool nested);

/* Sentences. Each returns FLASHINFER_INVALID. */
__attribute__((cold)) flashinfer_status complain_shape(const struct check *c, int arg, const DLTensor *tensor);
__attribute__((cold)) flashinfer_status complain_dtype(const struct check *c, int arg, const DLTensor *tensor);
__attribute__((cold)) flashinfer_status complain_strides(const struct check *c, int arg, const DLTensor *tensor,
                                                         const char *rule);
__attribute__((cold)) flashinfer_status complain_device(const struct check *c, int arg, DLDevice device);
__attribute__((cold)) flashinfer_status complain_rule(const struct check *c, const struct expression *rule);
__attribute__((cold)) flashinfer_status complain_missing(const struct check *c, int arg, const struct expression *condition);
__attribute__((cold)) flashinfer_status complain_undefined(const struct check *c, int arg);

/* Notes that an argument is NULL. */
static inline flashinfer_status check_absent(struct check *c, int arg)
{
    c->absent |= UINT64_C(1) << arg;
    return c->program->arg[arg].flags & OPTIONAL ? FLASHINFER_OK : complain_missing(c, arg, NULL);
}

#endif
