/* SPDX-License-Identifier: Apache-2.0 */
/* CPU kernels: the system's C compiler, without a shell, for this machine's instruction set. The source goes
 * to its standard input; the shared object is written to a folder in TMPDIR, where it puts its own files too, and
 * read back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

enum { MAX_ARGUMENTS = JIT_MAX_CONSTANTS + 32 };

static flashinfer_status run_compiler(const struct jit_job *job, const char *folder, const char *output, struct text *log)
{
    const char *cc;
    const char *argument[MAX_ARGUMENTS];
    int n = 0, exit_code = 0;
    TRY(jit_find_cc(&cc));
    argument[n++] = cc;
    for (size_t at = 0; at < job->options.size; at += strlen(job->options.data + at) + 1)
        argument[n++] = job->options.data + at;
    const char *const rest[] = {"-o", output, "-x", "c", "-", "-lm", NULL};
    memcpy(argument + n, rest, sizeof rest);
    TRY(jit_run_program((char *const *)argument, folder, &job->source, log, &exit_code));
    return exit_code ? jit_compile_failed(job, log) : FLASHINFER_OK;
}

flashinfer_status jit_compile_cpu(const struct jit_job *job, bool verbose, struct text *binary, struct text *log)
{
    char folder[4096], output[sizeof folder + 16];
    (void)verbose;
    int held = folder_temporary(environment()->temporary_dir, folder, sizeof folder);
    if (held < 0)
        return fail(FLASHINFER_IO, "no file can be made in %s, where kernels are compiled (TMPDIR): %s",
                    environment()->temporary_dir, strerror(errno));
    snprintf(output, sizeof output, "%s/kernel.so", folder);
    flashinfer_status status = run_compiler(job, folder, output, log);
    if (!status && (!file_read(output, binary) || binary->size == 0))
        status = jit_compile_failed(job, log);
    folder_remove(held, folder);
    return status;
}
