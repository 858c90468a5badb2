/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own threads, for CPU kernels. No OpenMP: it is not fork-safe and clashes with the
 * caller's. */
#ifndef CORE_THREADS_H
#define CORE_THREADS_H

#include <pthread.h>
#include <stdint.h>

/* Calls run(context, part) for every part in [0, parts), each once, on up to `threads` threads (0: the
 * default), the caller's among them; returns when all are done. Runs alone on the caller if another call
 * holds the threads, which includes a call from inside a part. After a fork the child starts threads of its
 * own. */
void threads_run(void (*run)(void *context, int part), void *context, int parts, int threads);

/* How many threads a call with exec.threads = `threads` uses at most. */
int threads_count(int threads);

/* pthread_create for threads of the library, which the program's signals are not for. One that the thread itself causes is: a
 * blocked fault would end the process without the program's handler. */
int threads_start(pthread_t *thread, void *(*body)(void *context), void *context);

/* Processors in this process' affinity mask when it was first asked for. */
int threads_processors(void);

#endif
