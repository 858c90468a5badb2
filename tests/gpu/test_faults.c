/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU and what may be odd or wrong about a call on it: memory, contexts, streams, plans, workspaces, bad tables, no compiler;
 * and what must not happen in the steady state. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "tests/gpu/decode_step.h"
#include "tests/jit/support.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { POISON = 0x7f, ROWS = 5, HIDDEN = 128 };

static const struct attention_shape decode_shape = {.dtype = DTYPE_F16,
                                                    .num_qo_heads = 4,
                                                    .num_kv_heads = 2,
                                                    .head_dim = 64,
                                                    .page_size = 4,
                                                    .num_pages = 40,
                                                    .max_batch_size = 3};

static void expect_sentence(const char *sentence)
{
    assert_string_equal(flashinfer_last_error(), sentence);
}

static bool holds_only(const struct attention_batch *b, int byte)
{
    bool same = true;
    size_t bytes;
    for (int which = BATCH_OUT; which <= BATCH_LSE; which++) {
        unsigned char *data = attention_batch_fetch(b, (enum batch_tensor)which, &bytes);
        for (size_t i = 0; i < bytes; i++)
            same &= data[i] == byte;
        free(data);
    }
    return same;
}

static void shaped_batch(struct attention_batch *b, const struct attention_shape *shape, const struct device *device)
{
    static const int32_t one[] = {1, 1, 1}, kv_len[] = {7, 0, 13};
    attention_batch_create(b, shape, device, 3);
    attention_batch_requests(b, 3, one, kv_len, 4);
    attention_batch_poison(b, POISON);
}

static void decode_batch(struct attention_batch *b, const struct device *device) { shaped_batch(b, &decode_shape, device); }

/* ---- in children, whose environment differs ---- */

static void put(const struct attention_batch *b, enum batch_tensor which, int at, int32_t value)
{
    CHECK(!device_upload(b->device, (int32_t *)b->tensor[which].data + at, &value, sizeof value));
}

static void validates(void)
{
    struct attention_batch b;
    cuda_graph graph;
    setenv("FLASHINFER_VALIDATE_INPUTS", "1", 1);
    decode_batch(&b, gpu_of_child());
    CHECK(attention_batch_run(&b) == FLASHINFER_OK && !holds_only(&b, POISON));
    attention_batch_poison(&b, POISON);
    for (int i = 0; i < 2; i++) { /* the default stream, then one that does not wait for it */
        put(&b, BATCH_KV_INDICES, 3, 40);
        CHECK(attention_batch_run(&b) == FLASHINFER_INVALID);
        CHECK(!strcmp(flashinfer_last_error(),
                      "batch_decode: kv_indices[3] is 40, must be at least 0 and below 40, the pages of k_cache"));
        put(&b, BATCH_KV_INDICES, 3, 39);
        put(&b, BATCH_KV_INDPTR, 2, 1);
        CHECK_FAILS(attention_batch_run(&b), FLASHINFER_INVALID, "kv_indptr[2] is 1, must be at least kv_indptr[1], which is 2");
        put(&b, BATCH_KV_INDPTR, 2, 2);
        put(&b, BATCH_KV_LAST_PAGE_LEN, 0, 5);
        CHECK_FAILS(attention_batch_run(&b), FLASHINFER_INVALID, "kv_last_page_len[0] is 5, must be 1 to page_size, which is 4");
        put(&b, BATCH_KV_LAST_PAGE_LEN, 0, 3);
        b.exec.stream = b.exec.stream ? b.exec.stream : gpu_stream();
    }
    CHECK(holds_only(&b, POISON));
    CHECK(!cuda()->capture_begin(b.exec.stream, CUDA_CAPTURE_THREAD_LOCAL));
    CHECK_FAILS(attention_batch_run(&b), FLASHINFER_INVALID,
                "batch_decode: exec.stream captures, which FLASHINFER_VALIDATE_INPUTS does not allow");
    CHECK(!cuda()->capture_end(b.exec.stream, &graph) && graph);
    CHECK(attention_batch_run(&b) == FLASHINFER_OK && !holds_only(&b, POISON));
}

