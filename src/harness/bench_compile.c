/* SPDX-License-Identifier: Apache-2.0 */
/* Times compiling into an empty cache and loading from a full one: two child processes, one after the other,
 * that share a cache folder made for them. Both walk the same specialisations and send what they measured
 * through a pipe. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "harness/bench.h"
#include "harness/specs.h"

enum { MAX_SPECS = 2048, DEFAULT_ARCH = 90 };

struct child {
    int pipe;
    const struct op *op;
    const char *kernel;
    const struct device *device;
    bool imagined;
    struct jit_spec *seen;
    int num_seen;
};

static void send(const struct child *child, const struct bench_compiled *result)
{
    if (write(child->pipe, result, sizeof *result) != (ssize_t)sizeof *result)
        _exit(1);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

/* Of this process and of those that it waited for. */
static double processor_now(void)
{
    struct rusage own, others;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &others);
    return seconds_of(own.ru_utime) + seconds_of(own.ru_stime) + seconds_of(others.ru_utime) + seconds_of(others.ru_stime);
}

static void measure(void *context, const struct op_kernel *row, const char *shape,
                    const struct jit_spec *spec)
{
    struct child *child = context;
    struct bench_compiled result = {.arch = child->device->arch, .load = -1};
    const struct jit_module *module;
    (void)shape;
    if ((child->kernel && strcmp(child->kernel, row->name)) || child->num_seen == MAX_SPECS)
        return;
    for (int i = 0; i < child->num_seen; i++)
        if (!memcmp(&child->seen[i], spec, sizeof *spec))
            return;
    child->seen[child->num_seen++] = *spec;
    snprintf(result.op, sizeof result.op, "%s", child->op->name);
    snprintf(result.row, sizeof result.row, "%s", row->name);
    snprintf(result.kernel, sizeof result.kernel, "%s", spec->kernel->name);
    specs_constants(spec, result.constants, sizeof result.constants);
    double begin = clock_seconds(), processor = processor_now();
    char *log = NULL;
    flashinfer_status status =
        child->imagined ? jit_compile_only(spec, child->device, &log, &result.compile, &result.bytes)
                        : jit_load(spec, child->device, &module);
    if (!child->imagined)
        result.compile = clock_seconds() - begin;
    result.processor = processor_now() - processor;
    free(log);
    if (status)
        snprintf(result.wrong, sizeof result.wrong, "%s", flashinfer_last_error());
    send(child, &result);
}

static void refuse(void *context, const char *shape, const char *sentence)
{
    struct child *child = context;
    struct bench_compiled result = {.arch = child->device->arch, .load = -1};
    snprintf(result.op, sizeof result.op, "%s", child->op->name);
    snprintf(result.wrong, sizeof result.wrong, "%s%s%s", shape ? shape : "", shape ? ": " : "", sentence);
    send(child, &result);
}

/* Never returns. */
static void run_child(const struct bench_compile_options *options, const char *folder, int pipe)
{
    static struct device imagined;
    struct child child = {.pipe = pipe, .kernel = options->kernel, .seen = calloc(MAX_SPECS, sizeof(struct jit_spec))};
    char text[512];
    setenv("FLASHINFER_CACHE_DIR", folder, 1);
    unsetenv("FLASHINFER_DISABLE_JIT");
    flashinfer_status status = device_get((DLDevice){options->on_cuda ? kDLCUDA : kDLCPU, 0}, &child.device);
    if (status && options->on_cuda) {
        status = device_imagine(options->arch ? options->arch : DEFAULT_ARCH, &imagined);
        child.device = &imagined;
        child.imagined = true;
    }
    if (status || !child.seen)
        _exit(1);
    /* Opening the compiler's library is paid once per process, not per kernel. */
    jit_toolchain(options->on_cuda ? JIT_CUDA : JIT_CPU, text, sizeof text);
    for (const struct op *const *op = options->ops; *op; op++) {
        child.op = *op;
        specs_walk(&(struct specs_walk){
            .op = *op, .device = child.device, .context = &child, .found = measure, .failed = refuse});
    }
    _exit(0);
}

/* Reads all that a child sends; returns how many results there are. */
static int gather(int pipe, struct bench_compiled *results)
{
    int count = 0;
    char *at = (char *)results, *end = (char *)(results + MAX_SPECS);
    ssize_t got;
    while (at < end && (got = read(pipe, at, (size_t)(end - at))) > 0)
        at += got;
    count = (int)((at - (char *)results) / (ptrdiff_t)sizeof *results);
    return count;
}

static flashinfer_status spawn(const struct bench_compile_options *options, const char *folder, struct bench_compiled *results,
                               int *count)
{
    int ends[2], exit_code = -1;
    if (pipe(ends))
        return fail(FLASHINFER_IO, "cannot make a pipe");
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run_child(options, folder, ends[1]);
    }
    close(ends[1]);
    *count = pid > 0 ? gather(ends[0], results) : 0;
    close(ends[0]);
    if (pid < 0 || waitpid(pid, &exit_code, 0) != pid || exit_code)
        return fail(FLASHINFER_INTERNAL, "the process that compiles kernels failed");
    return FLASHINFER_OK;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

/* One round: with an empty cache, then from the disk. */
static flashinfer_status run_round(const struct bench_compile_options *options, struct bench_compiled *cold, int *num_cold)
{
    char folder[] = "/tmp/flashinfer-bench-XXXXXX";
    struct bench_compiled *warm = cold + MAX_SPECS;
    int num_warm = 0;
    if (!mkdtemp(folder))
        return fail(FLASHINFER_IO, "cannot make a folder for a cache in /tmp");
    flashinfer_status status = spawn(options, folder, cold, num_cold);
    if (!status && *num_cold && cold[0].bytes == 0)
        status = spawn(options, folder, warm, &num_warm);
    for (int i = 0; i < *num_cold && i < num_warm; i++)
        cold[i].load = warm[i].compile;
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return status;
}

static void keep_least(double *least, double other) { *least = other < *least ? other : *least; }

flashinfer_status bench_compile(const struct bench_compile_options *options,
                                void (*report)(void *context, const struct bench_compiled *result), void *context,
                                int *failures)
{
    struct bench_compiled *least = calloc(4 * MAX_SPECS, sizeof *least), *other = least + 2 * MAX_SPECS;
    int count = 0, others = 0;
    flashinfer_status status = least ? run_round(options, least, &count) : fail(FLASHINFER_MEMORY, "no memory for results");
    for (int round = 1; round < options->rounds && !status; round++) {
        status = run_round(options, other, &others);
        for (int i = 0; i < count && i < others; i++) {
            keep_least(&least[i].compile, other[i].compile);
            keep_least(&least[i].processor, other[i].processor);
            keep_least(&least[i].load, other[i].load);
        }
    }
    for (int i = 0; i < count && !status; i++) {
        *failures += least[i].wrong[0] != 0;
        report(context, &least[i]);
    }
    free(least);
    return status;
}
