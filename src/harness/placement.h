/* SPDX-License-Identifier: Apache-2.0 */
/* A problem put where a call can run: its memories copied to a device, its tensors described as DLTensors,
 * the op's struct filled, its plan made. A problem can be put in several places at once. */
#ifndef HARNESS_PLACEMENT_H
#define HARNESS_PLACEMENT_H

#include "harness/device_memory.h"
#include "harness/problem.h"

struct placement {
    const struct problem *problem;
    const struct device *device;
    struct placement *planned;    /* of the plan's problem; NULL */
    void *base[OP_MAX_ARGS];      /* by problem->memory */
    DLTensor tensor[OP_MAX_ARGS]; /* by argument */
    flashinfer_plan plan;         /* written by a plan op */
    flashinfer_exec exec;
    void *workspace; /* exec.workspace lies in it, between guards */
    _Alignas(16) unsigned char args[OP_MAX_ARGS_BYTES];
};

/* Without memory if the problem has no values; then call_check needs `loosely` and the device. */
flashinfer_status placement_create(const struct problem *problem, const struct device *device,
                                   struct placement **out);
void placement_destroy(struct placement *placement);

/* Checks the call: loosely, and for whatever device, if the problem has no values. */
flashinfer_status placement_check(const struct placement *placement, struct call *call);

/* Puts the images of the problem back into all memories that a call writes. */
flashinfer_status placement_reset(const struct placement *placement);

/* What lies in a memory now. */
flashinfer_status placement_fetch(const struct placement *placement, int memory, unsigned char *out);

/* Gives exec a workspace of at least that many bytes. */
flashinfer_status placement_workspace(struct placement *placement, size_t bytes);

/* False if a kernel wrote around its workspace. */
flashinfer_status placement_workspace_intact(const struct placement *placement, bool *intact);

#endif
