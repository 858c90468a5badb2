/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that a command line asks for: of ops with values, of a list or a record. */
#ifndef CLI_GATHER_H
#define CLI_GATHER_H

#include "cli/options.h"
#include "harness/warm.h"

struct gathered {
    struct spec_list list;
    struct devices devices;
    struct device recorded[MAX_ARCHS]; /* architectures that lines of a record name */
};

/* Returns -1, or the exit code, everything having been said. */
int gather(const struct command *command, const struct options *options, struct gathered *out);
void gather_free(struct gathered *gathered);

#endif
