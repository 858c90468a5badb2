/* SPDX-License-Identifier: Apache-2.0 */
/* The clock. A call is timed on enough copies of its tensors, taken in turn, that none is in a cache when its turn comes again;
 * warm, on the same tensors every time. On a GPU the calls are nodes of a graph between two events, so that the host's launches
 * do not count. The ceiling of large calls are copies: on a CPU in turn with them, on a GPU of as many bytes, timed the same
 * way. */
#include "backend/cuda.h"
#include "core/clock.h"
#include "harness/bench.h"
#include "harness/random.h"

enum {
    MAX_COPIES = 200,
    MIN_NODES = 24,
    WARM_NODES = 100,
    LAUNCHES = 15,
    MIN_SAMPLES = 15,
    MAX_SAMPLES = 4000,
    CACHES = 3,
    COPY_UNIT = 4096 /* copies to other addresses take half as long again */
};
#define MAX_COPIED_BYTES 6e9 /* on a GPU */
#define MAX_HOST_BYTES 1e9   /* on a CPU */
#define MIN_SECONDS 0.25     /* of samples on a CPU */
#define LARGE_BYTES 6.4e7    /* calls that move as many on a CPU take turns with a copy */
#define LARGE_GPU_BYTES 1e7  /* calls that move as many on a GPU are followed by a copy */

struct copies {
    struct placement *placement[MAX_COPIES];
    int count;
};

/* What a graph's nodes do: the i-th of `count` things in turn. */
struct work {
    flashinfer_status (*enqueue)(const void *context, int i, void *stream);
    const void *context;
    int count;
};

static void summarise(struct bench_result *result, double *samples, int count)
{
    result->seconds = bench_percentile(samples, count, 50);
    result->fastest = bench_percentile(samples, count, 10);
    result->slowest = bench_percentile(samples, count, 90);
}

/* How many times so many bytes go round a cache. */
static int copies_of(const struct device *device, double bytes)
{
    double most = device_is_cuda(device) ? MAX_COPIED_BYTES : MAX_HOST_BYTES;
    double wanted = CACHES * (double)device->l2_bytes / bytes + 1;
    wanted = wanted > MAX_COPIES ? MAX_COPIES : wanted;
    wanted = wanted * bytes > most ? most / bytes : wanted;
    return wanted < 1 ? 1 : (int)wanted;
}

/* All share the first one's workspace: they run one after the other. */
static flashinfer_status make_copies(struct placement *first, bool warm, struct copies *copies)
{
    int wanted = warm ? 1 : copies_of(first->device, problem_bytes(first->problem) + 1);
    copies->placement[0] = first;
    for (copies->count = 1; copies->count < wanted; copies->count++) {
        struct placement *copy;
        TRY(placement_create(first->problem, first->device, &copy));
        copies->placement[copies->count] = copy;
        copy->exec = first->exec;
    }
    return FLASHINFER_OK;
}

static flashinfer_status call(struct placement *p, void *stream)
{
    p->exec.stream = stream;
    flashinfer_status status = op_call(p->problem->op, p->args, &p->exec);
    p->exec.stream = NULL;
    return status;
}

static flashinfer_status time_on_cpu(const struct copies *copies, struct bench_result *result)
{
    static double samples[MAX_SAMPLES];
    double begin = clock_seconds(), bytes = problem_bytes(copies->placement[0]->problem);
    double (*now)(void) = bytes >= LARGE_BYTES ? bench_cpu_now : clock_seconds;
    struct bench_copies beside = {0};
    int count = 0;
    for (int i = 0; i < copies->count && i < 3; i++)
        TRY(call(copies->placement[i], NULL));
    for (; count < MAX_SAMPLES && (count < MIN_SAMPLES || clock_seconds() - begin < MIN_SECONDS); count++) {
        double start = now();
        TRY(call(copies->placement[count % copies->count], NULL));
        samples[count] = now() - start;
        if (bytes >= LARGE_BYTES)
            bench_copy(copies->placement[0]->device, &beside);
    }
    summarise(result, samples, count);
    if (beside.count > 0)
        result->ceiling = bench_copied(&beside);
    return FLASHINFER_OK;
}

