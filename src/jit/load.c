/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled kernels become callable: a shared object through the dynamic loader, a cubin through the
 * driver. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda.h"
#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

/* The loader takes a file only. One that is in no cache lives just until it is mapped, and is open until then: its lock says
 * that it is not abandoned. */
static flashinfer_status load_temporary(const char *name, const struct text *binary, void **library)
{
    char path[4096];
    int file = file_temporary(environment()->temporary_dir, path, sizeof path);
    bool written = file >= 0 && file_write(file, binary->data, binary->size);
    int error = errno;
    *library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (file >= 0) {
        unlink(path);
        close(file);
    }
    if (!written)
        return fail(FLASHINFER_IO, "kernel %s cannot be written to %s (TMPDIR) to be loaded: %s", name,
                    environment()->temporary_dir, strerror(error));
    return *library ? FLASHINFER_OK
                    : fail(FLASHINFER_LOAD, "kernel %s cannot be loaded: %s (the cache, or TMPDIR, must not be mounted noexec)",
                           name, dlerror());
}

static flashinfer_status load_cpu(const struct jit_job *job, const struct text *binary, const char *path,
                                  struct jit_code *code)
{
    const char *name = job->spec->kernel->name;
    /* The file may have been removed since it was read, or lie where no code may be run from. */
    void *library = *path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library)
        TRY(load_temporary(name, binary, &library));
    void *entry = dlsym(library, name);
    if (!entry) {
        dlclose(library);
        return fail(FLASHINFER_LOAD, "kernel %s: its source defines no function of this name", name);
    }
    memcpy(&code->entry, &entry, sizeof entry);
    return FLASHINFER_OK;
}

static flashinfer_status load_failed(const struct cuda *driver, int result, const struct jit_job *job)
{
    int version = 0;
    char what[512];
    if (result == CUDA_OUT_OF_MEMORY) {
        snprintf(what, sizeof what, "kernel %s for %s cannot be loaded", job->spec->kernel->name, job->device->isa);
        return cuda_fail(result, what);
    }
    driver->driver_version(&version);
    snprintf(what, sizeof what, "kernel %s for %s cannot be loaded by this driver (CUDA %d.%d; what a newer NVRTC made may "
             "need a newer driver)", job->spec->kernel->name, job->device->isa, version / 1000, version % 1000 / 10);
    return cuda_fail(result, what);
}

/* In the device's primary context, which is current. */
static flashinfer_status find_entry(const struct cuda *driver, cuda_library library, const struct jit_job *job,
                                    struct jit_code *code)
{
    const char *name = job->spec->kernel->name;
    cuda_kernel kernel;
    cuda_function function;
    cuda_device device;
    int static_bytes = 0;
    int result = driver->library_kernel(&kernel, library, name);
    if (result == CUDA_NOT_FOUND)
        return fail(FLASHINFER_LOAD, "kernel %s: its source defines no extern \"C\" __global__ function of this name", name);
    if (result != CUDA_OK)
        return load_failed(driver, result, job);
    CUDA_TRY(driver->context_device(&device), "cuCtxGetDevice");
    CUDA_TRY(driver->kernel_attribute(&static_bytes, CUDA_SHARED_SIZE_BYTES, kernel, device), "cuKernelGetAttribute");
    CUDA_TRY(driver->kernel_set_attribute(CUDA_MAX_DYNAMIC_SHARED_SIZE_BYTES, job->device->smem_block - static_bytes,
                                          kernel, device), "cuKernelSetAttribute");
    /* Also makes the driver load the code now rather than at the first launch. */
    result = driver->kernel_function(&function, kernel);
    if (result != CUDA_OK)
        return load_failed(driver, result, job);
    code->kernel = kernel;
    code->function = function;
    return FLASHINFER_OK;
}

static flashinfer_status load_cuda(const struct jit_job *job, const struct text *binary, struct jit_code *code)
{
    const struct cuda *driver;
    cuda_library library;
    cuda_context before;
    TRY(cuda_get(&driver));
    if (!job->device->context)
        return fail(FLASHINFER_INVALID, "kernel %s cannot be loaded: its device is only imagined", job->spec->kernel->name);
    CUDA_TRY(driver->context_push(job->device->context), "cuCtxPushCurrent");
    int result = driver->library_load(&library, binary->data, NULL, NULL, 0, NULL, NULL, 0);
    flashinfer_status status = result ? load_failed(driver, result, job) : find_entry(driver, library, job, code);
    if (!result && status)
        driver->library_unload(library);
    driver->context_pop(&before);
    return status;
}

flashinfer_status jit_load_code(const struct jit_job *job, const struct text *binary, const char *path,
                                struct jit_code *code)
{
    return job->spec->kernel->target == JIT_CUDA ? load_cuda(job, binary, code) : load_cpu(job, binary, path, code);
}
