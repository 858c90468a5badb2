/* SPDX-License-Identifier: Apache-2.0 */
/* One decode step of a small transformer layer with a head that samples: every run op there is but batch_prefill, each reading
 * what the one before it wrote. */
#ifndef TESTS_GPU_DECODE_STEP_H
#define TESTS_GPU_DECODE_STEP_H

#include "tests/gpu/gpu.h"

enum { STEP_TENSORS = 18, STEP_RESULTS = 6 };

struct decode_step {
    struct attention_batch attention;
    flashinfer_exec exec;
    DLTensor tensor[STEP_TENSORS];
    int64_t shapes[STEP_TENSORS][2];
};

void decode_step_create(struct decode_step *s, const struct device *device, cuda_stream stream);
void decode_step_destroy(struct decode_step *s);

/* Enqueues the step, which begins with the hidden states as they were created. `step` is a struct decode_step *. */
flashinfer_status decode_step_enqueue(void *step);

void decode_step_set_flags(struct decode_step *s, uint32_t flags);

/* Waits, and returns what the step wrote: tokens, probabilities, hidden states, attention; the caller frees it. */
void *decode_step_results(const struct decode_step *s, size_t *bytes);

/* Makes all results something else. */
void decode_step_poison(struct decode_step *s);

#endif
