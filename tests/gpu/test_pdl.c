/* SPDX-License-Identifier: Apache-2.0 */
/* Programmatic dependent launch: a chain of two kernels in a captured graph. The second one is launched while the first runs,
 * reads nothing before that one has ended, and so a chain takes less time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "tests/gpu/gpu.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { POISON = 0x7f, ROUNDS = 20, FEW_ROUNDS = 4, FEW_ROWS = 100, PDL_ARCH = 90 };

enum { X, Y, Z, WEIGHT, TENSORS };

/* times y = rmsnorm(x), z = rmsnorm(y), or z holds the codes and, at its half, the scales of the first rows' */
struct chain {
    flashinfer_exec exec;
    const struct device *device;
    int64_t shape[2];
    size_t bytes; /* of x, y, z */
    DLTensor tensor[TENSORS];
    int times;
    bool quantizes;
};

static flashinfer_status quantize_few(const struct chain *c)
{
    DLTensor y = c->tensor[Y], codes, scales;
    int64_t few[] = {FEW_ROWS, c->shape[1]}, bytes[] = {FEW_ROWS, c->shape[1] / 2}, blocks[] = {FEW_ROWS, c->shape[1] / 16};
    y.shape = few;
    codes = (DLTensor){c->tensor[Z].data, y.device, 2, dtype_dlpack(DTYPE_U8), bytes, NULL, 0};
    scales = (DLTensor){(char *)codes.data + c->bytes / 2, y.device, 2, dtype_dlpack(DTYPE_U8), blocks, NULL, 0};
    return FLASHINFER(rmsnorm_fp4quant, &c->exec, .y_fp4 = &codes, .block_scale = &scales, .input = &y,
                      .weight = &c->tensor[WEIGHT]);
}

static flashinfer_status enqueue(void *context)
{
    struct chain *c = context;
    DLTensor *t = c->tensor;
    for (int i = 0; i < c->times; i++) {
        TRY(FLASHINFER(rmsnorm, &c->exec, .out = &t[Y], .input = &t[X], .weight = &t[WEIGHT]));
        if (c->quantizes)
            TRY(quantize_few(c));
        else
            TRY(FLASHINFER(rmsnorm, &c->exec, .out = &t[Z], .input = &t[Y], .weight = &t[WEIGHT]));
    }
    return FLASHINFER_OK;
}

static void create(struct chain *c, int64_t rows, int64_t hidden, int times)
{
    uint32_t random = 1;
    *c = (struct chain){.device = gpu_or_skip(), .shape = {rows, hidden}, .bytes = (size_t)(rows * hidden) * 2, .times = times};
    if (c->device->arch < PDL_ARCH)
        skip();
    c->exec = (flashinfer_exec){.size = sizeof c->exec, .stream = gpu_stream()};
    uint16_t *values = malloc(c->bytes);
    assert_non_null(values);
    for (size_t i = 0; i < c->bytes / sizeof *values; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = (uint16_t)((random >> 16 & 0x81ff) | 0x3c00);
    }
    for (int i = 0; i < TENSORS; i++) {
        DLTensor *t = &c->tensor[i];
        *t = (DLTensor){.device = c->device->id, .ndim = 2, .dtype = dtype_dlpack(DTYPE_BF16), .shape = c->shape};
        if (i == WEIGHT) {
            t->ndim = 1;
            t->shape = &c->shape[1];
        }
        MUST(device_alloc(c->device, c->bytes, &t->data));
        MUST(device_upload(c->device, t->data, values, c->bytes));
    }
    free(values);
}

static void destroy(struct chain *c)
{
    for (int i = 0; i < TENSORS; i++)
        device_free(c->device, c->tensor[i].data);
    DRIVER(cuda()->stream_destroy(c->exec.stream));
}

/* What the chain captures, at most two nodes: how the second follows the first; 0: at its end, 1: programmatically. */
static int edge_of(struct chain *c)
{
    struct edge {
        uint8_t from_port, to_port, type, reserved[5];
    } edge[4] = {{0}};
    void *from[4], *to[4];
    size_t count = 4;
    cuda_graph graph;
    int (*get_edges)(cuda_graph, void **, void **, struct edge *, size_t *);
    *(void **)&get_edges = gpu_symbol("cuGraphGetEdges_v2");
    DRIVER(cuda()->capture_begin(c->exec.stream, CUDA_CAPTURE_THREAD_LOCAL));
    MUST(enqueue(c));
    DRIVER(cuda()->capture_end(c->exec.stream, &graph));
    DRIVER(get_edges(graph, from, to, edge, &count));
    DRIVER(cuda()->graph_destroy(graph));
    assert_int_equal(count, 1);
    return edge[0].type;
}

