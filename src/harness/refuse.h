/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that must be refused: every argument and every rule of an op is violated, one at a time. Each call
 * must come back with the right status and a sentence that names what is wrong, and must leave all memory as
 * it was.
 *
 *     refuse.c          the base call, numbers, plans, rules, exec, workspace
 *     refusal.c         one such call: made, judged, put back
 *     refuse_tensor.c   tensors: NULL, dtype, rank, shape, strides, device, alignment, overlap */
#ifndef HARNESS_REFUSE_H
#define HARNESS_REFUSE_H

#include "harness/placement.h"

struct refusals {
    struct placement *placement; /* of the base problem */
    int tried;
    /* Called with a sentence for each call that was not refused as it should be. */
    void (*failed)(void *context, const char *sentence);
    void *context;
    /* The call to be made: a copy of the base call, put back before each violation. */
    flashinfer_exec exec;
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
    DLTensor tensor[OP_MAX_ARGS];
    int64_t shape[TENSOR_MAX_DIMS + 1], stride[TENSOR_MAX_DIMS + 1];
};

/* Violates everything that the declaration says; each rule in a problem of its own, which keeps the others. */
flashinfer_status refuse_all(const struct op *op, const struct device *device, int *tried,
                             void (*failed)(void *context, const char *sentence), void *context);

/* The tensor of an argument in the call to be made, with shape and strides of its own. */
DLTensor *refusal_begin(struct refusals *r, int arg);

/* Makes the call. `what` says what was violated; the sentence must contain one of the names, which end with
 * NULL. */
void refusal_expect(struct refusals *r, flashinfer_status status, const char *what, const char *const *names);

/* The base call again. */
void refusal_put_back(struct refusals *r);

/* Reports that a call with `what` has the problem, such as "was not refused". */
void refusal_complain(struct refusals *r, const char *what, const char *problem);

/* All violations of one tensor argument. */
void refuse_tensor(struct refusals *r, int arg);

#endif
