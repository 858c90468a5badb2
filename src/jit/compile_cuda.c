/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA kernels: NVRTC, in this process, to machine code for exactly the device's architecture. */
#include <stdlib.h>
#include <string.h>

#include "backend/nvrtc.h"
#include "jit/internal.h"

enum { MAX_OPTIONS = JIT_MAX_CONSTANTS + 8 };

static flashinfer_status nvrtc_fail(const struct nvrtc *nvrtc, int result, const char *what)
{
    flashinfer_status status = result == NVRTC_OUT_OF_MEMORY ? FLASHINFER_MEMORY : FLASHINFER_COMPILE;
    return fail(status, "%s: %s", what, nvrtc->error_string(result));
}

/* Appends what a pair of NVRTC functions gives: the size of something, and the thing. Of text the size counts a last NUL. */
static int take_output(nvrtc_program program, int (*get_size)(nvrtc_program, size_t *), int (*get)(nvrtc_program, char *),
                       struct text *out)
{
    size_t size = 0;
    int result = get_size(program, &size);
    char *place = result == NVRTC_OK ? text_extend(out, size) : NULL;
    return place ? get(program, place) : result == NVRTC_OK ? NVRTC_OUT_OF_MEMORY : result;
}

static flashinfer_status compile(const struct nvrtc *nvrtc, nvrtc_program program, const struct jit_job *job,
                                 bool verbose, struct text *binary, struct text *log)
{
    const char *options[MAX_OPTIONS];
    int n = 0;
    for (size_t at = 0; at < job->options.size; at += strlen(job->options.data + at) + 1)
        options[n++] = job->options.data + at;
    if (verbose) {
        options[n++] = "--ptxas-options=-v";
        options[n++] = "--ptxas-options=--warn-on-spills";
    }
    int result = nvrtc->compile(program, n, options);
    if (result == NVRTC_OUT_OF_MEMORY || take_output(program, nvrtc->log_size, nvrtc->log, log) == NVRTC_OUT_OF_MEMORY)
        return nvrtc_fail(nvrtc, NVRTC_OUT_OF_MEMORY, "NVRTC");
    while (log->size > 0 && log->data[log->size - 1] == 0)
        log->size--;
    if (result != NVRTC_OK) {
        if (result != NVRTC_COMPILATION)
            text_print(log, "%s\n", nvrtc->error_string(result));
        return jit_compile_failed(job, log);
    }
    result = take_output(program, nvrtc->cubin_size, nvrtc->cubin, binary);
    return result ? nvrtc_fail(nvrtc, result, "nvrtcGetCUBIN") : FLASHINFER_OK;
}

flashinfer_status jit_compile_cuda(const struct jit_job *job, bool verbose, struct text *binary, struct text *log)
{
    const struct nvrtc *nvrtc;
    nvrtc_program program;
    TRY(nvrtc_get(&nvrtc));
    nvrtc_begin();
    int result = nvrtc->create(&program, job->source.data, job->spec->kernel->name, 0, NULL, NULL);
    flashinfer_status status = result == NVRTC_OK ? compile(nvrtc, program, job, verbose, binary, log)
                                                  : nvrtc_fail(nvrtc, result, "nvrtcCreateProgram");
    if (result == NVRTC_OK)
        nvrtc->destroy(&program);
    nvrtc_end();
    return status;
}
