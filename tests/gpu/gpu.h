/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU of a test: found, or the test is skipped; streams and graphs on it. A process that has used the driver cannot use it in
 * a child: tests that need a child of their own stand first in their program. */
#ifndef TESTS_GPU_GPU_H
#define TESTS_GPU_GPU_H

#include "backend/cuda.h"
#include "harness/device_memory.h"
#include "tests/ops/attention_batch.h"

/* The first GPU, its primary context current on this thread. Skips the test if there is none; gpu_of_child ends the child. */
const struct device *gpu_or_skip(void);
const struct device *gpu_of_child(void);

/* Runs a case in a child with an empty cache; it fails, succeeds or is skipped with it. */
void gpu_child(void (*run)(void));

/* Fails the test unless the driver returned 0. */
#define DRIVER(call) MUST(gpu_result((call), #call))
flashinfer_status gpu_result(int result, const char *what);

cuda_stream gpu_stream(void);

/* What `enqueue` puts on the stream, as a graph. */
cuda_graph_exec gpu_capture(cuda_stream stream, flashinfer_status (*enqueue)(void *context), void *context);
void gpu_replay(cuda_graph_exec graph, cuda_stream stream); /* and waits for it */

/* A function of the driver that the library does not use. */
void *gpu_symbol(const char *name);

#endif
