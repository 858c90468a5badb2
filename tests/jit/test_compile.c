/* SPDX-License-Identifier: Apache-2.0 */
/* Both compilers: kernels of the library's shape and of users compiled, run and refused; every way in which a
 * toolchain can be missing; and what it all costs. GPU cases are skipped without a driver, NVRTC cases
 * without NVRTC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include <string.h>

#include "backend/cuda.h"
#include "backend/nvrtc.h"
#include "core/arch.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "flashinfer/jit.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

/* ---- a user's kernel: out = factor * input + BIAS ---- */

static const char scale_cpu[] =
    "#include \"arguments.h\"\n"
    "struct args { struct tensor out, input; union number factor; };\n"
    "void scale(const struct args *a, int part, int parts)\n"
    "{\n"
    "    int64_t n = a->out.shape[0], begin = n * part / parts, end = n * (part + 1) / parts;\n"
    "    for (int64_t i = begin; i < end; i++)\n"
    "        ((float *)a->out.data)[i * a->out.stride[0]] =\n"
    "            (float)a->factor.f * ((const float *)a->input.data)[i * a->input.stride[0]] + BIAS;\n"
    "}\n";

static const char scale_cuda[] =
    "#include \"arguments.h\"\n"
    "struct args { struct tensor out, input; union number factor; };\n"
    "extern \"C\" __global__ void scale(const __grid_constant__ struct args a)\n"
    "{\n"
    "    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < a.out.shape[0])\n"
    "        ((float *)a.out.data)[i * a.out.stride[0]] =\n"
    "            (float)a.factor.f * ((const float *)a.input.data)[i * a.input.stride[0]] + BIAS;\n"
    "}\n";

static const char *const bias[] = {"BIAS", NULL};
static const struct flashinfer_kernel_source scale_source = {
    .size = sizeof scale_source, .name = "scale", .cuda = scale_cuda, .cpu = scale_cpu, .constants = bias};

enum { N = 1000 };

struct scale_call {
    float in[2 * N], out[N];
    int64_t in_shape[1], in_stride[1], out_shape[1];
    DLTensor in_tensor, out_tensor;
    const DLTensor *tensors[2];
    flashinfer_number factor;
    int32_t bias;
    struct flashinfer_kernel_launch launch;
};

static void prepare_call(struct scale_call *c, double factor, int32_t bias_value)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 2 * N; i++)
        c->in[i] = (float)i;
    c->in_shape[0] = c->out_shape[0] = N;
    c->in_stride[0] = 2;
    c->in_tensor = (DLTensor){.data = c->in, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLFloat, 32, 1},
                              .shape = c->in_shape, .strides = c->in_stride};
    c->out_tensor = (DLTensor){.data = c->out, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLFloat, 32, 1},
                               .shape = c->out_shape};
    c->tensors[0] = &c->out_tensor;
    c->tensors[1] = &c->in_tensor;
    c->factor = (flashinfer_number)FLASHINFER_FLOAT(factor);
    c->bias = bias_value;
    c->launch = (struct flashinfer_kernel_launch){.size = sizeof c->launch, .tensors = c->tensors, .num_tensors = 2,
                                                  .num_numbers = 1, .numbers = &c->factor, .constants = &c->bias,
                                                  .grid = {7}, .block = {256}};
}

static int is_right(const struct scale_call *c, double factor)
{
    for (int i = 0; i < N; i++)
        if (c->out[i] != (float)factor * (float)(2 * i) + (float)c->bias)
            return 0;
    return 1;
}

static flashinfer_kernel *new_scale(void)
{
    flashinfer_kernel *kernel;
    CHECK(flashinfer_kernel_create(&scale_source, &kernel) == FLASHINFER_OK);
    return kernel;
}

