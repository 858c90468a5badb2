/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows of an op's kernel table serve a call with given dimensions, and how; on a device that is there
 * or only imagined. */
#ifndef HARNESS_FITS_H
#define HARNESS_FITS_H

#include "harness/placement.h"

struct fit_row {
    const struct op_kernel *row;
    const char *why_not; /* NULL: it fits */
    const struct way *way;
    bool chosen; /* the first that fits */
};

/* Calls found() for each row, in the order of the table. values: as in op->shapes, NULL: those of the first named shape;
 * instead: in place of some of them, or NULL; what neither says has its default. `problem`, if not NULL, gets the whole problem
 * in one line. UNSUPPORTED if no row fits, after all were reported. */
flashinfer_status fits_explain(const struct op *op, const char *values, const char *instead, const struct device *device,
                               char problem[PROBLEM_MAX_TEXT],
                               void (*found)(void *context, const struct fit_row *row), void *context);

#endif
