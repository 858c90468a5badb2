/* SPDX-License-Identifier: Apache-2.0 */
/* A right call of an op, and copies of it with any field changed: tensors, numbers, plan, exec, the struct itself. Pointers stay
 * NULL or point to what exists, since no library can tell others. */
#ifndef TESTS_FUZZ_CORRUPT_H
#define TESTS_FUZZ_CORRUPT_H

#include "harness/placement.h"
#include "tests/fuzz/fuzz.h"

enum { CORRUPT_EXTRA_BYTES = 5000 }; /* behind args and exec: a struct may say that it is larger than it is */

struct corrupt {
    const struct placement *right;
    DLTensor tensor[OP_MAX_ARGS];
    int64_t shape[OP_MAX_ARGS][TENSOR_MAX_DIMS + 1], stride[OP_MAX_ARGS][TENSOR_MAX_DIMS + 1];
    flashinfer_plan plan[2]; /* so that it may begin off its place */
    flashinfer_plan made;    /* what the plan's op wrote there */
    char kernel[16];
    union {
        flashinfer_exec exec;
        _Alignas(16) unsigned char exec_bytes[sizeof(flashinfer_exec) + CORRUPT_EXTRA_BYTES];
    };
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES + CORRUPT_EXTRA_BYTES];
};

/* A copy of the right call, in which the input changes something while it lasts. */
void corrupt_begin(struct corrupt *c, const struct placement *right);
void corrupt_once(struct corrupt *c, struct fuzz_input *in);

/* Gives one dimension or integer another value wherever it stands: a call that may well be right, of tensors that need not lie
 * anywhere. Before all else that changes. `device`: where a plan is made, NULL: where its problem is placed. */
void corrupt_dimension(struct corrupt *c, const struct device *device, struct fuzz_input *in);

#endif
