/* SPDX-License-Identifier: Apache-2.0 */
/* Opens the CUDA driver once, finds its functions and initialises it. */
#include "backend/cuda.h"

#include <stdbool.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct cuda table;
static const struct cuda *opened;
static char reason[512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
    const char *symbol;
    size_t offset; /* in struct cuda */
} functions[] = {
#define ROW(field, symbol, parameters) {#symbol, offsetof(struct cuda, field)},
    CUDA_FUNCTIONS(ROW)
#undef ROW
};

static const char *result_text(int result, const char **name)
{
    const char *text = NULL;
    *name = NULL;
    if (table.error_name)
        table.error_name(result, name);
    if (table.error_string)
        table.error_string(result, &text);
    if (!*name)
        *name = "an unknown error";
    return text ? text : "no description";
}

static void open_driver(void)
{
    static const char *const names[] = {"libcuda.so.1", "libcuda.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(reason, sizeof reason, "no CUDA driver: libcuda.so.1 and libcuda.so cannot be opened");
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(library, functions[i].symbol);
        if (!address) {
            int version = 0;
            if (table.driver_version)
                table.driver_version(&version);
            snprintf(reason, sizeof reason, "the CUDA driver (%d.%d) is too old: it lacks %s; 12.0 or newer is needed",
                     version / 1000, version % 1000 / 10, functions[i].symbol);
            return;
        }
        memcpy((char *)&table + functions[i].offset, &address, sizeof address);
    }
    int result = table.init(0), devices = 0;
    if (result == CUDA_OK)
        result = table.device_count(&devices);
    if (result == CUDA_OK && devices == 0)
        result = CUDA_NO_DEVICE;
    if (result != CUDA_OK) {
        const char *name, *text = result_text(result, &name);
        snprintf(reason, sizeof reason, "the CUDA driver cannot be used: cuInit: %s (%s)", name, text);
        return;
    }
    opened = &table;
}

const struct cuda *cuda(void)
{
    pthread_once(&once, open_driver);
    return opened;
}

flashinfer_status cuda_get(const struct cuda **out)
{
    *out = cuda();
    return *out ? FLASHINFER_OK : fail(FLASHINFER_NO_DRIVER, "%s", reason);
}

/* What a kernel did wrong while it ran: illegal address and the like. No launch fails with it by its own fault. */
static bool is_of_earlier_work(int result)
{
    return result == CUDA_ILLEGAL_ADDRESS || (result >= CUDA_HARDWARE_STACK_ERROR && result <= CUDA_LAUNCH_FAILED) ||
           result == CUDA_ASSERT;
}

flashinfer_status cuda_fail(int result, const char *what)
{
    const char *name, *text = result_text(result, &name);
    if (is_of_earlier_work(result))
        return fail(FLASHINFER_DEVICE,
                    "%s: the device reports an error of earlier work, not of this call: %s (%s); nothing more runs "
                    "in this CUDA context",
                    what, name, text);
    flashinfer_status status = FLASHINFER_DEVICE;
    switch (result) {
    case CUDA_OUT_OF_MEMORY:
        status = FLASHINFER_MEMORY;
        break;
    case CUDA_NO_DEVICE:
        status = FLASHINFER_NO_DRIVER;
        break;
    case CUDA_INVALID_IMAGE:
    case CUDA_NO_BINARY_FOR_GPU:
    case CUDA_NOT_FOUND:
        status = FLASHINFER_LOAD;
        break;
    default:
        break;
    }
    return fail(status, "%s: %s (%s)", what, name, text);
}