static void test_validation(void **state)
{
    (void)state;
    gpu_child(validates);
}

static void lacks_nvrtc(void)
{
    struct attention_batch b;
    setenv("FLASHINFER_NVRTC", "/no/such/libnvrtc.so", 1);
    decode_batch(&b, gpu_of_child());
    CHECK(attention_batch_run(&b) == FLASHINFER_NO_COMPILER);
    CHECK(!strcmp(flashinfer_last_error(),
                  "no NVRTC: FLASHINFER_NVRTC names /no/such/libnvrtc.so, which is no library that can be read"));
    CHECK(holds_only(&b, POISON));
}

static void test_no_nvrtc(void **state)
{
    (void)state;
    gpu_child(lacks_nvrtc);
}

/* ---- tensors ---- */

/* An rmsnorm call of ones on memory of 3 tensors: out, input, weight. */
struct norm {
    DLTensor out, input, weight;
    int64_t shape[2];
};

static void norm_create(struct norm *n, DLDevice device, char *memory)
{
    n->shape[0] = ROWS;
    n->shape[1] = HIDDEN;
    n->out = (DLTensor){.data = memory, .device = device, .ndim = 2, .dtype = dtype_dlpack(DTYPE_BF16), .shape = n->shape};
    n->input = n->weight = n->out;
    n->input.data = memory + ROWS * HIDDEN * 2;
    n->weight.data = memory + 2 * ROWS * HIDDEN * 2;
    n->weight.ndim = 1;
    n->weight.shape = n->shape + 1;
}

enum { NORM_BYTES = (2 * ROWS + 1) * HIDDEN * 2 };

static void norm_fill(uint16_t *image)
{
    for (int i = 0; i < NORM_BYTES / 2; i++)
        image[i] = 0x3f80; /* 1 */
    memset(image, POISON, ROWS * HIDDEN * 2);
}

static bool norm_is_right(const uint16_t *image)
{
    for (int i = 0; i < ROWS * HIDDEN; i++)
        if (image[i] != 0x3f80)
            return false;
    return true;
}

static flashinfer_status norm_run(const struct norm *n, void *stream)
{
    struct norm *m = (struct norm *)(uintptr_t)n;
    const flashinfer_exec exec = {.size = sizeof exec, .stream = stream};
    return FLASHINFER(rmsnorm, &exec, .out = &m->out, .input = &m->input, .weight = &m->weight);
}

/* Memory that host and device share; some kilobytes of it. */
static void test_managed_memory(void **state)
{
    (void)state;
    gpu_or_skip();
    int (*alloc_managed)(cuda_pointer *, size_t, unsigned) =
        (int (*)(cuda_pointer *, size_t, unsigned))(uintptr_t)gpu_symbol("cuMemAllocManaged");
    cuda_pointer memory;
    struct norm n;
    DRIVER(alloc_managed(&memory, NORM_BYTES, 1));
    uint16_t *image = (uint16_t *)(uintptr_t)memory;
    norm_fill(image);
    norm_create(&n, (DLDevice){kDLCUDAManaged, 0}, (char *)image);
    n.weight.device.device_type = kDLCUDA; /* the same device */
    MUST(norm_run(&n, NULL));
    DRIVER(cuda()->context_synchronize());
    assert_true(norm_is_right(image));
    DRIVER(cuda()->memory_free(memory));
}

