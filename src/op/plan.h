/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in a flashinfer_plan. It is plain bytes without pointers, understood only by the build that wrote it. */
#ifndef OP_PLAN_H
#define OP_PLAN_H

#include "op/program.h"

enum { PLAN_MAX_SYMBOLS = 37, PLAN_MAX_CONSTANTS = 640 };

#define PLAN_MAGIC UINT64_C(0x6e616c70494c4e46)

struct __attribute__((may_alias)) plan_blob {
    uint64_t magic;
    uint64_t build;     /* of the plan op's declaration and this library's version */
    DLDevice device;    /* where runs take place */
    uint64_t workspace; /* bytes that any run needs at most */
    uint64_t bound;     /* bit i: symbol[i] is known */
    uint32_t num_symbols, constants_bytes;
    char op[32]; /* the start of the plan op's name, for sentences */
    uint64_t checksum; /* of all that is used */
    int64_t symbol[PLAN_MAX_SYMBOLS];
    _Alignas(8) unsigned char constants[PLAN_MAX_CONSTANTS]; /* as a flashinfer_plan is aligned, and no more */
};

_Static_assert(sizeof(struct plan_blob) == sizeof(flashinfer_plan), "a plan's size is part of the interface");

/* The content of a plan that `op` reads, made by op->plan. FOREIGN_PLAN if it is anything else. */
flashinfer_status plan_read(const struct op *op, const flashinfer_plan *plan, const struct plan_blob **out);

#endif
