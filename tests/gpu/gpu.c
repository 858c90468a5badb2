/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU of a test. */
#include "tests/gpu/gpu.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "tests/jit/support.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { SKIPPED = 77 }; /* exit status of a child */

static const struct device *enter(void)
{
    const struct device *device;
    MUST(device_get((DLDevice){kDLCUDA, 0}, &device));
    MUST(device_enter(device));
    return device;
}

const struct device *gpu_or_skip(void)
{
    if (!cuda())
        skip();
    return enter();
}

const struct device *gpu_of_child(void)
{
    if (!cuda())
        _exit(SKIPPED);
    return enter();
}

void gpu_child(void (*run)(void))
{
    int status = in_child(run);
    if (status == SKIPPED << 8)
        skip();
    assert_int_equal(status, 0);
}

flashinfer_status gpu_result(int result, const char *what)
{
    return result ? cuda_fail(result, what) : FLASHINFER_OK;
}

cuda_stream gpu_stream(void)
{
    cuda_stream stream;
    DRIVER(cuda()->stream_create(&stream, CUDA_STREAM_NON_BLOCKING));
    return stream;
}

cuda_graph_exec gpu_capture(cuda_stream stream, flashinfer_status (*enqueue)(void *context), void *context)
{
    cuda_graph graph;
    cuda_graph_exec exec;
    DRIVER(cuda()->capture_begin(stream, CUDA_CAPTURE_THREAD_LOCAL));
    MUST(enqueue(context));
    DRIVER(cuda()->capture_end(stream, &graph));
    DRIVER(cuda()->graph_instantiate(&exec, graph, 0));
    DRIVER(cuda()->graph_destroy(graph));
    return exec;
}

void gpu_replay(cuda_graph_exec graph, cuda_stream stream)
{
    DRIVER(cuda()->graph_launch(graph, stream));
    DRIVER(cuda()->stream_synchronize(stream));
}

void *gpu_symbol(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *symbol = library ? dlsym(library, name) : NULL;
    assert_non_null(symbol);
    return symbol;
}