/* Q, k, v and caches in one buffer each, and off their alignment: the bits of separate and aligned ones. */
static void test_views(void **state)
{
    (void)state;
    static const int32_t qo_len[] = {13, 0, 40}, one[] = {1, 1, 1}, prefill_kv_len[] = {50, 0, 41}, kv_len[] = {50, 1, 41};
    const struct device *device = gpu_or_skip();
    for (int i = 0; i < 8; i++) {
        struct attention_batch batch[2];
        for (int odd = 0; odd < 2; odd++) {
            struct attention_shape shape = decode_shape;
            shape.max_total_qo = i & 1 ? 60 : 0;
            shape.kv_layout = i & 1 ? FLASHINFER_NHD : FLASHINFER_HND;
            shape.fused = odd && i & 2;
            shape.offset = odd && i & 4 ? 1 : 0;
            attention_batch_create(&batch[odd], &shape, device, 5);
            attention_batch_requests(&batch[odd], 3, i & 1 ? qo_len : one, i & 1 ? prefill_kv_len : kv_len, 6);
            attention_batch_show(&batch[odd], false);
            attention_batch_poison(&batch[odd], POISON);
            MUST(attention_batch_append(&batch[odd]));
            MUST(attention_batch_run(&batch[odd]));
        }
        for (int which = BATCH_OUT; which <= BATCH_V_CACHE; which++) {
            size_t bytes;
            void *plain = attention_batch_fetch(&batch[0], (enum batch_tensor)which, &bytes);
            void *odd = attention_batch_fetch(&batch[1], (enum batch_tensor)which, &bytes);
            assert_memory_equal(plain, odd, bytes);
            free(plain);
            free(odd);
        }
        attention_batch_destroy(&batch[0]);
        attention_batch_destroy(&batch[1]);
    }
}

/* ---- plans, workspaces, kernels, devices ---- */

static void test_refusals(void **state)
{
    (void)state;
    char sentence[200];
    struct attention_batch b, other;
    const struct device *device = gpu_or_skip(), *cpu;
    MUST(device_get((DLDevice){kDLCPU, 0}, &cpu));
    struct attention_shape shape = decode_shape;
    shape.num_qo_heads = 6, shape.num_kv_heads = 3; /* two KV heads as one would need more than the kernel that is refused */
    shaped_batch(&b, &shape, device);
    attention_batch_create(&other, &shape, cpu, 3);

    flashinfer_plan plan = b.plan;
    b.plan = other.plan;
    assert_int_equal(attention_batch_run(&b), FLASHINFER_FOREIGN_PLAN);
    expect_sentence("batch_decode: plan was made for cpu, must be made for cuda:0");
    b.plan = plan;
    size_t needed = b.exec.workspace_size--;
    assert_int_equal(attention_batch_run(&b), FLASHINFER_WORKSPACE);
    snprintf(sentence, sizeof sentence,
             "batch_decode: kernel batch_decode_stream_sm80 needs %zu bytes of workspace, exec.workspace has %zu", needed,
             needed - 1);
    expect_sentence(sentence);
    b.exec.workspace_size++;
    b.shape.kernel = "batch_decode_cpu";
    assert_int_equal(attention_batch_run(&b), FLASHINFER_UNSUPPORTED);
    expect_sentence("batch_decode: the kernel named by exec.kernel does not serve this call: batch_decode_cpu: runs on CPUs");
    b.shape.kernel = NULL;
    b.exec.device = (DLDevice){kDLCPU, 0};
    assert_int_equal(attention_batch_run(&b), FLASHINFER_INVALID);
    expect_sentence("batch_decode: exec.device is cpu, must be cuda:0 as k_cache");
    b.exec.device = (DLDevice){0};
    b.tensor[BATCH_KV_INDICES].device = (DLDevice){kDLCPU, 0};
    assert_int_equal(attention_batch_run(&b), FLASHINFER_INVALID);
    expect_sentence("batch_decode: kv_indices is on cpu, must be on cuda:0 as k_cache");
    for (int i = 0; i < BATCH_TENSORS; i++)
        b.tensor[i].device = (DLDevice){kDLCUDA, 63};
    assert_int_equal(attention_batch_run(&b), FLASHINFER_INVALID);
    int count;
    DRIVER(cuda()->device_count(&count));
    snprintf(sentence, sizeof sentence, "batch_decode: device cuda:63 does not exist: this process sees %d", count);
    expect_sentence(sentence);
    assert_true(holds_only(&b, POISON));
    attention_batch_destroy(&b);
    attention_batch_destroy(&other);
}

/* ---- contexts and streams ---- */

/* Makes a context current, with none below it. */
static void set_context(cuda_context context)
{
    cuda_context current;
    for (DRIVER(cuda()->context_current(&current)); current; DRIVER(cuda()->context_current(&current)))
        DRIVER(cuda()->context_pop(&current));
    DRIVER(cuda()->context_set(context));
}