static void user_kernel(void)
{
    struct scale_call c;
    for (int round = 0; round < 2; round++) { /* a kernel made again of the same text needs no compiler */
        flashinfer_kernel *kernel = new_scale();
        prepare_call(&c, 1.5, 3);
        CHECK(flashinfer_kernel_prepare(kernel, &c.launch, NULL) == FLASHINFER_OK && c.out[1] == 0.0f);
        CHECK(flashinfer_kernel_launch(kernel, &c.launch, NULL) == FLASHINFER_OK && is_right(&c, 1.5));
        prepare_call(&c, -2.0, 4);
        CHECK(flashinfer_kernel_launch(kernel, &c.launch, NULL) == FLASHINFER_OK && is_right(&c, -2.0));
        flashinfer_kernel_destroy(kernel);
        CHECK(compiled() == 2);
    }
}

static void bad_launches(void)
{
    struct scale_call c;
    flashinfer_kernel *kernel = new_scale(), *other;
    flashinfer_exec exec = {.size = sizeof exec};
    const flashinfer_status invalid = FLASHINFER_INVALID;
#define REFUSED(change, text)                                                             \
    do {                                                                                  \
        prepare_call(&c, 1.0, 0);                                                         \
        change;                                                                           \
        CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, &exec), invalid, text);   \
        CHECK(c.out[1] == 0.0f);                                                          \
    } while (0)
    REFUSED(c.launch.num_tensors = 0, "num_tensors is 0");
    REFUSED(c.launch.num_tensors = 17, "num_tensors is 17");
    REFUSED(c.launch.tensors = NULL, "tensors is NULL");
    REFUSED(c.tensors[1] = NULL, "tensors[1] is NULL");
    REFUSED(c.in_tensor.data = NULL, "tensors[1]->data is NULL");
    REFUSED(c.in_tensor.shape = NULL, "tensors[1]->shape is NULL");
    REFUSED(c.in_tensor.ndim = 9, "tensors[1] has 9 axes");
    REFUSED(c.in_shape[0] = -1, "tensors[1] has size -1 on axis 0");
    REFUSED(c.out_tensor.device.device_type = (DLDeviceType)7, "device type 7");
    REFUSED(c.launch.num_numbers = -1, "num_numbers is -1");
    REFUSED(c.launch.numbers = NULL, "numbers is NULL");
    REFUSED(c.factor.kind = FLASHINFER_NUMBER_ABSENT, "numbers[0].kind is 0");
    REFUSED(c.launch.constants = NULL, "constants is NULL");
    REFUSED(c.launch.grid[0] = 0x80000000u, "grid is 2147483648 x 0 x 0");
    REFUSED(c.launch.grid[1] = 2, "grid is 7 x 2 x 0");
    REFUSED(c.launch.grid[2] = 2, "grid is 7 x 0 x 2");
    REFUSED(c.launch.size = 1, "size is 1");
    REFUSED(exec.stream = &c, "exec.stream must be NULL");
    exec.stream = NULL;
    prepare_call(&c, 1.0, 0);
    CHECK_FAILS(flashinfer_kernel_launch(NULL, &c.launch, NULL), invalid, "kernel is NULL");
    CHECK_FAILS(flashinfer_kernel_launch(kernel, NULL, NULL), invalid, "launch is NULL");
    exec.kernel = "other";
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, &exec), FLASHINFER_UNSUPPORTED, "asks for other");

    struct flashinfer_kernel_source bad = scale_source;
    bad.name = "2fast";
    CHECK_FAILS(flashinfer_kernel_create(&bad, &other), invalid, "name is \"2fast\"");
    bad = scale_source;
    bad.cpu = bad.cuda = NULL;
    CHECK_FAILS(flashinfer_kernel_create(&bad, &other), invalid, "neither a cuda nor a cpu text");
    bad = scale_source;
    bad.constants = (const char *const[]){"A B", NULL};
    CHECK_FAILS(flashinfer_kernel_create(&bad, &other), invalid, "constants[0] of kernel scale is \"A B\"");
    bad = scale_source;
    bad.cpu = NULL;
    CHECK(flashinfer_kernel_create(&bad, &other) == FLASHINFER_OK && !flashinfer_kernel_create(&bad, &other));
    CHECK_FAILS(flashinfer_kernel_launch(other, &c.launch, NULL), FLASHINFER_UNSUPPORTED, "has no cpu text");
    CHECK(compiled() == 0);
}

