/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what a row needs compiles and loads: asked before the row is tried, so that a kernel which does not
 * is told once for each of its specialisations, not once for each problem. */
#ifndef HARNESS_COMPILES_H
#define HARNESS_COMPILES_H

#include "op/op.h"

struct compiles {
    struct jit_spec *bad; /* those that did not */
    int count, room;
};

enum compiles_answer { COMPILES, COMPILES_NOT, COMPILES_NOT_AS_BEFORE };

/* COMPILES_NOT leaves the reason in flashinfer_last_error(). Not OK if nothing more can be done: a device
 * that failed, no memory. */
flashinfer_status compiles(struct compiles *known, const struct way *way, const struct device *device,
                           enum compiles_answer *answer);

void compiles_end(struct compiles *known);

#endif
