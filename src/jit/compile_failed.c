/* SPDX-License-Identifier: Apache-2.0 */
/* The sentence for what does not compile. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

enum { LOG_BYTES = 8000 }; /* of the compiler's log in a sentence */

/* Keeps the text that did not compile, for its author to look at. */
static bool dump_source(const struct jit_job *job, char *path, size_t size)
{
    const char *why, *cache = jit_cache_folder(&why), *dir = *cache ? cache : environment()->temporary_dir;
    const char *suffix = job->spec->kernel->target == JIT_CUDA ? "cu" : "c";
    snprintf(path, size, "%s/failed-%s.%s", dir, job->file, suffix);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    bool written = file_write(file, job->source.data, job->source.size);
    close(file);
    return written;
}

flashinfer_status jit_compile_failed(const struct jit_job *job, const struct text *log)
{
    char path[4096], kernel[1024];
    bool kept = dump_source(job, path, sizeof path);
    int length = log->size < LOG_BYTES ? (int)log->size : LOG_BYTES;
    while (length > 0 && (log->data[length - 1] == '\n' || log->data[length - 1] == 0))
        length--;
    return fail(FLASHINFER_COMPILE, "kernel %s does not compile; its source is %s:\n%.*s%s",
                jit_describe(job->spec, job->device, kernel, sizeof kernel), kept ? path : "not kept", length,
                log->data ? log->data : "", log->size > LOG_BYTES ? "\n(the log goes on)" : "");
}
