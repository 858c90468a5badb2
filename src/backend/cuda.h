/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA driver, opened with dlopen when it is first asked for. This file stands in for cuda.h, which
 * host code never includes: it declares the part of the driver's ABI that the library uses. Driver 12.0
 * or newer. */
#ifndef BACKEND_CUDA_H
#define BACKEND_CUDA_H

#include "core/status.h"

typedef uint64_t cuda_pointer; /* an address on a device */
typedef int32_t cuda_device;

typedef struct CUctx_st *cuda_context;
typedef struct CUstream_st *cuda_stream;
typedef struct CUevent_st *cuda_event;
typedef struct CUlib_st *cuda_library;
typedef struct CUkern_st *cuda_kernel;
typedef struct CUfunc_st *cuda_function;
typedef struct CUgraph_st *cuda_graph;
typedef struct CUgraphExec_st *cuda_graph_exec;

enum cuda_result {
    CUDA_OK = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_IMAGE = 200,
    CUDA_INVALID_CONTEXT = 201,
    CUDA_NO_BINARY_FOR_GPU = 209,
    CUDA_INVALID_HANDLE = 400,
    CUDA_NOT_FOUND = 500,
    CUDA_ILLEGAL_ADDRESS = 700,
    CUDA_ASSERT = 710,
    CUDA_HARDWARE_STACK_ERROR = 714, /* and up to LAUNCH_FAILED: what else ends a kernel */
    CUDA_LAUNCH_FAILED = 719,
    CUDA_STREAM_CAPTURE_IMPLICIT = 906
};

enum cuda_device_attribute {
    CUDA_MULTIPROCESSOR_COUNT = 16,
    CUDA_L2_CACHE_SIZE = 38,
    CUDA_COMPUTE_CAPABILITY_MAJOR = 75,
    CUDA_COMPUTE_CAPABILITY_MINOR = 76,
    CUDA_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
    CUDA_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
};

enum cuda_function_attribute { CUDA_SHARED_SIZE_BYTES = 1, CUDA_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };

enum cuda_launch_attribute_id {
    CUDA_LAUNCH_COOPERATIVE = 2,
    CUDA_LAUNCH_CLUSTER_DIMENSION = 4,
    CUDA_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION = 6
};

struct cuda_launch_attribute {
    int32_t id; /* cuda_launch_attribute_id */
    int32_t padding;
    union {
        int32_t flag;
        uint32_t dimension[3];
        uint8_t bytes[64];
    } value;
};

struct cuda_launch_config {
    uint32_t grid[3], block[3], shared_bytes;
    cuda_stream stream;
    struct cuda_launch_attribute *attributes;
    uint32_t num_attributes;
};

struct cuda_tensor_map { /* CUtensorMap */
    _Alignas(64) uint64_t word[16];
};

enum { CUDA_STREAM_NON_BLOCKING = 1, CUDA_EVENT_DEFAULT = 0, CUDA_CAPTURE_THREAD_LOCAL = 1, CUDA_CAPTURE_RELAXED = 2 };

/* Every function of the driver that is used: field, symbol (with the version suffix that cuda.h would add),
 * parameters. */