static flashinfer_status capture(const struct cuda *driver, const struct work *work, cuda_stream stream, int nodes,
                                 cuda_graph_exec *out)
{
    cuda_graph graph = NULL;
    flashinfer_status status = FLASHINFER_OK;
    CUDA_TRY(driver->capture_begin(stream, CUDA_CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture");
    for (int i = 0; i < nodes && !status; i++)
        status = work->enqueue(work->context, i % work->count, stream);
    int result = driver->capture_end(stream, &graph);
    TRY(status);
    CUDA_TRY(result, "cuStreamEndCapture");
    result = driver->graph_instantiate(out, graph, 0);
    driver->graph_destroy(graph);
    CUDA_TRY(result, "cuGraphInstantiate");
    return FLASHINFER_OK;
}

static flashinfer_status time_launches(const struct cuda *driver, cuda_graph_exec graph, cuda_stream stream,
                                       cuda_event begin, cuda_event end, int nodes, double samples[LAUNCHES])
{
    for (int i = -2; i < LAUNCHES; i++) {
        float milliseconds;
        CUDA_TRY(driver->event_record(begin, stream), "cuEventRecord");
        CUDA_TRY(driver->graph_launch(graph, stream), "cuGraphLaunch");
        CUDA_TRY(driver->event_record(end, stream), "cuEventRecord");
        CUDA_TRY(driver->event_synchronize(end), "waiting for the kernels");
        CUDA_TRY(driver->event_elapsed(&milliseconds, begin, end), "cuEventElapsedTime");
        if (i >= 0)
            samples[i] = milliseconds * 1e-3 / nodes;
    }
    return FLASHINFER_OK;
}

static flashinfer_status time_on_gpu(const struct work *work, bool warm, double samples[LAUNCHES])
{
    const struct cuda *driver;
    cuda_stream stream = NULL;
    cuda_event begin = NULL, end = NULL;
    cuda_graph_exec graph = NULL;
    int nodes = warm ? WARM_NODES : (MIN_NODES + work->count - 1) / work->count * work->count;
    TRY(cuda_get(&driver));
    CUDA_TRY(driver->stream_create(&stream, CUDA_STREAM_NON_BLOCKING), "cuStreamCreate");
    CUDA_TRY(driver->event_create(&begin, CUDA_EVENT_DEFAULT), "cuEventCreate");
    CUDA_TRY(driver->event_create(&end, CUDA_EVENT_DEFAULT), "cuEventCreate");
    flashinfer_status status = capture(driver, work, stream, nodes, &graph);
    if (!status) {
        status = time_launches(driver, graph, stream, begin, end, nodes, samples);
        driver->graph_exec_destroy(graph);
    }
    driver->event_destroy(begin);
    driver->event_destroy(end);
    driver->stream_destroy(stream);
    return status;
}

static flashinfer_status enqueue_call(const void *context, int i, void *stream)
{
    const struct copies *copies = context;
    return call(copies->placement[i], stream);
}

struct buffers {
    unsigned char *memory;
    size_t half; /* that is read, and again that is written */
};

static flashinfer_status enqueue_copy(const void *context, int i, void *stream)
{
    const struct buffers *buffers = context;
    const struct cuda *driver;
    cuda_pointer from = (cuda_pointer)(uintptr_t)(buffers->memory + (size_t)i * 2 * buffers->half);
    TRY(cuda_get(&driver));
    CUDA_TRY(driver->copy_async(from + buffers->half, from, buffers->half, stream), "cuMemcpyAsync");
    return FLASHINFER_OK;
}

/* Seconds of a copy of random bits that reads and writes so many bytes. */
static flashinfer_status time_gpu_copy(const struct device *device, double bytes, double *seconds)
{
    static uint64_t block[1 << 16];
    struct random random = {.state = 1};
    struct buffers buffers = {.half = (size_t)(bytes / 2) / COPY_UNIT * COPY_UNIT};
    const struct work work = {enqueue_copy, &buffers, copies_of(device, bytes)};
    double samples[LAUNCHES];
    size_t all = 2 * buffers.half * (size_t)work.count;
    for (size_t i = 0; i < sizeof block / sizeof *block; i++)
        block[i] = random_bits(&random);
    TRY(device_alloc(device, all, (void **)&buffers.memory));
    flashinfer_status status = device_upload(device, buffers.memory, block, sizeof block);
    if (!status)
        status = device_repeat(device, buffers.memory, sizeof block, all);
    if (!status)
        status = time_on_gpu(&work, false, samples);
    if (!status)
        *seconds = bench_percentile(samples, LAUNCHES, 50);
    device_free(device, buffers.memory);
    return status;
}

static flashinfer_status time_calls_on_gpu(const struct copies *copies, bool warm, struct bench_result *result)
{
    double samples[LAUNCHES], copied;
    TRY(time_on_gpu(&(struct work){enqueue_call, copies, copies->count}, warm, samples));
    summarise(result, samples, LAUNCHES);
    if (warm || result->bytes < LARGE_GPU_BYTES)
        return FLASHINFER_OK;
    TRY(time_gpu_copy(copies->placement[0]->device, result->bytes, &copied));
    result->ceiling = result->bytes / copied;
    return FLASHINFER_OK;
}

flashinfer_status bench_time(struct placement *placement, bool warm, struct bench_result *result)
{
    struct copies copies;
    flashinfer_status status = make_copies(placement, warm, &copies);
    result->copies = copies.count;
    if (!status)
        status = device_is_cuda(placement->device) ? time_calls_on_gpu(&copies, warm, result) : time_on_cpu(&copies, result);
    for (int i = 1; i < copies.count; i++)
        placement_destroy(copies.placement[i]);
    return status;
}
