/* SPDX-License-Identifier: Apache-2.0 */
/* Teacher forcing: given token ids instead of generated ones, and the logits of the last positions written to a file. */
#ifndef GENERATE_TEACHER_H
#define GENERATE_TEACHER_H

#include "model.h"
#include "options.h"

enum { TEACHER_POSITIONS = 32 };

/* Feeds each prompt of options->prompt_ids, all but its last 32 tokens at once and these one by one, and writes the logits of
 * the last 32 positions to options->logits_out. Returns main's exit status, having said what is wrong. */
int teacher_run(struct model *model, const struct options *options, struct limits limits);

#endif
