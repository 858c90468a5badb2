/* SPDX-License-Identifier: Apache-2.0 */
/* Errors that are not of the call at hand: a device without memory while a kernel is loaded, a kernel before it that failed. Each
 * case is a child: a context that reported an error is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/tensor.h"
#include "tests/gpu/gpu.h"
#include "tests/jit/support.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { ROWS = 4, HIDDEN = 256 };

static DLTensor row(const struct device *device, cuda_pointer memory)
{
    static int64_t shape[1] = {HIDDEN};
    return (DLTensor){
        .data = (void *)(uintptr_t)memory, .device = device->id, .ndim = 1, .dtype = dtype_dlpack(DTYPE_F16), .shape = shape};
}

static flashinfer_status norm(const struct device *device, cuda_pointer memory)
{
    int64_t shape[2] = {ROWS, HIDDEN};
    DLTensor x = {
        .data = (void *)(uintptr_t)memory, .device = device->id, .ndim = 2, .dtype = dtype_dlpack(DTYPE_F16), .shape = shape};
    DLTensor weight = x;
    weight.ndim = 1;
    weight.shape = shape + 1;
    weight.data = (char *)x.data + ROWS * HIDDEN * 2;
    const flashinfer_exec exec = {.size = sizeof exec};
    return FLASHINFER(rmsnorm, &exec, .out = &x, .input = &x, .weight = &weight);
}

static cuda_pointer allocate(void)
{
    cuda_pointer memory;
    CHECK(!cuda()->memory_alloc(&memory, (ROWS + 1) * HIDDEN * 2));
    return memory;
}

/* A kernel with a large constant array needs as much device memory when it is loaded. */
static void lacks_memory(void)
{
    static const struct flashinfer_kernel_source source = {
        .size = sizeof source,
        .name = "large",
        .cuda = "#include \"arguments.h\"\n"
                "__device__ unsigned char table[1 << 28];\n"
                "struct args { struct tensor x; };\n"
                "extern \"C\" __global__ void large(const __grid_constant__ struct args a)\n"
                "{ table[threadIdx.x] = a.x.shape[0]; }\n",
    };
    const struct device *device = gpu_of_child();
    cuda_pointer memory = allocate(), hoard[4096];
    int pieces = 0;
    flashinfer_kernel *kernel;
    const DLTensor x = row(device, memory), *tensors[] = {&x};
    const struct flashinfer_kernel_launch launch = {
        .size = sizeof launch, .num_tensors = 1, .tensors = tensors, .grid = {1}, .block = {32}};
    const flashinfer_exec exec = {.size = sizeof exec};
    CHECK(norm(device, memory) == FLASHINFER_OK);
    CHECK(flashinfer_kernel_create(&source, &kernel) == FLASHINFER_OK);
    for (size_t bytes = (size_t)1 << 36; bytes >= (size_t)1 << 21; bytes /= 2)
        while (pieces < 4096 && !cuda()->memory_alloc(&hoard[pieces], bytes))
            pieces++;
    for (int i = 0; i < 2; i++) /* not remembered as a failure of the kernel */
        CHECK_FAILS(flashinfer_kernel_launch(kernel, &launch, &exec), FLASHINFER_MEMORY, "kernel large");
    CHECK(norm(device, memory) == FLASHINFER_OK);
    while (pieces > 0)
        CHECK(!cuda()->memory_free(hoard[--pieces]));
    CHECK(flashinfer_kernel_launch(kernel, &launch, &exec) == FLASHINFER_OK);
    CHECK(!cuda()->context_synchronize());
    flashinfer_kernel_destroy(kernel);
}

static void test_no_memory(void **state)
{
    (void)state;
    gpu_child(lacks_memory);
}

static void fails_before(void)
{
    static const struct flashinfer_kernel_source source = {
        .size = sizeof source,
        .name = "stray",
        .cuda = "#include \"arguments.h\"\n"
                "struct args { struct tensor x; union number address; };\n"
                "extern \"C\" __global__ void stray(const __grid_constant__ struct args a)\n"
                "{ *(volatile int *)a.address.i = 1; }\n",
    };
    const struct device *device = gpu_of_child();
    cuda_pointer memory = allocate();
    flashinfer_kernel *kernel;
    const flashinfer_number nowhere = FLASHINFER_INT(16);
    const DLTensor x = row(device, memory), *tensors[] = {&x};
    const struct flashinfer_kernel_launch launch = {.size = sizeof launch,
                                                    .num_tensors = 1,
                                                    .tensors = tensors,
                                                    .num_numbers = 1,
                                                    .numbers = &nowhere,
                                                    .grid = {1},
                                                    .block = {1}};
    const flashinfer_exec exec = {.size = sizeof exec};
    CHECK(norm(device, memory) == FLASHINFER_OK);
    CHECK(flashinfer_kernel_create(&source, &kernel) == FLASHINFER_OK);
    CHECK(flashinfer_kernel_launch(kernel, &launch, &exec) == FLASHINFER_OK);
    CHECK(cuda()->context_synchronize() == CUDA_ILLEGAL_ADDRESS);
    CHECK_FAILS(norm(device, memory), FLASHINFER_DEVICE, "launch of kernel norm");
    CHECK(strstr(flashinfer_last_error(), "an error of earlier work, not of this call: CUDA_ERROR_ILLEGAL_ADDRESS"));
}

static void test_earlier_error(void **state)
{
    (void)state;
    gpu_child(fails_before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_memory, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_earlier_error, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
