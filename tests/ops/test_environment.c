/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine may lack, seen from a call of an op: no driver, no NVRTC, no C compiler, an architecture nobody compiles for, or
 * leave to compile. Each ends in one sentence. A thread that rounds otherwise gets the usual bits. The environment is read once,
 * so each case runs in a child with a cache of its own. */
#include <fenv.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda.h"
#include "op/op.h"
#include "tests/jit/support.h"
#include "tests/ops/right_calls.h"

#include <cmocka.h> /* last: it makes fail() a macro */

static struct right_calls c;

#define CHECK_SENTENCE(text)                           \
    do {                                               \
        if (strcmp(flashinfer_last_error(), text))     \
            fprintf(stderr, "expected %s\n", text);    \
        CHECK(!strcmp(flashinfer_last_error(), text)); \
    } while (0)

static flashinfer_status call_rmsnorm(DLDevice device)
{
    right_calls_reset(&c);
    c.exec.device = c.rmsnorm.out.device = c.rmsnorm.input.device = c.rmsnorm.weight.device = device;
    return flashinfer_rmsnorm(&c.rmsnorm.args, &c.exec);
}

/* ---- no driver ---- */

/* Where there is one, it is told that it has no devices. */
static void no_driver(void)
{
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    CHECK(call_rmsnorm((DLDevice){kDLCUDA, 0}) == FLASHINFER_NO_DRIVER);
    if (strstr(flashinfer_last_error(), "cuInit"))
        CHECK_SENTENCE(
            "rmsnorm: the CUDA driver cannot be used: cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)");
    else
        CHECK_SENTENCE("rmsnorm: no CUDA driver: libcuda.so.1 and libcuda.so cannot be opened");
    CHECK(call_rmsnorm((DLDevice){kDLCUDAManaged, 0}) == FLASHINFER_NO_DRIVER);
    CHECK(right_calls_untouched());
    CHECK(flashinfer_prepare("rmsnorm", &c.rmsnorm.args, &c.exec) == FLASHINFER_NO_DRIVER);
    c.exec.device = (DLDevice){kDLCUDA, 0};
    CHECK(flashinfer_batch_decode_plan(&c.batch_decode_plan.args, &c.exec) == FLASHINFER_NO_DRIVER);
    CHECK(right_calls_untouched());
}

/* ---- no compiler ---- */

static void pick_rmsnorm(int arch, struct jit_spec *spec)
{
    static struct device imagined;
    struct call call;
    struct way way;
    const struct op_kernel *row;
    right_calls_reset(&c);
    CHECK(device_imagine(arch, &imagined) == FLASHINFER_OK);
    CHECK(call_check(&call, op_find("rmsnorm"), &c.rmsnorm.args, NULL, true, &imagined) == FLASHINFER_OK);
    CHECK(call_pick(&call, &row, &way) == FLASHINFER_OK);
    *spec = way.spec[0];
}

static void no_nvrtc(void)
{
    struct device imagined;
    struct jit_spec spec;
    char *log;
    double seconds;
    size_t bytes;
    setenv("FLASHINFER_NVRTC", "libnvrtc.so.99", 1); /* a bare name, which the loader is asked for */
    pick_rmsnorm(90, &spec);
    CHECK(device_imagine(90, &imagined) == FLASHINFER_OK);
    CHECK(jit_compile_only(&spec, &imagined, &log, &seconds, &bytes) == FLASHINFER_NO_COMPILER);
    CHECK_SENTENCE("no NVRTC: FLASHINFER_NVRTC names libnvrtc.so.99, which is no library that can be read");
}

static void no_cc(void)
{
    setenv("PATH", "/no/such/folder", 1);
    unsetenv("CC");
    unsetenv("FLASHINFER_CC");
    for (int i = 0; i < 2; i++) { /* it is tried again, and fails in the same way */
        CHECK(call_rmsnorm((DLDevice){kDLCPU, 0}) == FLASHINFER_NO_COMPILER);
        CHECK(strstr(flashinfer_last_error(), "no C compiler, which compiles CPU kernels: tried cc, gcc and clang in "
                                              "PATH=/no/such/folder; install gcc or clang, or set FLASHINFER_CC to one"));
        CHECK(strstr(flashinfer_last_error(), "kernel norm_cpu is in no pack: none for x86-64-v"));
        CHECK(right_calls_untouched());
    }
}

/* ---- architectures that nobody compiles for ---- */

