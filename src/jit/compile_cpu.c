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

static flashinfer_status run_compiler(const struct jit_job *job, const char *folder, struct text *binary, struct text *log)
{
    char output[4112];
    const char *cc;
    const char *argument[MAX_ARGUMENTS];
    int n = 0, exit_code = 0;
    TRY(jit_find_cc(&cc));
    snprintf(output, sizeof output, "%s/kernel.so", folder);
    argument[n++] = cc;
    for (size_t at = 0; at < job->options.size; at += strlen(job->options.data + at) + 1)
        argument[n++] = job->options.data + at;
    const char *const rest[] = {"-o", output, "-x", "c", "-", "-lm", NULL};
    memcpy(argument + n, rest, sizeof rest);
    TRY(jit_run_program((char *const *)argument, folder, &job->source, log, &exit_code));
    if (!exit_code && file_read(output, binary) && binary->size > 0)
        return FLASHINFER_OK;
    if (log->size == 0)
        text_print(log, "%s said nothing, made no library and ended with exit code %d", cc, exit_code);
    return jit_compile_failed(job, log);
}

flashinfer_status jit_compile_cpu(const struct jit_job *job, bool verbose, struct text *binary, struct text *log)
{
    char folder[4096];
    (void)verbose;
    int held = folder_temporary(environment()->temporary_dir, folder, sizeof folder);
    if (held < 0)
        return fail(FLASHINFER_IO, "no file can be made in %s, where kernels are compiled (TMPDIR): %s",
                    environment()->temporary_dir, strerror(errno));
    flashinfer_status status = run_compiler(job, folder, binary, log);
    folder_remove(held, folder);
    return status;
}
