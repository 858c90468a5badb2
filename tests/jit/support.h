/* SPDX-License-Identifier: Apache-2.0 */
/* The environment is read once, so each case that varies it runs in a process of its own, with a cache folder
 * of its own. */
#ifndef TESTS_JIT_SUPPORT_H
#define TESTS_JIT_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "jit/jit.h"

/* In a child: ends it as failed. */
#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: not true: %s\n    last error: %s\n", __FILE__, __LINE__,    \
                    #condition, flashinfer_last_error());                                       \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

/* Checks the status and that the sentence contains a text. */
#define CHECK_FAILS(call, status, text)                                                         \
    do {                                                                                        \
        CHECK((call) == (status));                                                              \
        CHECK(strstr(flashinfer_last_error(), text));                                           \
    } while (0)

/* The folder of this case, named by FLASHINFER_CACHE_DIR in its children; made anew by setup, removed by
 * teardown. */
extern char folder[64];
int setup_folder(void **state);
int teardown_folder(void **state);

/* Runs a case in a child; its exit status. */
int in_child(void (*run)(void));

/* Files in the folder whose names contain a text; the path of the last one, if asked for. */
int count_files(const char *text, char *path, size_t size);

/* A CPU kernel of a user, ready to be named by a spec. out[part] = FACTOR * in[part]. */
struct jit_spec multiply_spec(int factor);
int multiply(struct jit_spec spec); /* runs it; 1 if the result is right */

uint64_t compiled(void);
uint64_t loaded(void);
const struct device *cpu_device(void);

#endif
