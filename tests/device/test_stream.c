/* SPDX-License-Identifier: Apache-2.0 */
/* stream of device/cpu/stream.h, as a kernel compiled for this machine: each alignment of either side, sizes from nothing to
 * several lines; what lies around stays as it was. */
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
                                  "               (const char *)a->in.data + " AS_TEXT(FROM(slot)) ", " AS_TEXT(BYTES(slot)) ");\n"
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stream)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