static void does_not_compile(void)
{
    struct scale_call c;
    char path[4096];
    flashinfer_kernel *kernel;
    struct flashinfer_kernel_source bad = scale_source;
    bad.cpu = "#include \"arguments.h\"\n\nvoid scale(const void *a, int part, int parts) { missing(a); }\n";
    CHECK(flashinfer_kernel_create(&bad, &kernel) == FLASHINFER_OK);
    prepare_call(&c, 1.0, 5);
    for (int i = 0; i < 2; i++) {
        CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, NULL), FLASHINFER_COMPILE, "kernel scale (BIAS=5, x86-64");
        CHECK(strstr(flashinfer_last_error(), "scale.c:3:"));
        CHECK(strstr(flashinfer_last_error(), "missing"));
        CHECK(count_files("", NULL, 0) == 1 && count_files("failed-scale-cpu-", path, sizeof path) == 1);
        CHECK(strstr(flashinfer_last_error(), path));
    }
    bad.cpu = "void other(void) {}\n";
    CHECK(flashinfer_kernel_create(&bad, &kernel) == FLASHINFER_OK);
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, NULL), FLASHINFER_LOAD, "defines no function of this name");
    bad.cpu = "#include \"mine.h\"\n";
    CHECK(flashinfer_kernel_create(&bad, &kernel) == FLASHINFER_OK);
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, NULL), FLASHINFER_COMPILE, "includes \"mine.h\"");
}

static void bogus_cc(void)
{
    setenv("FLASHINFER_CC", "/no/such/cc", 1);
    CHECK(!multiply(multiply_spec(1)));
    CHECK(strstr(flashinfer_last_error(), "FLASHINFER_CC is /no/such/cc"));
    const struct jit_module *module;
    struct jit_spec spec = multiply_spec(1);
    CHECK_FAILS(jit_load(&spec, cpu_device(), &module), FLASHINFER_NO_COMPILER, "no C compiler");
    char text[256];
    CHECK(strstr(jit_toolchain(JIT_CPU, text, sizeof text), "no C compiler"));
}

static void no_cc(void)
{
    setenv("PATH", "/no/such/folder", 1);
    setenv("CC", "ccache gcc", 1);
    CHECK(!multiply(multiply_spec(1)));
    CHECK(strstr(flashinfer_last_error(), "tried ccache gcc, cc, gcc and clang in PATH=/no/such/folder"));
}

static void cc_by_clang(void)
{
    setenv("FLASHINFER_CC", "clang", 1);
    char text[256];
    if (!strstr(jit_toolchain(JIT_CPU, text, sizeof text), "no C compiler"))
        CHECK(multiply(multiply_spec(3)));
}

static void cc_is_no_compiler(const char *program, const char *says)
{
    setenv("FLASHINFER_CC", program, 1);
    struct jit_spec spec = multiply_spec(4);
    const struct jit_module *module;
    CHECK_FAILS(jit_load(&spec, cpu_device(), &module), FLASHINFER_COMPILE, says);
}

static void cc_fails_silently(void)
{
    cc_is_no_compiler("false", "/false said nothing, made no library and ended with exit code 1");
}

static void cc_does_nothing(void)
{
    cc_is_no_compiler("true", "/true said nothing, made no library and ended with exit code 0");
}

static void disabled(void)
{
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    struct jit_spec spec = multiply_spec(2);
    const struct jit_module *module;
    CHECK_FAILS(jit_load(&spec, cpu_device(), &module), FLASHINFER_NOT_PREPARED, "multiply (FACTOR=2, T=i32");
    CHECK(strstr(flashinfer_last_error(), folder));
}

