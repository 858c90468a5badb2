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
#include "core/cpu_features.h"
#include "core/threads.h"

enum { MAX_GPUS = 64 };

const int32_t device_archs[] = {80, 86, 89, 90, 100, 103, 110, 120, 121, 0};

/* One typical product of each architecture. */
static const struct product {
    int32_t arch;
    const char *isa, *name;
    int32_t sms, smem_block, smem_sm, l2_mib;
} products[] = {
    {80, "sm_80", "A100", 108, 163 * 1024, 164 * 1024, 40},
    {86, "sm_86", "A40", 84, 99 * 1024, 100 * 1024, 6},
    {89, "sm_89", "L40S", 142, 99 * 1024, 100 * 1024, 96},
    {90, "sm_90a", "H200", 132, 227 * 1024, 228 * 1024, 60},
    {100, "sm_100a", "B200", 148, 227 * 1024, 228 * 1024, 126},
    {103, "sm_103a", "B300", 148, 227 * 1024, 228 * 1024, 126},
    {110, "sm_110a", "Thor", 20, 227 * 1024, 228 * 1024, 32},
    {120, "sm_120a", "RTX PRO 6000", 188, 99 * 1024, 100 * 1024, 128},
    {121, "sm_121a", "GB10", 48, 99 * 1024, 100 * 1024, 24},
};

static struct device cpu, gpu[MAX_GPUS];
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t gpu_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool gpu_known[MAX_GPUS];

static const struct product *product_of(int32_t arch)
{
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        if (products[i].arch == arch)
            return &products[i];
    return NULL;
}

const char *device_arch_name(int32_t arch)
{
    const struct product *product = product_of(arch);
    return product ? product->isa : NULL;
}

/* "90", "9.0", "sm_90a": what stands for an architecture, and how long it is. 0: nothing does. */
static int32_t read_arch(const char *text, size_t *length)
{
    size_t at = !strncmp(text, "sm_", 3) ? 3 : 0, digits = 0;
    int32_t arch = 0;
    for (; digits < 4 && text[at] >= (digits ? '0' : '1') && text[at] <= '9'; at++, digits++)
        arch = 10 * arch + (text[at] - '0');
    if (digits && digits < 3 && text[at] == '.' && text[at + 1] >= '0' && text[at + 1] <= '9') {
        arch = 10 * arch + (text[at + 1] - '0');
        at += 2;
    }
    at += digits && (text[at] == 'a' || text[at] == 'f');
    *length = at;
    return text[at] && !strchr(", ;", text[at]) ? 0 : arch;
}

const char *device_parse_archs(const char *text, int32_t *archs, int most)
{
    int count = 0;
    for (text += strspn(text, ", ;"); *text; text += strspn(text, ", ;")) {
        size_t length;
        int32_t arch = read_arch(text, &length);
        if (!product_of(arch))
            return "must be of 80, 86, 89, 90, 100, 103, 110, 120 and 121, with commas or spaces between; 9.0 and sm_90a mean 90";
        bool known = false;
        for (int i = 0; i < count; i++)
            known |= archs[i] == arch;
        if (count == most)
            return "names too many architectures";
        if (!known)
            archs[count++] = arch;
        text += length;
    }
    archs[count] = 0;
    return count ? NULL : "names no architecture";
}

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
    if (!device_arch_name(d.arch))
        return unknown_arch(d.name, d.arch);
    snprintf(d.isa, sizeof d.isa, "%s", device_arch_name(d.arch));

    cuda_context context;
    CUDA_TRY(driver->primary_retain(&context, device), "cuDevicePrimaryCtxRetain");
    d.context = context;
    *out = d;
    return FLASHINFER_OK;
}

flashinfer_status device_get(DLDevice id, const struct device **out)
{
    if (id.device_type == kDLCPU || id.device_type == kDLCUDAHost) {
        pthread_once(&cpu_once, describe_cpu);
        *out = &cpu;
        return FLASHINFER_OK;
    }
    if (id.device_type != kDLCUDA && id.device_type != kDLCUDAManaged)
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

flashinfer_status device_imagine(int32_t arch, struct device *out)
{
    const struct product *product = product_of(arch);
    if (!product)
        return unknown_arch("the imagined device", arch);
    *out = (struct device){.id = {kDLCUDA, 0}, .arch = arch, .sms = product->sms, .smem_block = product->smem_block,
                           .smem_sm = product->smem_sm, .l2_bytes = (int64_t)product->l2_mib << 20};
    snprintf(out->name, sizeof out->name, "%s (imagined)", product->name);
    snprintf(out->isa, sizeof out->isa, "%s", product->isa);
    return FLASHINFER_OK;
}
