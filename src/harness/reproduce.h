/* SPDX-License-Identifier: Apache-2.0 */
/* The command that does again what a check or a benchmark is doing. */
#ifndef HARNESS_REPRODUCE_H
#define HARNESS_REPRODUCE_H

#include "op/op.h"

enum { REPRODUCE_COMMAND = 1024 };

struct reproduce {
    const char *command; /* "check" */
    const struct op *op;
    const char *row, *shape, *values; /* NULL: none */
    uint64_t seed;                    /* 0: none */
    const struct device *device;      /* NULL: none */
};

/* "cpu", "cuda" */
const char *reproduce_device(DLDeviceType device);

void reproduce(const struct reproduce *what, char text[REPRODUCE_COMMAND]);

#endif