#define CUDA_FUNCTIONS(X)                                                                                           \
    X(init, cuInit, (unsigned flags))                                                                               \
    X(driver_version, cuDriverGetVersion, (int *version))                                                           \
    X(error_name, cuGetErrorName, (int result, const char **name))                                                  \
    X(error_string, cuGetErrorString, (int result, const char **text))                                              \
    X(device_count, cuDeviceGetCount, (int *count))                                                                 \
    X(device_get, cuDeviceGet, (cuda_device *device, int ordinal))                                                  \
    X(device_name, cuDeviceGetName, (char *name, int size, cuda_device device))                                     \
    X(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, cuda_device device))                      \
    X(device_total_memory, cuDeviceTotalMem_v2, (size_t *bytes, cuda_device device))                                \
    X(primary_retain, cuDevicePrimaryCtxRetain, (cuda_context *context, cuda_device device))                        \
    X(primary_release, cuDevicePrimaryCtxRelease_v2, (cuda_device device))                                          \
    X(context_current, cuCtxGetCurrent, (cuda_context *context))                                                    \
    X(context_set, cuCtxSetCurrent, (cuda_context context))                                                         \
    X(context_push, cuCtxPushCurrent_v2, (cuda_context context))                                                    \
    X(context_pop, cuCtxPopCurrent_v2, (cuda_context *context))                                                     \
    X(context_device, cuCtxGetDevice, (cuda_device *device))                                                        \
    X(context_synchronize, cuCtxSynchronize, (void))                                                                \
    X(stream_create, cuStreamCreate, (cuda_stream *stream, unsigned flags))                                         \
    X(stream_destroy, cuStreamDestroy_v2, (cuda_stream stream))                                                     \
    X(stream_synchronize, cuStreamSynchronize, (cuda_stream stream))                                                \
    X(stream_wait_event, cuStreamWaitEvent, (cuda_stream stream, cuda_event event, unsigned flags))                 \
    X(stream_context, cuStreamGetCtx, (cuda_stream stream, cuda_context *context))                                  \
    X(stream_is_capturing, cuStreamIsCapturing, (cuda_stream stream, int *capturing))                               \
    X(capture_begin, cuStreamBeginCapture_v2, (cuda_stream stream, int mode))                                       \
    X(capture_end, cuStreamEndCapture, (cuda_stream stream, cuda_graph *graph))                                     \
    X(graph_instantiate, cuGraphInstantiateWithFlags,                                                               \
      (cuda_graph_exec *exec, cuda_graph graph, unsigned long long flags))                                          \
    X(graph_launch, cuGraphLaunch, (cuda_graph_exec exec, cuda_stream stream))                                      \
    X(graph_exec_destroy, cuGraphExecDestroy, (cuda_graph_exec exec))                                               \
    X(graph_destroy, cuGraphDestroy, (cuda_graph graph))                                                            \
    X(event_create, cuEventCreate, (cuda_event *event, unsigned flags))                                             \
    X(event_record, cuEventRecord, (cuda_event event, cuda_stream stream))                                          \
    X(event_query, cuEventQuery, (cuda_event event))                                                                \
    X(event_synchronize, cuEventSynchronize, (cuda_event event))                                                    \
    X(event_elapsed, cuEventElapsedTime, (float *milliseconds, cuda_event begin, cuda_event end))                   \
    X(event_destroy, cuEventDestroy_v2, (cuda_event event))                                                         \
    X(memory_info, cuMemGetInfo_v2, (size_t *free_bytes, size_t *total_bytes))                                      \
    X(memory_alloc, cuMemAlloc_v2, (cuda_pointer *pointer, size_t bytes))                                           \
    X(memory_free, cuMemFree_v2, (cuda_pointer pointer))                                                            \
    X(host_alloc, cuMemAllocHost_v2, (void **pointer, size_t bytes))                                                \
    X(host_free, cuMemFreeHost, (void *pointer))                                                                    \
    X(copy, cuMemcpy, (cuda_pointer to, cuda_pointer from, size_t bytes))                                           \
    X(copy_async, cuMemcpyAsync, (cuda_pointer to, cuda_pointer from, size_t bytes, cuda_stream stream))            \
    X(copy_to_device, cuMemcpyHtoD_v2, (cuda_pointer to, const void *from, size_t bytes))                           \
    X(copy_to_host, cuMemcpyDtoH_v2, (void *to, cuda_pointer from, size_t bytes))                                   \
    X(copy_to_device_async, cuMemcpyHtoDAsync_v2,                                                                   \
      (cuda_pointer to, const void *from, size_t bytes, cuda_stream stream))                                        \
    X(copy_to_host_async, cuMemcpyDtoHAsync_v2, (void *to, cuda_pointer from, size_t bytes, cuda_stream stream))    \
    X(fill_bytes, cuMemsetD8_v2, (cuda_pointer to, unsigned char value, size_t count))                              \
    X(fill_bytes_async, cuMemsetD8Async, (cuda_pointer to, unsigned char value, size_t count, cuda_stream stream))  \
    X(fill_words_async, cuMemsetD32Async, (cuda_pointer to, unsigned value, size_t count, cuda_stream stream))      \
    X(pointer_attribute, cuPointerGetAttribute, (void *value, int attribute, cuda_pointer pointer))                 \
    X(library_load, cuLibraryLoadData,                                                                              \
      (cuda_library *library, const void *code, int *jit_options, void **jit_values, unsigned num_jit_options,      \
       int *library_options, void **library_values, unsigned num_library_options))                                  \
    X(library_unload, cuLibraryUnload, (cuda_library library))                                                      \
    X(library_kernel, cuLibraryGetKernel, (cuda_kernel *kernel, cuda_library library, const char *name))            \
    X(kernel_function, cuKernelGetFunction, (cuda_function *function, cuda_kernel kernel))                          \
    X(kernel_attribute, cuKernelGetAttribute, (int *value, int attribute, cuda_kernel kernel, cuda_device device))  \
    X(kernel_set_attribute, cuKernelSetAttribute, (int attribute, int value, cuda_kernel kernel, cuda_device device)) \
    X(occupancy, cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                       \
      (int *blocks, cuda_function function, int block_threads, size_t shared_bytes))                                \
    X(launch, cuLaunchKernelEx,                                                                                     \
      (const struct cuda_launch_config *config, cuda_function function, void **parameters, void **extra))           \
    X(tensor_map_tiled, cuTensorMapEncodeTiled,                                                                     \
      (struct cuda_tensor_map *map, int type, uint32_t rank, void *address, const uint64_t *dims,                   \
       const uint64_t *byte_strides, const uint32_t *box, const uint32_t *element_strides, int interleave,          \
       int swizzle, int l2_promotion, int out_of_bounds_fill))

struct cuda {
#define CUDA_FIELD(field, symbol, parameters) int(*field) parameters;
    CUDA_FUNCTIONS(CUDA_FIELD)
#undef CUDA_FIELD
};

/* The driver, initialised; NULL if there is none or it has no device. Takes nanoseconds after the first
 * call. */
const struct cuda *cuda(void);

/* The driver, or FLASHINFER_NO_DRIVER with the reason. */
flashinfer_status cuda_get(const struct cuda **out);

/* Turns a result that is not 0 into FLASHINFER_MEMORY, LOAD, NO_DRIVER or DEVICE with the driver's text;
 * `what` names what was attempted: "cuMemAlloc", "launch of rmsnorm". */
flashinfer_status cuda_fail(int result, const char *what);

#define CUDA_TRY(call, what)                     \
    do {                                         \
        int result_ = (call);                    \
        if (result_ != CUDA_OK)                  \
            return cuda_fail(result_, what);     \
    } while (0)

#endif
