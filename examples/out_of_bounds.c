/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel with a mistake, to be found with a debugger as docs/debugging.md shows: it writes one element too many.
 *   usage: out_of_bounds cpu|cuda */
#include <dlfcn.h>
#include <flashinfer/jit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tells compilers that the text begins in this line of this file, so that debuggers show the kernel where it stands. */
#define TEXT_OF(line) #line
#define STANDS_IN_LINE(line) "#line " TEXT_OF(line) " \"" __FILE__ "\"\n"

enum { N = 1000 };

static const char cpu_text[] =
    STANDS_IN_LINE(__LINE__) "#include \"arguments.h\"\n"
                       "struct args { struct tensor out; };\n"
                       "void out_of_bounds(const struct args *a, int part, int parts)\n"
                       "{\n"
                       "    int64_t n = a->out.shape[0], begin = n * part / parts, end = n * (part + 1) / parts;\n"
                       "    for (int64_t i = begin; i <= end; i++)\n"
                       "        ((float *)a->out.data)[i] = (float)i;\n"
                       "}\n";

static const char cuda_text[] =
    STANDS_IN_LINE(__LINE__) "#include \"arguments.h\"\n"
                       "struct args { struct tensor out; };\n"
                       "extern \"C\" __global__ void out_of_bounds(const __grid_constant__ struct args a)\n"
                       "{\n"
                       "    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;\n"
                       "    if (i <= a.out.shape[0])\n"
                       "        ((float *)a.out.data)[i] = (float)i;\n"
                       "}\n";

/* The driver's functions that a program with device memory calls; a program with the toolkit links them instead. */
static void *function(const char *name)
{
    static void *driver;
    if (!driver)
        driver = dlopen("libcuda.so.1", RTLD_NOW);
    return driver ? dlsym(driver, name) : NULL;
}

static void must(int result, const char *what)
{
    if (result) {
        fprintf(stderr, "%s: CUDA error %d\n", what, result);
        exit(1);
    }
}

#define DRIVER(name, types, ...)                    \
    do {                                            \
        int(*call) types;                           \
        void *found = function(#name);              \
        memcpy(&call, &found, sizeof call);         \
        must(found ? call(__VA_ARGS__) : 3, #name); \
    } while (0)

static void *device_memory(size_t bytes)
{
    void *context;
    unsigned long long address = 0;
    DRIVER(cuInit, (unsigned), 0);
    DRIVER(cuDevicePrimaryCtxRetain, (void **, int), &context, 0);
    DRIVER(cuCtxSetCurrent, (void *), context);
    DRIVER(cuMemAlloc_v2, (unsigned long long *, size_t), &address, bytes);
    return (void *)(uintptr_t)address;
}

int main(int argc, char **argv)
{
    if (argc != 2 || (strcmp(argv[1], "cpu") && strcmp(argv[1], "cuda"))) {
        fprintf(stderr, "usage: out_of_bounds cpu|cuda\n");
        return 2;
    }
    int on_gpu = !strcmp(argv[1], "cuda");
    int64_t shape[1] = {N};
    DLTensor out = {.data = on_gpu ? device_memory(N * sizeof(float)) : malloc(N * sizeof(float)),
                    .device = {on_gpu ? kDLCUDA : kDLCPU, 0},
                    .ndim = 1,
                    .dtype = {kDLFloat, 32, 1},
                    .shape = shape};
    const DLTensor *tensors[] = {&out};
    const struct flashinfer_kernel_source source = {
        .size = sizeof source, .name = "out_of_bounds", .cuda = cuda_text, .cpu = cpu_text};
    const struct flashinfer_kernel_launch launch = {
        .size = sizeof launch, .tensors = tensors, .num_tensors = 1, .grid = {on_gpu ? (N + 256) / 256 : 2}, .block = {256}};
    flashinfer_kernel *kernel;
    if (flashinfer_kernel_create(&source, &kernel) || flashinfer_kernel_launch(kernel, &launch, NULL)) {
        fprintf(stderr, "%s\n", flashinfer_last_error());
        return 1;
    }
    if (on_gpu)
        DRIVER(cuCtxSynchronize, (void), );
    else
        free(out.data);
    flashinfer_kernel_destroy(kernel);
    return 0;
}