/* The variables of a process may go while it runs; then `environ` is NULL, and a compiler may not find its linker. */
static void no_variables(void)
{
    CHECK(multiply(multiply_spec(1)));
    clearenv();
    CHECK(multiply(multiply_spec(2)) || strstr(flashinfer_last_error(), "does not compile"));
}

static void unwritable_tmp(void)
{
    setenv("TMPDIR", "/proc", 1);
    CHECK(!multiply(multiply_spec(1)));
    CHECK(strstr(flashinfer_last_error(), "no file can be made in /proc"));
}

static void missing_tmp(void)
{
    setenv("TMPDIR", "/no/such/folder", 1);
    CHECK(multiply(multiply_spec(1)));
}

/* ---- CUDA, without a GPU ---- */

static struct jit_spec scale_spec(const char *text)
{
    static const struct jit_kernel kernel = {"scale", JIT_CUDA, {"BIAS", NULL}};
    return (struct jit_spec){.kernel = &kernel, .user = jit_keep_text(text, true), .constant = {1}};
}

static void nvrtc_compiles(void)
{
    const struct nvrtc *nvrtc;
    double begin = clock_seconds();
    if (nvrtc_get(&nvrtc)) {
        printf("skipped: %s\n", flashinfer_last_error());
        return;
    }
    printf("NVRTC opened in %.1f ms\n", 1e3 * (clock_seconds() - begin));
    struct jit_spec spec = scale_spec(scale_cuda);
    for (const int32_t *arch = arch_numbers; *arch; arch++) {
        struct device device;
        char *log;
        double seconds;
        size_t bytes;
        CHECK(device_imagine(*arch, &device) == FLASHINFER_OK);
        CHECK(jit_compile_only(&spec, &device, &log, &seconds, &bytes) == FLASHINFER_OK);
        CHECK(bytes > 500 && log && strstr(log, "registers"));
        printf("%s: %.1f ms, %zu bytes\n", device.isa, 1e3 * seconds, bytes);
        free(log);
    }
    struct device device;
    char *log, path[4096];
    double seconds;
    size_t bytes;
    device_imagine(90, &device);
    spec = scale_spec("#include \"arguments.h\"\n\n__global__ void scale() { missing(); }\n");
    CHECK_FAILS(jit_compile_only(&spec, &device, &log, &seconds, &bytes), FLASHINFER_COMPILE, "scale (BIAS=1, sm_90a)");
    CHECK(strstr(flashinfer_last_error(), "scale.cu(3)") && strstr(flashinfer_last_error(), "missing"));
    CHECK(count_files("failed-scale-sm_90a-", path, sizeof path) == 1 && strstr(flashinfer_last_error(), path));
    free(log);
    CHECK(jit_cache_path(&spec, &device, path, sizeof path) == FLASHINFER_OK && strstr(path, "/scale-sm_90a-"));
}

static void bogus_nvrtc(void)
{
    setenv("FLASHINFER_NVRTC", "/no/such/libnvrtc.so", 1);
    struct jit_spec spec = scale_spec(scale_cuda);
    struct device device;
    char *log, text[256];
    double seconds;
    size_t bytes;
    device_imagine(90, &device);
    CHECK_FAILS(jit_compile_only(&spec, &device, &log, &seconds, &bytes), FLASHINFER_NO_COMPILER,
                "FLASHINFER_NVRTC names /no/such/libnvrtc.so");
    CHECK(strstr(jit_toolchain(JIT_CUDA, text, sizeof text), "/no/such/libnvrtc.so"));
}

static void not_nvrtc(void)
{
    setenv("FLASHINFER_NVRTC", "/etc/passwd", 1);
    const struct nvrtc *nvrtc;
    CHECK_FAILS(nvrtc_get(&nvrtc), FLASHINFER_NO_COMPILER, "NVRTC cannot be used");
}