static void unknown_architectures(void)
{
    struct device device;
    struct call call;
    struct way way;
    const struct op_kernel *row;
    CHECK(device_imagine(75, &device) == FLASHINFER_UNSUPPORTED);
    CHECK_SENTENCE("the imagined device has compute capability 7.5; kernels are compiled for 8.0, 8.6, 8.9, 9.0, 10.0, 10.3, "
                   "11.0, 12.0 and 12.1");
    CHECK(device_imagine(101, &device) == FLASHINFER_UNSUPPORTED);
    CHECK(device_imagine(80, &device) == FLASHINFER_OK);
    device.arch = 75;
    right_calls_reset(&c);
    CHECK(call_check(&call, op_find("rmsnorm"), &c.rmsnorm.args, NULL, true, &device) == FLASHINFER_OK);
    CHECK(call_pick(&call, &row, &way) == FLASHINFER_UNSUPPORTED);
    CHECK_SENTENCE("rmsnorm: no kernel serves this call: norm_short_sm80: needs sm_80 or later, the device is sm_75; "
                   "norm_sm80: needs sm_80 or later, the device is sm_75; "
                   "norm_wide_sm80: needs sm_80 or later, the device is sm_75");
}

/* ---- leave to compile ---- */

static void prepares(void)
{
    right_calls_reset(&c);
    CHECK(flashinfer_prepare("rmsnorm", &c.rmsnorm.args, &c.exec) == FLASHINFER_OK && compiled() == 1);
    CHECK(right_calls_untouched());
}

static void forbidden(void)
{
    char kernel[200];
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    for (int i = 0; i < 2; i++) {
        right_calls_reset(&c);
        CHECK((i ? flashinfer_call : flashinfer_prepare)("rmsnorm", &c.rmsnorm.args, &c.exec) == FLASHINFER_NOT_PREPARED);
        CHECK(right_calls_untouched());
        CHECK(!strncmp(flashinfer_last_error(), "kernel norm_cpu (T=f16, W=f16, R=f16, OUT=f16, ", 46));
        snprintf(kernel, sizeof kernel, ") is not in the cache (%s/norm_cpu-cpu-", folder);
        CHECK(strstr(flashinfer_last_error(), kernel));
        CHECK(strstr(flashinfer_last_error(),
                     ".so), and FLASHINFER_DISABLE_JIT forbids compiling it: call flashinfer_prepare without "
                     "it first"));
    }
}

static void forbidden_but_prepared(void)
{
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    CHECK(call_rmsnorm((DLDevice){kDLCPU, 0}) == FLASHINFER_OK);
    CHECK(compiled() == 0 && loaded() == 1 && !right_calls_untouched());
    c.rmsnorm.out.dtype = c.rmsnorm.input.dtype = c.rmsnorm.weight.dtype = dtype_dlpack(DTYPE_BF16); /* not what was prepared */
    CHECK(flashinfer_rmsnorm(&c.rmsnorm.args, &c.exec) == FLASHINFER_NOT_PREPARED);
}

static void test_leave_to_compile(void **state)
{
    (void)state;
    assert_int_equal(in_child(forbidden), 0);
    assert_int_equal(in_child(prepares), 0);
    assert_int_equal(in_child(forbidden_but_prepared), 0);
}

/* ---- how the caller's thread computes ---- */

/* It is another's, and stays; the bits are as ever, on that thread and on workers. */
static void rounds_otherwise(void)
{
    enum { LONG = 1000 };
    static float x[LONG * HIDDEN], weight[HIDDEN], y[2][LONG * HIDDEN];
    for (int i = 0; i < LONG * HIDDEN; i++)
        x[i] = 0.1f * (float)(1 + i % 97);
    for (int i = 0; i < HIDDEN; i++)
        weight[i] = 0.3f;
    DLTensor input = {
        .data = x, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 32, 1}, .shape = (int64_t[]){LONG, HIDDEN}};
    DLTensor weights = input, out = input;
    weights.data = weight;
    weights.ndim = 1;
    weights.shape = input.shape + 1;
    const flashinfer_exec exec = {.size = sizeof exec, .threads = 2};
    out.data = y[0];
    CHECK(FLASHINFER(rmsnorm, &exec, .out = &out, .input = &input, .weight = &weights) == FLASHINFER_OK);
    CHECK(!fesetround(FE_UPWARD));
    out.data = y[1];
    for (int i = 0; i < 3; i++) {
        CHECK(FLASHINFER(rmsnorm, &exec, .out = &out, .input = &input, .weight = &weights) == FLASHINFER_OK);
        CHECK(fegetround() == FE_UPWARD && !memcmp(y[0], y[1], sizeof y[0]));
    }
}

#define TEST(name)                           \
    static void test_##name(void **state)    \
    {                                        \
        (void)state;                         \
        assert_int_equal(in_child(name), 0); \
    }
TEST(no_driver)
TEST(no_nvrtc)
TEST(no_cc)
TEST(unknown_architectures)
TEST(rounds_otherwise)

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, setup_folder, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(no_driver), CASE(no_nvrtc), CASE(no_cc), CASE(unknown_architectures),
                                       CASE(leave_to_compile), CASE(rounds_otherwise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
