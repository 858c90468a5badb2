/* SPDX-License-Identifier: Apache-2.0 */
/* What backend/cuda.h declares of the driver's ABI, held against the toolkit's own header where there is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

#if __has_include(<cuda.h>)
#include <cuda.h>

#define SAME(a, b) _Static_assert((long long)(a) == (long long)(b), #a)

SAME(sizeof(CUlaunchConfig), sizeof(struct cuda_launch_config));
SAME(offsetof(CUlaunchConfig, blockDimX), offsetof(struct cuda_launch_config, block));
SAME(offsetof(CUlaunchConfig, sharedMemBytes), offsetof(struct cuda_launch_config, shared_bytes));
SAME(offsetof(CUlaunchConfig, hStream), offsetof(struct cuda_launch_config, stream));
SAME(offsetof(CUlaunchConfig, attrs), offsetof(struct cuda_launch_config, attributes));
SAME(offsetof(CUlaunchConfig, numAttrs), offsetof(struct cuda_launch_config, num_attributes));
SAME(sizeof(CUlaunchAttribute), sizeof(struct cuda_launch_attribute));
SAME(offsetof(CUlaunchAttribute, value), offsetof(struct cuda_launch_attribute, value));
SAME(sizeof(CUtensorMap), sizeof(struct cuda_tensor_map));
SAME(CU_LAUNCH_ATTRIBUTE_COOPERATIVE, CUDA_LAUNCH_COOPERATIVE);
SAME(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, CUDA_LAUNCH_CLUSTER_DIMENSION);
SAME(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, CUDA_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION);
SAME(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, CUDA_MULTIPROCESSOR_COUNT);
SAME(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, CUDA_L2_CACHE_SIZE);
SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CUDA_COMPUTE_CAPABILITY_MAJOR);
SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, CUDA_COMPUTE_CAPABILITY_MINOR);
SAME(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, CUDA_SHARED_MEMORY_PER_MULTIPROCESSOR);
SAME(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, CUDA_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, CUDA_SHARED_SIZE_BYTES);
SAME(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, CUDA_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(CUDA_ERROR_INVALID_VALUE, CUDA_INVALID_VALUE);
SAME(CUDA_ERROR_OUT_OF_MEMORY, CUDA_OUT_OF_MEMORY);
SAME(CUDA_ERROR_NO_DEVICE, CUDA_NO_DEVICE);
SAME(CUDA_ERROR_INVALID_IMAGE, CUDA_INVALID_IMAGE);
SAME(CUDA_ERROR_INVALID_CONTEXT, CUDA_INVALID_CONTEXT);
SAME(CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_NO_BINARY_FOR_GPU);
SAME(CUDA_ERROR_INVALID_HANDLE, CUDA_INVALID_HANDLE);
SAME(CUDA_ERROR_NOT_FOUND, CUDA_NOT_FOUND);
SAME(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, CUDA_STREAM_CAPTURE_IMPLICIT);
SAME(CU_STREAM_NON_BLOCKING, CUDA_STREAM_NON_BLOCKING);
SAME(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CUDA_CAPTURE_THREAD_LOCAL);
SAME(CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_CAPTURE_RELAXED);

static void test_cuda_h(void **state) { (void)state; }
#else
static void test_cuda_h(void **state)
{
    (void)state;
    skip();
}
#endif

/* On a machine with a driver every function of the table was found; without one the sentence says what was tried. */
static void test_driver(void **state)
{
    (void)state;
    const struct cuda *driver;
    flashinfer_status status = cuda_get(&driver);
    assert_true(status == FLASHINFER_OK || status == FLASHINFER_NO_DRIVER);
    assert_ptr_equal(driver, cuda());
    assert_true((driver != NULL) == (status == FLASHINFER_OK));
    assert_true(status == FLASHINFER_OK || *flashinfer_last_error());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_h), cmocka_unit_test(test_driver)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
