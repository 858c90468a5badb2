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

/* Whether the reference allows no error at all: then every kernel, on whatever device, must write the same bits, signs of zeros
 * included; which NaN is left open. */
bool expected_is_exact(const struct expected *expected, const struct problem *problem);

/* Judges the dense outputs of one call, by argument. Returns whether they are right; else `sentence` says
 * what is wrong first. */
bool expected_judge(struct expected *expected, const struct problem *problem,
                    unsigned char *const outputs[OP_MAX_ARGS], char *sentence, size_t size);

#endif
