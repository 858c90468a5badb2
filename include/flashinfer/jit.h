/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of your own: source text in, launched on DLPack tensors, compiled on first use and kept in the same cache as the
 * library's kernels. One text per target; both may include the library's vocabulary ("vec.cuh", "reduce.cuh", ... on CUDA,
 * "vec.h", ... on CPUs) and must include "arguments.h", which declares what they are passed:
 *
 *     struct tensor { void *data; int64_t shape[8], stride[8]; };        // strides in elements
 *     union number { int64_t i; double f; };
 *
 * The text declares `struct args` as a sequence of these, tensors first, in the order of the launch:
 *
 *     #include "arguments.h"
 *     struct args { struct tensor out, input; union number factor; };
 *     extern "C" __global__ void scale(const __grid_constant__ struct args a) { ... }      // CUDA
 *     void scale(const struct args *a, int part, int parts) { ... }                        // CPU, C11
 */
#ifndef FLASHINFER_JIT_H
#define FLASHINFER_JIT_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FLASHINFER_KERNEL_MAX_CONSTANTS = 24, /* of one kernel */
    FLASHINFER_KERNEL_MAX_TENSORS = 16,   /* of one launch */
    FLASHINFER_KERNEL_MAX_NUMBERS = 16
};

typedef struct flashinfer_kernel flashinfer_kernel;

struct flashinfer_kernel_source {
    size_t size;
    const char *name;             /* a C identifier of at most 60 characters: the entry, its name in messages and the cache */
    const char *cuda;             /* CUDA source text; NULL: no kernel for GPUs */
    const char *cpu;              /* C source text; NULL: no kernel for CPUs */
    const char *const *constants; /* names that become -DNAME=value, NULL-terminated; NULL: none */
};

/* Copies the source; compiles nothing yet. The caller destroys the kernel when no launch of it is running; NULL
 * is ignored. */
FLASHINFER_API flashinfer_status flashinfer_kernel_create(const struct flashinfer_kernel_source *source,
                                                          flashinfer_kernel **out);
FLASHINFER_API void flashinfer_kernel_destroy(flashinfer_kernel *kernel);

struct flashinfer_kernel_launch {
    size_t size;
    const DLTensor *const *tensors;   /* at most 8 axes each, all on one device, which is where the kernel runs */
    int32_t num_tensors;              /* 1 to FLASHINFER_KERNEL_MAX_TENSORS */
    int32_t num_numbers;              /* 0 to FLASHINFER_KERNEL_MAX_NUMBERS */
    const flashinfer_number *numbers; /* INT or FLOAT */
    const int32_t *constants;         /* values, as many as the source names */
    uint32_t grid[3];                 /* CUDA: blocks; CPU: grid[0] parts. Zeros count as 1 */
    uint32_t block[3];                /* CUDA: threads of a block */
    uint32_t shared_bytes;            /* CUDA: dynamic shared memory of a block */
};

/* Compiles if need be and launches on exec's stream. flashinfer_kernel_prepare compiles and loads only; data may be NULL. */
FLASHINFER_API flashinfer_status flashinfer_kernel_launch(const flashinfer_kernel *kernel,
                                                          const struct flashinfer_kernel_launch *launch,
                                                          const flashinfer_exec *exec);
FLASHINFER_API flashinfer_status flashinfer_kernel_prepare(const flashinfer_kernel *kernel,
                                                           const struct flashinfer_kernel_launch *launch,
                                                           const flashinfer_exec *exec);

/* A compilation that lasts, of any kernel, the library's or yours. */
struct flashinfer_compile_progress {
    size_t size;
    const char *kernel; /* readable: "norm_sm80 (T=bf16, VEC=8, sm_90a)"; valid during the call */
    double seconds;     /* since the compilation began */
    int32_t position;   /* among the compilations under way in this process, in the order they began; 1: the first */
    int32_t length;     /* how many are under way */
    int32_t finished;   /* 1: it has ended, well or not, and this call is its last */
};

typedef void flashinfer_compile_callback(const struct flashinfer_compile_progress *progress, void *context);

/* Sets the one callback of this process; NULL unsets it. It is called for each compilation that lasts longer than a second:
 * after that second, about every second from then on, and when the compilation ends. Faster ones cause no call. Compilations
 * that are under way when a first callback is set are not told.
 *
 * It runs on threads of the library with all signals blocked, one call at a time; the compilation goes on meanwhile, but does not
 * return before its last call has. It must not call functions of this library. This function returns when no call of
 * the former callback is running, so that its context may then be freed. */
FLASHINFER_API void flashinfer_set_compile_callback(flashinfer_compile_callback *callback, void *context);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_JIT_H */