/* The call must leave the current context alone, and run in that of its stream. */
static void expect_norm(struct norm *n, cuda_context current, cuda_context where, cuda_stream stream)
{
    uint16_t image[NORM_BYTES / 2];
    cuda_context after;
    norm_fill(image);
    set_context(where);
    DRIVER(cuda()->copy_to_device((cuda_pointer)(uintptr_t)n->out.data, image, sizeof image));
    DRIVER(cuda()->context_synchronize());
    set_context(current);
    MUST(norm_run(n, stream));
    DRIVER(cuda()->context_current(&after));
    assert_ptr_equal(after, current);
    set_context(where);
    DRIVER(cuda()->context_synchronize());
    DRIVER(cuda()->copy_to_host(image, (cuda_pointer)(uintptr_t)n->out.data, sizeof image));
    assert_true(norm_is_right(image));
}

static void test_contexts(void **state)
{
    (void)state;
    const struct device *device = gpu_or_skip();
    int (*create)(cuda_context *, unsigned, cuda_device) =
        (int (*)(cuda_context *, unsigned, cuda_device))(uintptr_t)gpu_symbol("cuCtxCreate_v2");
    int (*destroy)(cuda_context) = (int (*)(cuda_context))(uintptr_t)gpu_symbol("cuCtxDestroy_v2");
    cuda_context primary = device->context, second;
    cuda_device ordinal;
    cuda_pointer memory[2];
    struct norm n[2];
    DRIVER(cuda()->device_get(&ordinal, 0));
    DRIVER(cuda()->memory_alloc(&memory[0], NORM_BYTES));
    cuda_stream stream[2] = {gpu_stream(), NULL};
    DRIVER(create(&second, 0, ordinal));
    DRIVER(cuda()->memory_alloc(&memory[1], NORM_BYTES));
    stream[1] = gpu_stream();
    for (int i = 0; i < 2; i++)
        norm_create(&n[i], device->id, (char *)(uintptr_t)memory[i]);

    expect_norm(&n[0], primary, primary, stream[0]);
    expect_norm(&n[0], NULL, primary, stream[0]);
    expect_norm(&n[0], NULL, primary, NULL);
    expect_norm(&n[0], second, primary, stream[0]);
    expect_norm(&n[1], second, second, stream[1]);
    expect_norm(&n[1], primary, second, stream[1]);
    expect_norm(&n[1], NULL, second, stream[1]);
    expect_norm(&n[1], second, second, NULL); /* the default stream is that of the current context */

    set_context(primary);
    DRIVER(destroy(second));
    DRIVER(cuda()->memory_free(memory[0]));
    DRIVER(cuda()->stream_destroy(stream[0]));
}

/* Where there are two GPUs. */
static void test_stream_of_another_device(void **state)
{
    (void)state;
    const struct device *device = gpu_or_skip(), *other;
    cuda_pointer memory;
    struct norm n;
    int count;
    DRIVER(cuda()->device_count(&count));
    if (count < 2)
        skip();
    DRIVER(cuda()->memory_alloc(&memory, NORM_BYTES));
    norm_create(&n, device->id, (char *)(uintptr_t)memory);
    MUST(device_get((DLDevice){kDLCUDA, 1}, &other));
    MUST(device_enter(other));
    cuda_stream stream = gpu_stream();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(norm_run(&n, stream), FLASHINFER_INVALID);
        expect_sentence("kernel norm_short_sm80: exec.stream belongs to device 1, the tensors to cuda:0");
        MUST(device_enter(device));
    }
    DRIVER(cuda()->memory_free(memory));
}

/* ---- kernels of users ---- */

