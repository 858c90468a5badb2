/* SPDX-License-Identifier: Apache-2.0 */
/* What check counts: for each row, device and choice of dtypes how often it was tried and ran, and why not.
 */
#ifndef HARNESS_COVERAGE_H
#define HARNESS_COVERAGE_H

#include "harness/check.h"

struct coverage {
    const struct op *op;
    struct check_coverage *entry;
    int count, room;
};

/* The entry, made if need be; NULL without memory. Valid until the next is made. */
struct check_coverage *coverage_of(struct coverage *coverage, const char *row, DLDeviceType device,
                                   const char *dtypes);

void coverage_skip(struct check_coverage *entry, const char *why);

/* Whether it was tried with any dtypes. */
bool coverage_reached(const struct coverage *coverage, const char *row, DLDeviceType device);

#endif