static void no_gpu(void)
{
    const struct device *device;
    if (!cuda())
        CHECK_FAILS(device_get((DLDevice){kDLCUDA, 0}, &device), FLASHINFER_NO_DRIVER, "CUDA driver");
}

/* ---- CUDA, on a GPU ---- */

static void copy_back(struct scale_call *c, cuda_pointer out, cuda_stream stream)
{
    CHECK(!cuda()->stream_synchronize(stream) && !cuda()->copy_to_host(c->out, out, sizeof c->out));
}

static void captured(flashinfer_kernel *kernel, struct scale_call *c, const flashinfer_exec *exec, cuda_pointer out)
{
    const struct cuda *driver = cuda();
    cuda_graph graph;
    cuda_graph_exec graph_exec;
    CHECK(!driver->capture_begin(exec->stream, CUDA_CAPTURE_THREAD_LOCAL));
    c->bias = 11;
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c->launch, exec), FLASHINFER_NOT_PREPARED, "scale (BIAS=11, sm_");
    c->bias = 3;
    CHECK(flashinfer_kernel_launch(kernel, &c->launch, exec) == FLASHINFER_OK);
    CHECK(!driver->capture_end(exec->stream, &graph) && !driver->graph_instantiate(&graph_exec, graph, 0));
    CHECK(!driver->fill_bytes(out, 0, sizeof c->out));
    CHECK(!driver->graph_launch(graph_exec, exec->stream));
    copy_back(c, out, exec->stream);
    CHECK(is_right(c, 2.0));
}

static void time_launches(flashinfer_kernel *kernel, struct scale_call *c, const flashinfer_exec *exec)
{
    enum { LAUNCHES = 500 };
    double best = 1e30;
    for (int round = 0; round < 20; round++) {
        double begin = clock_seconds();
        for (int i = 0; i < LAUNCHES; i++)
            CHECK(flashinfer_kernel_launch(kernel, &c->launch, exec) == FLASHINFER_OK);
        double each = (clock_seconds() - begin) / LAUNCHES;
        best = each < best ? each : best;
        cuda()->stream_synchronize(exec->stream);
    }
    printf("launch of a user's kernel, checks included: %.0f ns\n", 1e9 * best);
}

static void on_gpu(void)
{
    const struct cuda *driver = cuda();
    const struct device *device;
    struct scale_call c;
    cuda_pointer in, out;
    cuda_stream stream;
    if (!driver) {
        printf("skipped: no CUDA driver\n");
        return;
    }
    CHECK(device_get((DLDevice){kDLCUDA, 0}, &device) == FLASHINFER_OK);
    flashinfer_kernel *kernel = new_scale();
    prepare_call(&c, 2.0, 3);
    c.launch.grid[0] = (N + 255) / 256;
    CHECK(!driver->context_push(device->context));
    CHECK(!driver->memory_alloc(&in, sizeof c.in) && !driver->memory_alloc(&out, sizeof c.out));
    CHECK(!driver->copy_to_device(in, c.in, sizeof c.in));
    CHECK(!driver->stream_create(&stream, CUDA_STREAM_NON_BLOCKING));
    c.in_tensor.data = (void *)(uintptr_t)in;
    c.out_tensor.data = (void *)(uintptr_t)out;
    c.in_tensor.device = c.out_tensor.device = (DLDevice){kDLCUDA, 0};
    flashinfer_exec exec = {.size = sizeof exec, .stream = stream, .flags = FLASHINFER_PDL};
    for (int round = 0; round < 3; round++) { /* a stream; then no context is current; then the default stream */
        CHECK(!driver->fill_bytes(out, 0, sizeof c.out) && !driver->context_synchronize());
        cuda_context none = device->context;
        if (round == 1)
            CHECK(!driver->context_pop(&none));
        if (round == 2)
            exec.stream = NULL;
        CHECK(flashinfer_kernel_launch(kernel, &c.launch, &exec) == FLASHINFER_OK);
        if (round == 1)
            CHECK(!driver->context_push(none));
        copy_back(&c, out, exec.stream);
        CHECK(is_right(&c, 2.0));
    }
    exec.stream = stream;
    captured(kernel, &c, &exec, out);
    time_launches(kernel, &c, &exec);
    c.launch.shared_bytes = (uint32_t)device->smem_block;
    CHECK(flashinfer_kernel_launch(kernel, &c.launch, &exec) == FLASHINFER_OK);
    c.launch.shared_bytes++;
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, &exec), FLASHINFER_INVALID, "shared_bytes");
    c.launch.shared_bytes = 0;
    c.launch.block[0] = 2048;
    CHECK_FAILS(flashinfer_kernel_launch(kernel, &c.launch, &exec), FLASHINFER_DEVICE, "launch of kernel scale");
    CHECK(!driver->context_synchronize());
}

