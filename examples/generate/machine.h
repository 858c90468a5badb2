/* SPDX-License-Identifier: Apache-2.0 */
/* Where the model runs: memory, a stream and graphs, on a CPU or a GPU. What an engine already has; here over the CUDA driver,
 * opened when asked for, so that the example builds and runs without CUDA. */
#ifndef GENERATE_MACHINE_H
#define GENERATE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "flashinfer/flashinfer.h"

struct machine {
    DLDevice device;
    void *stream; /* of a GPU */
    char name[128];
};

typedef struct machine_graph machine_graph;

/* name: "cpu", "cuda", or "" for cuda where there is one. On failure why not, as one sentence. */
bool machine_open(struct machine *machine, const char *name, char *error, size_t error_size);
bool machine_is_gpu(const struct machine *machine);

/* Zeroed memory; NULL if there is none left. Lives until the process ends, as everything of this example does. */
void *machine_alloc(struct machine *machine, size_t bytes);

/* Copies are in order with the kernels on the stream. upload may return before it is done, but `from` may be reused at once;
 * download returns when the bytes are there. */
bool machine_upload(struct machine *machine, void *to, const void *from, size_t bytes);
bool machine_download(struct machine *machine, void *to, const void *from, size_t bytes);
bool machine_finish(struct machine *machine);

/* A recorded sequence of launches. Recording is for GPUs only. NULL or false: the driver's reason is in machine_error. */
bool machine_record(struct machine *machine);
machine_graph *machine_record_end(struct machine *machine);
bool machine_replay(struct machine *machine, machine_graph *graph);

const char *machine_error(void);

#endif
