/* SPDX-License-Identifier: Apache-2.0 */
/* What check counts: for each row, device and choice of dtypes how often it was tried and ran, and why not.
 */
#ifndef HARNESS_COVERAGE_H
#define HARNESS_COVERAGE_H

#include "harness/check.h"

enum { COVERAGE_ROWS = 32 };

struct coverage {
    const struct op *op;
    struct check_coverage *entry;
    int count, room;
    uint32_t dtypes[COVERAGE_ROWS][2][OP_MAX_ARGS]; /* of each argument of the op, and of its plan, that a row ran with */
};

/* The entry, made if need be; NULL without memory. Valid until the next is made. */
struct check_coverage *coverage_of(struct coverage *coverage, const char *row, DLDeviceType device,
                                   const char *dtypes);

void coverage_skip(struct check_coverage *entry, const char *why);

/* Whether an argument whose dtype the declaration leaves open has one that the row has not run with yet; notes it if the row does
 * now. */
bool coverage_is_new(struct coverage *coverage, const struct op_kernel *row, const struct problem *problem, bool runs);

/* Whether it was tried with any dtypes. */
bool coverage_reached(const struct coverage *coverage, const char *row, DLDeviceType device);

#endif
