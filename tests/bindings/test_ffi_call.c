/* SPDX-License-Identifier: Apache-2.0 */
/* A call by values (bindings/ffi_call.h) with a workspace of the caller: its device and layout, which a call in C is not told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bindings/ffi_call.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { HIDDEN = 8, NUM_ARGS = 4, WORKSPACE = 1 /* among the options */ };

static void *no_stream(int32_t device_type, int32_t device_id)
{
    (void)device_type, (void)device_id;
    return NULL;
}

static const struct ffi_environment environment = {.stream = no_stream};

static float input[HIDDEN] = {1, 2, 3, 4, 5, 6, 7, 8}, weight[HIDDEN] = {1, 1, 1, 1, 1, 1, 1, 1}, out[HIDDEN];
static unsigned char memory[512];
static const char *kind; /* of the last error */

/* rmsnorm on the CPU, which needs none, with that workspace. */
static flashinfer_status call(DLTensor *workspace)
{
    int64_t shape[] = {1, HIDDEN};
    DLTensor tensor[] = {{.data = out, .ndim = 2, .shape = shape},
                         {.data = input, .ndim = 2, .shape = shape},
                         {.data = weight, .ndim = 1, .shape = shape + 1}};
    struct ffi_any value[NUM_ARGS + WORKSPACE + 1] = {{0}};
    for (int i = 0; i < 3; i++) {
        tensor[i].device = (DLDevice){kDLCPU, 0};
        tensor[i].dtype = (DLDataType){kDLFloat, 32, 1};
        value[i] = (struct ffi_any){.type = FFI_DLTENSOR, .value.pointer = &tensor[i]};
    }
    value[NUM_ARGS + WORKSPACE] = (struct ffi_any){.type = FFI_DLTENSOR, .value.pointer = workspace};
    return ffi_call(op_find("rmsnorm"), &environment, value, NUM_ARGS + WORKSPACE + 1, &kind);
}

static void expect(DLDevice device, int64_t stride, const char *sentence)
{
    int64_t size = 16;
    DLTensor workspace = {
        .data = memory, .device = device, .ndim = 1, .dtype = {kDLUInt, 8, 1}, .shape = &size, .strides = &stride};
    if (!sentence) {
        assert_int_equal(call(&workspace), FLASHINFER_OK);
        return;
    }
    assert_int_equal(call(&workspace), FLASHINFER_INVALID);
    assert_string_equal(kind, "ValueError");
    assert_string_equal(flashinfer_last_error(), sentence);
}

static void workspaces(void **state)
{
    (void)state;
    expect((DLDevice){kDLCPU, 0}, 1, NULL);
    expect((DLDevice){kDLCUDAHost, 0}, 1, NULL);
    expect((DLDevice){kDLCUDA, 0}, 1, "rmsnorm: workspace is on cuda:0, must be on cpu as the tensors");
    expect((DLDevice){kDLCUDAManaged, 1}, 1, "rmsnorm: workspace is on cuda:1, must be on cpu as the tensors");
    expect((DLDevice){kDLCPU, 0}, 2, "rmsnorm: workspace must be dense");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(workspaces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