/* Scales every other column of what an op before it on the stream wrote. */
static void test_user_kernel(void **state)
{
    (void)state;
    static const char *const constants[] = {"FACTOR", NULL};
    static const struct flashinfer_kernel_source source = {
        .size = sizeof source,
        .name = "scale_columns",
        .cuda = "#include \"arguments.h\"\n"
                "struct args { struct tensor x; union number factor; };\n"
                "extern \"C\" __global__ void scale_columns(const __grid_constant__ struct args a)\n"
                "{\n"
                "    unsigned short *x = (unsigned short *)a.x.data + blockIdx.x * a.x.stride[0] + threadIdx.x * a.x.stride[1];\n"
                "    unsigned bits = (unsigned)*x << 16;\n"
                "    if (threadIdx.x < a.x.shape[1])\n"
                "        *x = (unsigned short)(__float_as_uint(__uint_as_float(bits) * (float)a.factor.f * FACTOR) >> 16);\n"
                "}\n",
        .constants = constants,
    };
    const struct device *device = gpu_or_skip();
    const flashinfer_number half = FLASHINFER_FLOAT(0.5);
    const int32_t eight = 8;
    uint16_t image[NORM_BYTES / 2];
    cuda_pointer memory;
    struct norm n;
    flashinfer_kernel *kernel;
    DRIVER(cuda()->memory_alloc(&memory, NORM_BYTES));
    norm_create(&n, device->id, (char *)(uintptr_t)memory);
    norm_fill(image);
    MUST(device_upload(device, n.out.data, image, sizeof image));
    DLTensor columns = n.out;
    columns.shape = (int64_t[]){ROWS, HIDDEN / 2};
    columns.strides = (int64_t[]){HIDDEN, 2};
    const DLTensor *const tensors[] = {&columns};
    const struct flashinfer_kernel_launch launch = {.size = sizeof launch,
                                                    .tensors = tensors,
                                                    .num_tensors = 1,
                                                    .num_numbers = 1,
                                                    .numbers = &half,
                                                    .constants = &eight,
                                                    .grid = {ROWS},
                                                    .block = {HIDDEN / 2}};
    const flashinfer_exec exec = {.size = sizeof exec, .stream = gpu_stream()};
    MUST(flashinfer_kernel_create(&source, &kernel));
    MUST(norm_run(&n, exec.stream));
    MUST(flashinfer_kernel_launch(kernel, &launch, &exec));
    DRIVER(cuda()->stream_synchronize(exec.stream));
    MUST(device_download(device, image, n.out.data, sizeof image));
    for (int i = 0; i < ROWS * HIDDEN; i++)
        assert_int_equal(image[i], i % 2 ? 0x3f80 : 0x4080); /* 1 and 4 */
    flashinfer_kernel_destroy(kernel);
    DRIVER(cuda()->stream_destroy(exec.stream));
    DRIVER(cuda()->memory_free(memory));
}

/* ---- the steady state ---- */

static void test_allocates_nothing(void **state)
{
    (void)state;
    enum { CALLS = 1000, SMALL = 65536 }; /* a leak of 16 bytes a step and op would be three times as much */
    struct decode_step step;
    size_t before, after, total;
    const struct device *device = gpu_or_skip();
    cuda_stream stream = gpu_stream();
    decode_step_create(&step, device, stream);
    for (int i = 0; i < 10; i++)
        MUST(decode_step_enqueue(&step));
    DRIVER(cuda()->stream_synchronize(stream));
    uint64_t kernels = compiled() + loaded();
    struct mallinfo2 heap = mallinfo2();
    DRIVER(cuda()->memory_info(&before, &total));
    for (int i = 0; i < CALLS; i++) {
        MUST(decode_step_enqueue(&step));
        if (i % 20 == 0)
            DRIVER(cuda()->stream_synchronize(stream));
    }
    DRIVER(cuda()->memory_info(&after, &total));
    assert_int_equal(before, after);
    DRIVER(cuda()->stream_synchronize(stream));
    struct mallinfo2 now = mallinfo2();
    assert_true(now.uordblks < heap.uordblks + SMALL);
    assert_int_equal(compiled() + loaded(), kernels);
    decode_step_destroy(&step);
    DRIVER(cuda()->stream_destroy(stream));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_validation, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_no_nvrtc, setup_folder, teardown_folder),
        cmocka_unit_test(test_managed_memory),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_stream_of_another_device),
        cmocka_unit_test(test_user_kernel),
        cmocka_unit_test(test_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
