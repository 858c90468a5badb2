/* SPDX-License-Identifier: Apache-2.0 */
/* A block of rows with what the reference makes of it, and runs of kernels on tensors in which it repeats. */
#ifndef HARNESS_HUGE_BLOCK_H
#define HARNESS_HUGE_BLOCK_H

#include "harness/trial.h"

/* The most that a block has. A prime, as are fewer: rows whose numbers differ by a power of two are different rows of the
 * block. */
enum { HUGE_BLOCK_ROWS = 1009 };

struct huge_block {
    const struct op *op;
    const struct device *device;
    const char *values, *instead, *dimension;
    struct problem *problem;
    struct placement *placement;
    struct call call;
    struct expected *expected;
    bool repeated[OP_MAX_ARGS]; /* the first axis is the dimension */
    bool by_number;             /* an argument holds numbers of rows */
    int64_t rows;
    int64_t wanted_rows;
    double elements;                 /* of the largest tensor that was run */
    int64_t sample[HUGE_BLOCK_ROWS]; /* sample[i]: a row of the large problem that repeats row i of the block */
    char text[PROBLEM_MAX_TEXT];     /* the problem that was run */
};

/* values, instead: as in struct problem_request; they must live as long. INVALID or UNSUPPORTED, with the reason, if that
 * dimension of that shape cannot be huge; *out NULL if it is no first axis anyway. */
flashinfer_status huge_block_create(const struct op *op, const struct device *device, const char *values,
                                    const char *instead, const char *dimension, double min_elements, struct huge_block **out);
void huge_block_destroy(struct huge_block *block);

/* Runs the row on so many rows and compares. If it does not fit, `sentence` says why, else what is wrong, if anything is. */
flashinfer_status huge_block_run(struct huge_block *block, int64_t rows, const struct op_kernel *row, bool *fits,
                                 char sentence[TRIAL_SENTENCE]);

#endif
