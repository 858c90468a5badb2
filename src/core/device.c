/* SPDX-License-Identifier: Apache-2.0 */
/* Devices: the CPU, the GPUs that the driver shows, and GPUs that are only imagined. Each is described once,
 * when it is first asked for. */
#include "core/device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda.h"
#include "core/arch.h"
#include "core/cpu_features.h"
#include "core/threads.h"

enum { MAX_GPUS = 64 };

static struct device cpu, gpu[MAX_GPUS];
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t gpu_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool gpu_known[MAX_GPUS];

static flashinfer_status unknown_arch(const char *what, int32_t arch)
{
    return fail(FLASHINFER_UNSUPPORTED,
                "%s has compute capability %d.%d; kernels are compiled for 8.0, 8.6, 8.9, 9.0, 10.0, 10.3, 11.0, "
                "12.0 and 12.1", what, (int)arch / 10, (int)arch % 10);
}

static void describe_cpu(void)
{
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (bytes <= 0)
        bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    cpu.id = (DLDevice){kDLCPU, 0};
    cpu.sms = threads_processors();
    cpu.l2_bytes = bytes > 0 ? bytes : 0;
    cpu_describe(cpu.name, sizeof cpu.name, cpu.isa, sizeof cpu.isa);
}

static flashinfer_status describe_gpu(int ordinal, struct device *out)
{
    const struct cuda *driver;
    TRY(cuda_get(&driver));
    int count = 0, major = 0, minor = 0, l2 = 0;
    CUDA_TRY(driver->device_count(&count), "cuDeviceGetCount");
    if (ordinal < 0 || ordinal >= count)
        return fail(FLASHINFER_INVALID, "device cuda:%d does not exist: this process sees %d", ordinal, count);
    if (ordinal >= MAX_GPUS)
        return fail(FLASHINFER_UNSUPPORTED, "device cuda:%d: at most %d GPUs are handled", ordinal, MAX_GPUS);

    cuda_device device;
    struct device d = {.id = {kDLCUDA, ordinal}};
    CUDA_TRY(driver->device_get(&device, ordinal), "cuDeviceGet");
    CUDA_TRY(driver->device_name(d.name, sizeof d.name, device), "cuDeviceGetName");
    const struct {
        int attribute, *value;
    } wanted[] = {
        {CUDA_COMPUTE_CAPABILITY_MAJOR, &major},
        {CUDA_COMPUTE_CAPABILITY_MINOR, &minor},
        {CUDA_MULTIPROCESSOR_COUNT, &d.sms},
        {CUDA_SHARED_MEMORY_PER_BLOCK_OPTIN, &d.smem_block},
        {CUDA_SHARED_MEMORY_PER_MULTIPROCESSOR, &d.smem_sm},
        {CUDA_L2_CACHE_SIZE, &l2},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CUDA_TRY(driver->device_attribute(wanted[i].value, wanted[i].attribute, device), "cuDeviceGetAttribute");
    d.arch = 10 * major + minor;
    d.l2_bytes = l2;
    const struct arch *arch = arch_find(d.arch);
    if (!arch)
        return unknown_arch(d.name, d.arch);
    snprintf(d.isa, sizeof d.isa, "%s", arch->isa);

    cuda_context context;
    CUDA_TRY(driver->primary_retain(&context, device), "cuDevicePrimaryCtxRetain");
    d.context = context;
    *out = d;
    return FLASHINFER_OK;
}

char *device_text(DLDevice id, char *buffer, size_t size)
{
    DLDevice device = device_canonical(id);
    switch ((int)device.device_type) {
    case kDLCPU:
        snprintf(buffer, size, "cpu");
        break;
    case kDLCUDA:
        snprintf(buffer, size, "cuda:%d", (int)device.device_id);
        break;
    default:
        snprintf(buffer, size, "device type %d", (int)device.device_type);
    }
    return buffer;
}

flashinfer_status device_get(DLDevice id, const struct device **out)
{
    id = device_canonical(id);
    if (id.device_type == kDLCPU) {
        pthread_once(&cpu_once, describe_cpu);
        *out = &cpu;
        return FLASHINFER_OK;
    }
    if (id.device_type != kDLCUDA)
        return fail(FLASHINFER_INVALID, "device type %d: must be kDLCPU (1), kDLCUDA (2), kDLCUDAHost (3) or "
                    "kDLCUDAManaged (13)", (int)id.device_type);
    int i = id.device_id;
    if (i < 0 || i >= MAX_GPUS || !atomic_load_explicit(&gpu_known[i], memory_order_acquire)) {
        struct device found;
        TRY(describe_gpu(i, &found));
        pthread_mutex_lock(&gpu_mutex);
        if (!atomic_load(&gpu_known[i])) {
            gpu[i] = found;
            atomic_store(&gpu_known[i], true);
        }
        pthread_mutex_unlock(&gpu_mutex);
    }
    *out = &gpu[i];
    return FLASHINFER_OK;
}

flashinfer_status device_imagine(int32_t arch_number, struct device *out)
{
    const struct arch *arch = arch_find(arch_number);
    if (!arch)
        return unknown_arch("the imagined device", arch_number);
    *out = (struct device){.id = {kDLCUDA, 0}, .arch = arch_number, .sms = arch->sms, .smem_block = arch->smem_block,
                           .smem_sm = arch->smem_sm, .l2_bytes = (int64_t)arch->l2_mib << 20};
    snprintf(out->name, sizeof out->name, "%s (imagined)", arch->product);
    snprintf(out->isa, sizeof out->isa, "%s", arch->isa);
    return FLASHINFER_OK;
}
