/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling for either target, into the cache or not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "jit/internal.h"

flashinfer_status jit_compile(const struct jit_job *job, bool verbose, struct text *binary, struct text *log)
{
    struct jit_watch watch;
    jit_watch_begin(&watch, job);
    flashinfer_status status = job->spec->kernel->target == JIT_CUDA ? jit_compile_cuda(job, verbose, binary, log)
                                                                     : jit_compile_cpu(job, verbose, binary, log);
    jit_watch_end(&watch);
    return status;
}

/* A cubin has a section of code for each entry, named after it. */
static bool has_entry(const struct text *cubin, const char *name)
{
    char section[256];
    int length = snprintf(section, sizeof section, ".text.%s", name) + 1;
    return memmem(cubin->data, cubin->size, section, (size_t)length) != NULL;
}

static flashinfer_status compile_whole(const struct jit_job *job, bool verbose, struct text *binary, struct text *log)
{
    const char *name = job->spec->kernel->name;
    TRY(jit_compile(job, verbose, binary, log));
    if (job->spec->kernel->target == JIT_CUDA && !has_entry(binary, name))
        return fail(FLASHINFER_COMPILE, "%s.cu has no entry named %s: extern \"C\" __global__ void %s(...)", name, name, name);
    return FLASHINFER_OK;
}

static flashinfer_status store(const struct jit_job *job, struct text *binary)
{
    struct text log = {0};
    const char *why, *folder = jit_cache_folder(&why);
    flashinfer_status status = compile_whole(job, false, binary, &log);
    text_free(&log);
    TRY(status);
    if (jit_cache_write(job, binary))
        return FLASHINFER_OK;
    return fail(FLASHINFER_IO, "kernel %s is compiled, but cannot be written into the cache %s: %s", job->spec->kernel->name,
                folder, *why ? why : strerror(errno));
}

flashinfer_status jit_compile_to_cache(const struct jit_spec *spec, const struct device *device, struct jit_stored *out)
{
    struct jit_job job;
    struct text binary = {0};
    const char *why;
    *out = (struct jit_stored){0};
    if (!*jit_cache_folder(&why))
        return fail(FLASHINFER_IO, "there is no cache: %s", why);
    TRY(jit_job_begin(spec, device, &job));
    double begin = clock_seconds();
    out->was_there = jit_cache_read(&job, &binary);
    flashinfer_status status = out->was_there ? FLASHINFER_OK : store(&job, &binary);
    out->seconds = clock_seconds() - begin;
    out->bytes = binary.size;
    text_free(&binary);
    jit_job_end(&job);
    return status;
}

flashinfer_status jit_compile_only(const struct jit_spec *spec, const struct device *device, char **log,
                                   double *seconds, size_t *binary_bytes)
{
    struct jit_job job;
    struct text binary = {0}, messages = {0};
    *log = NULL;
    TRY(jit_job_begin(spec, device, &job));
    double begin = clock_seconds();
    flashinfer_status status = compile_whole(&job, true, &binary, &messages);
    *seconds = clock_seconds() - begin;
    *binary_bytes = binary.size;
    if (messages.size > 0)
        *log = messages.data;
    else
        text_free(&messages);
    text_free(&binary);
    jit_job_end(&job);
    return status;
}