static void poison(const struct chain *c)
{
    for (int i = Y; i <= Z; i++)
        DRIVER(cuda()->fill_bytes((cuda_pointer)(uintptr_t)c->tensor[i].data, POISON, c->bytes));
    MUST(device_wait(c->device)); /* no stream of the test's waits for the one that fills */
}

static unsigned char *results(const struct chain *c)
{
    unsigned char *both = malloc(2 * c->bytes);
    assert_non_null(both);
    MUST(device_download(c->device, both, c->tensor[Y].data, c->bytes));
    MUST(device_download(c->device, both + c->bytes, c->tensor[Z].data, c->bytes));
    return both;
}

/* The first kernel takes long; what the second would read too early is poison. */
static void try_waiting(bool quantizes)
{
    struct chain c;
    create(&c, 10007, 4096, 1);
    c.quantizes = quantizes;
    c.exec.flags = FLASHINFER_PDL;
    MUST(enqueue(&c)); /* loads kernels that have code of their own for it */
    DRIVER(cuda()->stream_synchronize(c.exec.stream));
    c.exec.flags = 0;
    poison(&c);
    MUST(enqueue(&c));
    DRIVER(cuda()->stream_synchronize(c.exec.stream));
    unsigned char *expected = results(&c);
    for (int pdl = 0; pdl < 2; pdl++) {
        c.exec.flags = pdl ? FLASHINFER_PDL : 0;
        assert_int_equal(edge_of(&c), pdl);
        cuda_graph_exec graph = gpu_capture(c.exec.stream, enqueue, &c);
        for (int round = 0; round < FEW_ROUNDS; round++) {
            poison(&c);
            gpu_replay(graph, c.exec.stream);
            unsigned char *got = results(&c);
            assert_memory_equal(got, expected, 2 * c.bytes);
            free(got);
        }
        DRIVER(cuda()->graph_exec_destroy(graph));
    }
    free(expected);
    destroy(&c);
}

static void test_waits(void **state)
{
    (void)state;
    try_waiting(false);
}

/* A kernel that goes through its code before it waits, see pdl.cuh. */
static void test_rehearses(void **state)
{
    (void)state;
    try_waiting(true);
}

/* Milliseconds of the fastest of some replays. */
static float fastest(struct chain *c, cuda_graph_exec graph)
{
    cuda_event begin, end;
    float least = 1e9f, now;
    DRIVER(cuda()->event_create(&begin, CUDA_EVENT_DEFAULT));
    DRIVER(cuda()->event_create(&end, CUDA_EVENT_DEFAULT));
    for (int round = 0; round < ROUNDS; round++) {
        DRIVER(cuda()->event_record(begin, c->exec.stream));
        DRIVER(cuda()->graph_launch(graph, c->exec.stream));
        DRIVER(cuda()->event_record(end, c->exec.stream));
        DRIVER(cuda()->event_synchronize(end));
        DRIVER(cuda()->event_elapsed(&now, begin, end));
        least = now < least ? now : least;
    }
    DRIVER(cuda()->event_destroy(begin));
    DRIVER(cuda()->event_destroy(end));
    return least;
}

static void test_overlaps(void **state)
{
    (void)state;
    struct chain c;
    float milliseconds[2];
    create(&c, 1, 4096, 50);
    MUST(enqueue(&c));
    for (int pdl = 0; pdl < 2; pdl++) {
        c.exec.flags = pdl ? FLASHINFER_PDL : 0;
        cuda_graph_exec graph = gpu_capture(c.exec.stream, enqueue, &c);
        milliseconds[pdl] = fastest(&c, graph);
        DRIVER(cuda()->graph_exec_destroy(graph));
    }
    print_message("a node of a chain takes %.2f us, with programmatic dependent launch %.2f\n",
                  1e3 * (double)milliseconds[0] / (2 * c.times), 1e3 * (double)milliseconds[1] / (2 * c.times));
    assert_true(milliseconds[1] < 0.9f * milliseconds[0]);
    destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_rehearses),
        cmocka_unit_test(test_overlaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
