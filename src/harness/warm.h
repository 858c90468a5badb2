/* SPDX-License-Identifier: Apache-2.0 */
/* Fills the disk cache: from calls that an op will be asked for, or from what a program recorded (jit_record). Devices need not
 * be there. */
#ifndef HARNESS_WARM_H
#define HARNESS_WARM_H

#include "harness/spec_list.h"

/* Adds what a call of the op with these values compiles (values as in op->shapes, the rest as in the first named shape); NULL:
 * what calls with its named shapes compile. By the row that each call takes, or the named one if it serves. */
flashinfer_status warm_add(struct spec_list *list, const struct op *op, const char *values, const char *kernel,
                           const struct device *device);

struct warm_result {
    const struct spec_item *item;
    struct jit_stored stored;
    const char *wrong; /* NULL, or why it does not compile */
    int done, total;
};

/* Compiles what is not in the cache, several at once (threads 0: as many as there are processors); reports each from one thread
 * at a time. Not OK if going on makes no sense: no compiler, a cache that cannot be written; then some are not reported. */
flashinfer_status warm_compile(const struct spec_list *list, int threads,
                               void (*report)(void *context, const struct warm_result *result), void *context, int *failures);

#endif
