/* SPDX-License-Identifier: Apache-2.0 */
/* One kernel tried on one problem: run twice, over different poison and (on a CPU) with different numbers of
 * threads, there a third time as the second. Its outputs must be right, written in full, and the same bits each
 * time; nothing else may have changed. */
#ifndef HARNESS_TRIAL_H
#define HARNESS_TRIAL_H

#include "harness/expected.h"

enum { TRIAL_SENTENCE = 1024 };

/* `row` NULL: the op's own choice. Returns OK with an empty sentence if all is well, OK with a sentence that
 * says what is wrong, or the status of what could not be done (a device that failed). */
flashinfer_status trial_run(struct problem *problem, struct placement *placement, const struct op_kernel *row,
                            size_t workspace, struct expected *expected, char sentence[TRIAL_SENTENCE]);

/* Whether all memories still hold what the problem put there; else says where not. `written`: outputs may
 * differ. */
flashinfer_status trial_untouched(const struct placement *placement, bool written,
                                  char sentence[TRIAL_SENTENCE]);

#endif
