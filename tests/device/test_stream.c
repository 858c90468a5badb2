/* SPDX-License-Identifier: Apache-2.0 */
/* Stores of device/cpu/stream.h, in kernels compiled for this machine. stream: each alignment of either side, sizes from nothing
 * to several lines; what lies around stays as it was. pair_stream: the bytes of vec_store and pair_store, of what is known to be
 * numbers too. */
#include "flashinfer/jit.h"
#include "tests/op/calls.h"

enum { SLOTS = 4096, SLOT = 512, N = SLOTS * SLOT };

#define TO(slot) (slot * SLOT + 64 + slot % 64)
#define FROM(slot) (slot * SLOT + slot / 64)
#define BYTES(slot) (slot * 13 % 300)
#define AS_TEXT_(x) #x
#define AS_TEXT(x) AS_TEXT_(x)

static const char kernel_text[] = "#include \"stream.h\"\n"
                                  "#include \"arguments.h\"\n"
                                  "struct args { struct tensor out, in; };\n"
                                  "void run(const struct args *a, int part, int parts)\n"
                                  "{\n"
                                  "    enum { SLOTS = 4096, SLOT = 512 };\n"
                                  "    int last = (int)part_begin(SLOTS, part + 1, parts);\n"
                                  "    for (int slot = (int)part_begin(SLOTS, part, parts); slot < last; slot++)\n"
                                  "        stream((char *)a->out.data + " AS_TEXT(TO(slot)) ",\n"
                                  "               (const char *)a->in.data + " AS_TEXT(FROM(slot)) ",\n"
                                  "               " AS_TEXT(BYTES(slot)) ");\n"
                                  "    stream_end();\n"
                                  "}\n";

static uint8_t out[N], in[N], want[N];

static void test_stream(void **state)
{
    const struct flashinfer_kernel_source source = {.size = sizeof source, .name = "run", .cpu = kernel_text};
    const DLTensor *tensors[] = {&TENSOR(out, DTYPE_U8, N), &TENSOR(in, DTYPE_U8, N)};
    const struct flashinfer_kernel_launch call = {.size = sizeof call, .tensors = tensors, .num_tensors = 2, .grid = {3}};
    flashinfer_kernel *kernel;
    (void)state;
    for (int i = 0; i < N; i++) {
        in[i] = (uint8_t)(i * 7 + i / 251);
        out[i] = want[i] = (uint8_t)(i * 3);
    }
    for (int slot = 0; slot < SLOTS; slot++)
        memcpy(want + TO(slot), in + FROM(slot), (size_t)BYTES(slot));
    assert_int_equal(flashinfer_kernel_create(&source, &kernel), FLASHINFER_OK);
    assert_int_equal(flashinfer_kernel_launch(kernel, &call, NULL), FLASHINFER_OK);
    assert_memory_equal(out, want, N);
    flashinfer_kernel_destroy(kernel);
}

/* In each dtype 4 * FLOATS bytes: pairs in the order HALVES beside vecs, beside pairs, and in EVEN_ODD. */
enum { DTYPES = 6, FLOATS = 64 * 32, FORMS = 3, STORED = DTYPES * FORMS * 4 * FLOATS };

static const char typed_text[] = "#include \"stream.h\"\n"
                                 "#include \"arguments.h\"\n"
                                 "struct args { struct tensor streamed, stored, in; };\n"
                                 "#define FORM(T, at, vecs, pairs) \\\n"
                                 "    do { \\\n"
                                 "        T *a = (T *)((char *)args->streamed.data + (at) * 4 * n), \\\n"
                                 "          *b = (T *)((char *)args->stored.data + (at) * 4 * n); \\\n"
                                 "        for (int64_t i = 0; i < n; i += PAIR) { \\\n"
                                 "            struct pair x = pair_load(in + i, HALVES); \\\n"
                                 "            vecs; \\\n"
                                 "            pairs; \\\n"
                                 "        } \\\n"
                                 "    } while (0)\n"
                                 "#define DTYPE(T, at) \\\n"
                                 "    FORM(T, 3 * (at), pair_stream(a + i, x, HALVES, WILD), \\\n"
                                 "         (vec_store(b + i, x.v[0]), vec_store(b + i + LANES, x.v[1]))); \\\n"
                                 "    FORM(T, 3 * (at) + 1, pair_stream(a + i, x, HALVES, NUMBERS), \\\n"
                                 "         pair_store(b + i, x, HALVES)); \\\n"
                                 "    FORM(T, 3 * (at) + 2, pair_stream(a + i, x, EVEN_ODD, WILD), \\\n"
                                 "         pair_store(b + i, x, EVEN_ODD))\n"
                                 "void run(const struct args *args, int part, int parts)\n"
                                 "{\n"
                                 "    const float *in = args->in.data;\n"
                                 "    int64_t n = args->in.shape[0];\n"
                                 "    (void)part, (void)parts;\n"
                                 "    DTYPE(f16, 0);\n"
                                 "    DTYPE(bf16, 1);\n"
                                 "    DTYPE(f32, 2);\n"
                                 "    DTYPE(e4m3, 3);\n"
                                 "    DTYPE(e5m2, 4);\n"
                                 "    DTYPE(i8, 5);\n"
                                 "    stream_end();\n"
                                 "}\n";

static _Alignas(64) uint8_t streamed[STORED], stored[STORED];
static float floats[FLOATS];
static const int bytes[DTYPES] = {2, 2, 4, 1, 1, 1};

static void test_typed(void **state)
{
    const struct flashinfer_kernel_source source = {.size = sizeof source, .name = "run", .cpu = typed_text};
    const DLTensor *tensors[] = {&TENSOR(streamed, DTYPE_U8, STORED), &TENSOR(stored, DTYPE_U8, STORED),
                                 &TENSOR(floats, DTYPE_F32, FLOATS)};
    const struct flashinfer_kernel_launch call = {.size = sizeof call, .tensors = tensors, .num_tensors = 3, .grid = {1}};
    flashinfer_kernel *kernel;
    (void)state;
    for (int i = 0; i < FLOATS; i++)
        floats[i] = (float)(i * 37 % 1001 - 500) / 3;
    assert_int_equal(flashinfer_kernel_create(&source, &kernel), FLASHINFER_OK);
    assert_int_equal(flashinfer_kernel_launch(kernel, &call, NULL), FLASHINFER_OK);
    assert_memory_equal(streamed, stored, STORED);
    for (int dtype = 0; dtype < DTYPES; dtype++)
        for (int form = 0; form < FORMS; form++)
            assert_int_not_equal(stored[(dtype * FORMS + form) * 4 * FLOATS + (FLOATS - 1) * bytes[dtype]], 0);
    flashinfer_kernel_destroy(kernel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stream), cmocka_unit_test(test_typed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
