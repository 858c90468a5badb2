/* SPDX-License-Identifier: Apache-2.0 */
/* What a device can copy: a GPU once; a CPU, whose neighbours come and go, also in turn with what is measured. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda.h"
#include "core/threads.h"
#include "harness/bench.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { COPY_SAMPLES = 9, COPY_PARTS = 64 };
#define GPU_COPY_BYTES (UINT64_C(1) << 30)
#define CPU_COPY_BYTES (UINT64_C(1) << 27)

static flashinfer_status time_gpu_copy(const struct device *device, double *seconds)
{
    const struct cuda *driver;
    void *from = NULL, *to = NULL;
    cuda_event begin = NULL, end = NULL;
    double samples[COPY_SAMPLES];
    TRY(cuda_get(&driver));
    TRY(device_alloc(device, GPU_COPY_BYTES, &from));
    flashinfer_status status = device_alloc(device, GPU_COPY_BYTES, &to);
    int result = status ? 0
                        : driver->event_create(&begin, CUDA_EVENT_DEFAULT) |
                              driver->event_create(&end, CUDA_EVENT_DEFAULT);
    for (int i = -1; i < COPY_SAMPLES && !status && !result; i++) {
        float milliseconds = 0;
        result |= driver->event_record(begin, NULL);
        result |= driver->copy_async((cuda_pointer)(uintptr_t)to, (cuda_pointer)(uintptr_t)from,
                                     GPU_COPY_BYTES, NULL);
        result |= driver->event_record(end, NULL) | driver->event_synchronize(end) |
                  driver->event_elapsed(&milliseconds, begin, end);
        if (i >= 0)
            samples[i] = milliseconds * 1e-3;
    }
    *seconds = status || result ? 0 : bench_percentile(samples, COPY_SAMPLES, 50);
    if (begin)
        driver->event_destroy(begin);
    if (end)
        driver->event_destroy(end);
    device_free(device, from);
    device_free(device, to);
    return status;
}

struct host_copy {
    unsigned char *to, *from;
    bool streams; /* past the caches, which spares reading what is overwritten */
};

static void copy_part(void *context, int part)
{
    const struct host_copy *copy = context;
    size_t bytes = CPU_COPY_BYTES / COPY_PARTS, at = (size_t)part * bytes;
#ifdef __SSE2__
    for (size_t i = at; copy->streams && i < at + bytes; i += 16)
        _mm_stream_si128((__m128i *)(copy->to + i), _mm_load_si128((const __m128i *)(copy->from + i)));
    if (copy->streams) {
        _mm_sfence();
        return;
    }
#endif
    memcpy(copy->to + at, copy->from + at, bytes);
}

/* As much memory as no cache holds is copied in turn. */
void bench_copy(const struct device *device, struct bench_copies *copies)
{
    static unsigned char *to;
    static size_t turn;
    size_t turns = 1 + (size_t)device->l2_bytes / CPU_COPY_BYTES, bytes = turns * CPU_COPY_BYTES;
    if (!to && (to = aligned_alloc(64, 2 * bytes)))
        memset(to, 1, 2 * bytes); /* pages that nobody has written are one page of zeros */
    if (!to || copies->count == BENCH_COPIES)
        return;
    for (int form = 0; form < 2; form++, turn++) {
        size_t at = turn % turns * CPU_COPY_BYTES;
        struct host_copy copy = {to + at, to + bytes + at, form == 1};
        double begin = bench_cpu_now();
        threads_run(copy_part, &copy, COPY_PARTS, 0);
        copies->seconds[form][copies->count] = bench_cpu_now() - begin;
    }
    copies->count++;
}

double bench_copied(struct bench_copies *copies)
{
    if (copies->count == 0)
        return -1;
    double plain = bench_percentile(copies->seconds[0], copies->count, 50),
           streamed = bench_percentile(copies->seconds[1], copies->count, 50);
    return 2.0 * (double)CPU_COPY_BYTES / (plain < streamed ? plain : streamed);
}

double bench_ceiling(const struct device *device)
{
    static double ceilings[2];
    bool cuda = device_is_cuda(device);
    if (ceilings[cuda] == 0 && cuda) {
        double seconds = 0;
        if (time_gpu_copy(device, &seconds))
            seconds = 0;
        ceilings[cuda] = seconds > 0 ? 2.0 * (double)GPU_COPY_BYTES / seconds : -1;
    } else if (ceilings[cuda] == 0) {
        struct bench_copies copies = {0};
        for (int i = 0; i < COPY_SAMPLES; i++)
            bench_copy(device, &copies);
        ceilings[cuda] = bench_copied(&copies);
    }
    return ceilings[cuda];
}
