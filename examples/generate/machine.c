/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, stream and graphs on a CPU or, through the CUDA driver opened with dlopen, on a GPU. */
#include "machine.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The driver functions this example calls, with the names they have in libcuda. */
#define DRIVER(X)                                                               \
    X(cuInit, (unsigned))                                                       \
    X(cuDeviceGet, (int *, int))                                                \
    X(cuDeviceGetName, (char *, int, int))                                      \
    X(cuDevicePrimaryCtxRetain, (void **, int))                                 \
    X(cuCtxSetCurrent, (void *))                                                \
    X(cuStreamCreate, (void **, unsigned))                                      \
    X(cuStreamSynchronize, (void *))                                            \
    X(cuMemAlloc_v2, (unsigned long long *, size_t))                            \
    X(cuMemsetD8Async, (unsigned long long, unsigned char, size_t, void *))     \
    X(cuMemcpyHtoDAsync_v2, (unsigned long long, const void *, size_t, void *)) \
    X(cuMemcpyDtoHAsync_v2, (void *, unsigned long long, size_t, void *))       \
    X(cuStreamBeginCapture_v2, (void *, int))                                   \
    X(cuStreamEndCapture, (void *, void **))                                    \
    X(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long))       \
    X(cuGraphLaunch, (void *, void *))                                          \
    X(cuGetErrorString, (int, const char **))

static struct {
#define DRIVER_FIELD(name, types) int(*name) types;
    DRIVER(DRIVER_FIELD)
} driver;

static char error_text[256];

const char *machine_error(void)
{
    return error_text;
}

static bool ok(int result, const char *what)
{
    if (result == 0)
        return true;
    const char *text = NULL;
    driver.cuGetErrorString(result, &text);
    snprintf(error_text, sizeof error_text, "%s: %s", what, text ? text : "unknown error");
    return false;
}

static bool open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(error_text, sizeof error_text, "there is no CUDA driver: %.180s", dlerror());
        return false;
    }
#define DRIVER_LOAD(name, types)                                                                 \
    *(void **)&driver.name = dlsym(library, #name);                                              \
    if (!driver.name) {                                                                          \
        snprintf(error_text, sizeof error_text, "the CUDA driver is too old: it has no " #name); \
        return false;                                                                            \
    }
    DRIVER(DRIVER_LOAD)
    return true;
}

static bool open_gpu(struct machine *machine)
{
    int device;
    void *context;
    char name[96] = "";
    if (!open_driver() || !ok(driver.cuInit(0), "the CUDA driver does not start") ||
        !ok(driver.cuDeviceGet(&device, 0), "there is no GPU") ||
        !ok(driver.cuDeviceGetName(name, sizeof name, device), "GPU name") ||
        !ok(driver.cuDevicePrimaryCtxRetain(&context, device), "GPU context") ||
        !ok(driver.cuCtxSetCurrent(context), "GPU context") || !ok(driver.cuStreamCreate(&machine->stream, 1), "GPU stream"))
        return false;
    machine->device = (DLDevice){kDLCUDA, 0};
    snprintf(machine->name, sizeof machine->name, "%s", name);
    return true;
}

static void open_cpu(struct machine *machine)
{
    machine->device = (DLDevice){kDLCPU, 0};
    snprintf(machine->name, sizeof machine->name, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "model name : %127[^\n]", machine->name) == 1)
            break;
    if (file)
        fclose(file);
}

bool machine_open(struct machine *machine, const char *name, char *error, size_t error_size)
{
    *machine = (struct machine){0};
    if (strcmp(name, "cpu") != 0) {
        if (open_gpu(machine))
            return true;
        if (strcmp(name, "cuda") == 0) {
            snprintf(error, error_size, "--device cuda: %s", error_text);
            return false;
        }
    }
    open_cpu(machine);
    return true;
}

bool machine_is_gpu(const struct machine *machine)
{
    return machine->device.device_type == kDLCUDA;
}

void *machine_alloc(struct machine *machine, size_t bytes)
{
    bytes = (bytes + 255) / 256 * 256;
    if (machine_is_gpu(machine)) {
        unsigned long long address;
        if (!ok(driver.cuMemAlloc_v2(&address, bytes), "GPU memory") ||
            !ok(driver.cuMemsetD8Async(address, 0, bytes, machine->stream), "GPU memory"))
            return NULL;
        return (void *)(size_t)address;
    }
    void *memory = aligned_alloc(256, bytes);
    if (memory)
        memset(memory, 0, bytes);
    else
        snprintf(error_text, sizeof error_text, "no memory for %zu bytes", bytes);
    return memory;
}

bool machine_upload(struct machine *machine, void *to, const void *from, size_t bytes)
{
    if (machine_is_gpu(machine)) /* from pageable memory the driver copies to its own staging before it returns */
        return ok(driver.cuMemcpyHtoDAsync_v2((size_t)to, from, bytes, machine->stream), "copy to the GPU");
    memcpy(to, from, bytes);
    return true;
}

bool machine_download(struct machine *machine, void *to, const void *from, size_t bytes)
{
    if (machine_is_gpu(machine))
        return ok(driver.cuMemcpyDtoHAsync_v2(to, (size_t)from, bytes, machine->stream), "copy from the GPU") &&
               machine_finish(machine);
    memcpy(to, from, bytes);
    return true;
}

bool machine_finish(struct machine *machine)
{
    return !machine_is_gpu(machine) || ok(driver.cuStreamSynchronize(machine->stream), "GPU");
}

bool machine_record(struct machine *machine)
{
    return ok(driver.cuStreamBeginCapture_v2(machine->stream, 2), "begin of capture");
}

machine_graph *machine_record_end(struct machine *machine)
{
    void *graph = NULL, *executable = NULL;
    if (!ok(driver.cuStreamEndCapture(machine->stream, &graph), "end of capture") ||
        !ok(driver.cuGraphInstantiateWithFlags(&executable, graph, 0), "instantiation of the graph"))
        return NULL;
    return executable;
}

bool machine_replay(struct machine *machine, machine_graph *graph)
{
    return ok(driver.cuGraphLaunch(graph, machine->stream), "launch of the graph");
}
