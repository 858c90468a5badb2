/* SPDX-License-Identifier: Apache-2.0 */
/* Short ways to write calls in tests, and to say what must become of them. */
#ifndef CALLS_H
#define CALLS_H

#include "op/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h> /* last: it makes fail() a macro */

/* TENSOR(data, DTYPE_F16, 3, 64): a dense tensor on the CPU, of shape [3, 64]. */
#define TENSOR(memory, type, ...)                                           \
    ((DLTensor){.data = (memory),                                           \
                .device = {kDLCPU, 0},                                      \
                .dtype = dtype_dlpack(type),                                \
                .ndim = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), \
                .shape = (int64_t[]){__VA_ARGS__}})

#define STRIDES(...) ((int64_t[]){__VA_ARGS__})
#define EXEC(...) (&(flashinfer_exec){.size = sizeof(flashinfer_exec), __VA_ARGS__})

static inline void expect_outcome(const struct op *op, const void *args, const flashinfer_exec *exec, flashinfer_status status,
                                  const char *sentence, const char *file, int line)
{
    struct call call;
    flashinfer_status got = call_check(&call, op, args, exec, false, NULL);
    const char *said = got ? flashinfer_last_error() : "";
    if (got == status && !strcmp(said, sentence))
        return;
    print_error("got      %s \"%s\"\nexpected %s \"%s\"\n", flashinfer_status_name(got), said, flashinfer_status_name(status),
                sentence);
    _fail(file, line);
}

#define ACCEPTED(op, args, exec) expect_outcome(op, args, exec, FLASHINFER_OK, "", __FILE__, __LINE__)
#define REFUSED_AS(status, op, args, exec, sentence) expect_outcome(op, args, exec, status, sentence, __FILE__, __LINE__)
#define REFUSED(op, args, exec, sentence) REFUSED_AS(FLASHINFER_INVALID, op, args, exec, sentence)

#endif