/* ---- what it costs ---- */

static void costs_cold(void)
{
    struct flashinfer_jit_statistics s = {.size = sizeof s};
    CHECK(multiply(multiply_spec(1)));
    CHECK(flashinfer_jit_statistics(&s) == FLASHINFER_OK);
    printf("CPU kernel compiled, cached and loaded: %.1f ms\n", 1e3 * s.compile_seconds);

    struct jit_spec spec = multiply_spec(1);
    const struct device *device = cpu_device();
    double begin = clock_seconds();
    for (int i = 0; i < 1000000; i++)
        CHECK(jit_find(&spec, device));
    printf("look-up of a module: %.1f ns\n", 1e3 * (clock_seconds() - begin));
}

static void costs_warm(void)
{
    double begin = clock_seconds();
    CHECK(multiply(multiply_spec(1)) && compiled() == 0);
    printf("first launch of a CPU kernel from disk: %.2f ms\n", 1e3 * (clock_seconds() - begin));
}

/* Key, reading and verifying of a cubin as large as that of an attention kernel; no driver is needed for
 * that. */
static void costs_cubin(void)
{
    struct jit_spec spec = scale_spec(scale_cuda);
    struct jit_job job;
    struct device device;
    struct text cubin = {0}, found = {0};
    device_imagine(90, &device);
    if (jit_job_begin(&spec, &device, &job))
        return;
    memset(text_extend(&cubin, 200000), 1, 200000);
    CHECK(jit_cache_write(&job, &cubin));
    jit_job_end(&job);
    double begin = clock_seconds();
    CHECK(!jit_job_begin(&spec, &device, &job) && jit_cache_read(&job, &found));
    printf("cubin of 200 KB found, read and verified: %.2f ms\n", 1e3 * (clock_seconds() - begin));
    const char *path;
    CHECK(!nvrtc_path(&path) && !dlopen(path, RTLD_NOW | RTLD_NOLOAD)); /* what is in the cache needs no compiler loaded */
}

#define TEST(name)                                      \
    static void test_##name(void **state)               \
    {                                                   \
        (void)state;                                    \
        assert_int_equal(in_child(name), 0);            \
    }
#define ALL(X)                                                                                                     \
    X(user_kernel) X(bad_launches) X(does_not_compile) X(bogus_cc) X(no_cc) X(cc_by_clang) X(disabled)             \
    X(cc_fails_silently) X(cc_does_nothing) X(no_variables)                                                        \
    X(unwritable_tmp) X(missing_tmp) X(nvrtc_compiles) X(bogus_nvrtc) X(not_nvrtc) X(no_gpu) X(on_gpu) X(costs_cubin)

ALL(TEST)

static void test_costs(void **state)
{
    (void)state;
    assert_int_equal(in_child(costs_cold), 0);
    assert_int_equal(in_child(costs_warm), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, setup_folder, teardown_folder),
    const struct CMUnitTest tests[] = {ALL(CASE) CASE(costs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
