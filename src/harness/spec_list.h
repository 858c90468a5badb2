/* SPDX-License-Identifier: Apache-2.0 */
/* Specialisations to be compiled, each once for each device. */
#ifndef HARNESS_SPEC_LIST_H
#define HARNESS_SPEC_LIST_H

#include "op/op.h"

struct spec_item {
    struct jit_spec spec;
    const struct device *device;
    const char *op, *row, *shape; /* what led to it; "" if nothing says so */
};

struct spec_list {
    struct spec_item *items;
    int count, room;
    bool failed; /* no memory for one */
};

void spec_list_add(struct spec_list *list, const struct spec_item *item);
void spec_list_free(struct spec_list *list);

#endif
