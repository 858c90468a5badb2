/* SPDX-License-Identifier: Apache-2.0 */
/* Checks one op: each named shape, small ones in two ways, and each random problem, on each device, by every
 * row of its kernel table that serves it; then calls that must be refused. Reports failures as they are
 * found, and at the end what was covered. */
#ifndef HARNESS_CHECK_H
#define HARNESS_CHECK_H

#include "harness/trial.h"

struct check_options {
    bool cpu, cuda;     /* devices */
    const char *kernel; /* this row only; NULL: all */
    const char *values; /* given to every problem: "rows=4 dtype=bf16"; NULL */
    const char *shape;  /* this named shape only; NULL: all of them, unless a seed is given */
    uint64_t seed; /* the first of `problems` seeds; 0: seeds from 1, until `problems` of them could be run; with a shape: what
                      is drawn of that one */
    int problems;
    double max_elements; /* larger named shapes are left out; 0: none is */
};

enum { CHECK_MAX_REASONS = 6, CHECK_REASON = 160, CHECK_MAX_FAILURES = 5 };

/* What became of one row with one choice of dtypes. After CHECK_MAX_FAILURES it is not tried again. */
struct check_coverage {
    const char *op, *row;
    DLDeviceType device;
    char dtypes[48];
    int tried, ran, failed;
    int exact; /* of those that ran, how many had to give the reference's very bits, and so the same on all devices */
    uint64_t exact_outputs, other_outputs; /* bit i: argument i had to each time; or did not have to some time */
    struct {
        char text[CHECK_REASON];
        int count;
    } skipped[CHECK_MAX_REASONS]; /* why it did not run, up to the first that was not needed */
};

struct check_failure {
    const char *op, *row; /* row NULL: the op as a whole */
    DLDeviceType device;
    const char *problem; /* "seed 17: rows=4 hidden=64", or "" */
    const char *sentence;
    const char *command; /* reproduces it */
};

struct check_events {
    void *context;
    void (*trying)(void *context, const char *command); /* before each call that could crash */
    void (*failed)(void *context, const struct check_failure *failure);
    void (*covered)(void *context, const struct check_coverage *coverage);
};

struct check_counts {
    int trials, refusals, failures, left_out;
};

/* Adds to *counts. Not OK only if the check itself could not go on; values that name nothing are INVALID. */
flashinfer_status check_op(const struct op *op, const struct check_options *options,
                           const struct check_events *events, struct check_counts *counts);

#endif
