/* SPDX-License-Identifier: Apache-2.0 */
/* What a call should write, from the op's reference, and the judgement of what a kernel wrote. */
#ifndef HARNESS_EXPECTED_H
#define HARNESS_EXPECTED_H

#include "harness/placement.h"

struct expected;

/* Runs the op's reference over the problem. NULL in *out if the op has neither reference nor verify. */
flashinfer_status expected_create(const struct problem *problem, const struct call *call,
                                  struct expected **out);
void expected_destroy(struct expected *expected);

/* Bit i of *outputs: argument i is an output that is there; of *exact: and the reference allows no error in it. Then every
 * kernel, on whatever device, must write the same bits, signs of zeros included; which NaN is left open. */
void expected_exact(const struct expected *expected, const struct problem *problem, uint64_t *outputs, uint64_t *exact);

/* Judges the dense outputs of one call, by argument. Returns whether they are right; else `sentence` says
 * what is wrong first. */
bool expected_judge(struct expected *expected, const struct problem *problem,
                    unsigned char *const outputs[OP_MAX_ARGS], char *sentence, size_t size);

#endif
