/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels on tensors whose element numbers and byte offsets exceed 32 bits. One dimension that is the first axis of tensors,
 * and nothing else, is made huge: a block of a prime number of rows repeats in all of them, so that the op's reference on the
 * block alone says what any row must hold. One row of each kind is sampled anywhere, the last row always. */
#ifndef HARNESS_HUGE_H
#define HARNESS_HUGE_H

#include "harness/trial.h"

#define HUGE_ELEMENTS 4563402752.0 /* more than 2^32, by a sixteenth */

struct huge_options {
    const char *kernel;  /* this row only; NULL: all */
    const char *shape;   /* this named shape only; NULL: the first that serves */
    const char *values;  /* given to every problem; NULL */
    double min_elements; /* of the largest tensor; it has more */
    /* Before each call, which could crash: the command that does it again. May be NULL. */
    void (*trying)(void *context, const char *command);
};

struct huge_result {
    const char *op;
    const char *row;       /* NULL: the op as a whole cannot be served */
    const char *dimension; /* that is huge; "" */
    const char *problem;   /* in one line; "" */
    double elements;       /* of the largest tensor */
    int compared;          /* rows */
    double seconds;
    enum huge_outcome { HUGE_RIGHT, HUGE_WRONG, HUGE_NOT_SERVED } outcome;
    const char *why; /* it is wrong or cannot be served; NULL */
};

/* One result for each dimension and kernel row of the device, or one that says why there is none. *failures counts the wrong
 * ones. */
flashinfer_status huge_op(const struct op *op, const struct device *device, const struct huge_options *options,
                          void (*report)(void *context, const struct huge_result *result), void *context, int *failures);

#endif
