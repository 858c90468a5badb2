/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA graphs and streams: one graph, captured at the declared maximum, serves every smaller batch, with the bits of an eager
 * run; plans share nothing; nothing is compiled during a capture; programmatic launches change no bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/decode_step.h"
#include "tests/jit/support.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { POISON = 0x7f };

static const struct attention_shape decode_shapes[] = {
    {.dtype = DTYPE_BF16,
     .num_qo_heads = 9,
     .num_kv_heads = 3,
     .head_dim = 64,
     .page_size = 16,
     .num_pages = 900,
     .max_batch_size = 9},
    {.dtype = DTYPE_F16,
     .kv_layout = FLASHINFER_HND,
     .num_qo_heads = 8,
     .num_kv_heads = 8,
     .head_dim = 128,
     .page_size = 5,
     .num_pages = 700,
     .max_batch_size = 17,
     .fused = true},
};

static const struct attention_shape prefill_shapes[] = {
    {.dtype = DTYPE_BF16,
     .num_qo_heads = 9,
     .num_kv_heads = 3,
     .head_dim = 64,
     .page_size = 16,
     .num_pages = 60,
     .max_batch_size = 7,
     .max_total_qo = 160},
    {.dtype = DTYPE_F16,
     .kv_layout = FLASHINFER_HND,
     .num_qo_heads = 8,
     .num_kv_heads = 1,
     .head_dim = 128,
     .page_size = 5,
     .num_pages = 300,
     .max_batch_size = 5,
     .max_total_qo = 300,
     .fused = true},
    {.dtype = DTYPE_BF16,
     .num_qo_heads = 8,
     .num_kv_heads = 2,
     .head_dim = 128,
     .page_size = 16,
     .num_pages = 60,
     .max_batch_size = 6,
     .max_total_qo = 300,
     .kernel = "batch_prefill_sm80"},
    {.dtype = DTYPE_BF16, /* keys divided */
     .num_qo_heads = 8,
     .num_kv_heads = 2,
     .head_dim = 128,
     .page_size = 16,
     .num_pages = 600,
     .max_batch_size = 3,
     .max_total_qo = 600,
     .typical_pages = 200,
     .kernel = "batch_prefill_sm80"},
    {.dtype = DTYPE_F16,
     .num_qo_heads = 6,
     .num_kv_heads = 2,
     .head_dim = 64,
     .page_size = 1,
     .num_pages = 4000,
     .max_batch_size = 2,
     .max_total_qo = 500,
     .typical_pages = 4000,
     .kernel = "batch_prefill_sm80"},
};

static flashinfer_status enqueue_attention(void *batch)
{
    return attention_batch_run(batch);
}

/* ---- capture on a cold cache; in a child, whose cache is empty ---- */

static void cold_capture(void)
{
    struct attention_batch batch;
    cuda_graph graph;
    attention_batch_create(&batch, &decode_shapes[0], gpu_of_child(), 1);
    attention_batch_requests(&batch, 4, NULL, NULL, 2);
    cuda_stream stream = batch.exec.stream = gpu_stream();
    for (int i = 0; i < 2; i++) {
        CHECK(!cuda()->capture_begin(stream, i ? CUDA_CAPTURE_RELAXED : CUDA_CAPTURE_THREAD_LOCAL));
        CHECK_FAILS(attention_batch_run(&batch), FLASHINFER_NOT_PREPARED, "kernel batch_decode_stream_");
        CHECK(strstr(flashinfer_last_error(), "T=bf16") && strstr(flashinfer_last_error(), "HEAD_DIM=64"));
        CHECK(strstr(flashinfer_last_error(),
                     ") is not loaded, and cannot be while the stream captures: call flashinfer_prepare, or "
                     "the op itself, before the capture begins"));
        CHECK(!cuda()->capture_end(stream, &graph) && graph && !cuda()->graph_destroy(graph));
    }
    CHECK(compiled() == 0);
    CHECK(attention_batch_prepare(&batch) == FLASHINFER_OK && compiled() == 1);
    attention_batch_poison(&batch, POISON);
    cuda_graph_exec exec = gpu_capture(stream, enqueue_attention, &batch);
    size_t bytes;
    unsigned char *out = attention_batch_fetch(&batch, BATCH_OUT, &bytes);
    CHECK(out[0] == POISON && out[bytes - 1] == POISON); /* a capture runs nothing */
    free(out);
    gpu_replay(exec, stream);
    CHECK(compiled() == 1);
    out = attention_batch_fetch(&batch, BATCH_OUT, &bytes);
    CHECK(out[bytes - 1] == 0 && (out[0] != POISON || out[1] != POISON)); /* the last request has no pages */
}

static void test_cold_capture(void **state)
{
    (void)state;
    gpu_child(cold_capture);
}

/* ---- one graph for all smaller batches ---- */

/* What out and lse hold after an eager run of the requests as they are, and after a replay. */
struct results {
    unsigned char *data[2];
    size_t bytes[2];
};

static struct results fetch(const struct attention_batch *b)
{
    struct results r;
    for (int which = BATCH_OUT; which <= BATCH_LSE; which++)
        r.data[which] = attention_batch_fetch(b, (enum batch_tensor)which, &r.bytes[which]);
    return r;
}

/* Rows that no request has: padding requests of batch_decode see nothing, batch_prefill leaves rows alone. */
static void expect_nothing(const struct attention_batch *b, enum batch_tensor which, const unsigned char *at, size_t bytes)
{
    const float nothing = -INFINITY;
    for (size_t i = 0; i < bytes; i += 4) {
        unsigned char expected[4] = {POISON, POISON, POISON, POISON};
        if (!b->shape.max_total_qo && which == BATCH_OUT)
            memset(expected, 0, sizeof expected);
        else if (!b->shape.max_total_qo)
            memcpy(expected, &nothing, sizeof expected);
        assert_memory_equal(at + i, expected, sizeof expected);
    }
}

static void replays_equal_eager_runs(const struct attention_shape *shape)
{
    struct attention_batch batch;
    attention_batch_create(&batch, shape, gpu_or_skip(), 7);
    cuda_stream stream = batch.exec.stream = gpu_stream();
    attention_batch_requests(&batch, shape->max_batch_size, NULL, NULL, 0);
    attention_batch_show(&batch, true);
    MUST(attention_batch_prepare(&batch));
    cuda_graph_exec graph = gpu_capture(stream, enqueue_attention, &batch);
    for (uint32_t round = 0; round < 3 * (uint32_t)shape->max_batch_size; round++) {
        attention_batch_fill(&batch, round);
        attention_batch_requests(&batch, 1 + (int32_t)round % shape->max_batch_size, NULL, NULL, 100 + round);
        attention_batch_poison(&batch, POISON);
        attention_batch_show(&batch, false);
        MUST(attention_batch_run(&batch));
        struct results eager = fetch(&batch);
        attention_batch_poison(&batch, POISON);
        attention_batch_show(&batch, true);
        gpu_replay(graph, stream);
        struct results replayed = fetch(&batch);
        for (int which = BATCH_OUT; which <= BATCH_LSE; which++) {
            size_t bytes = (size_t)batch.tokens * attention_batch_row(&batch, (enum batch_tensor)which);
            assert_memory_equal(eager.data[which], replayed.data[which], bytes);
            expect_nothing(&batch, (enum batch_tensor)which, replayed.data[which] + bytes, replayed.bytes[which] - bytes);
            free(eager.data[which]);
            free(replayed.data[which]);
        }
    }
    DRIVER(cuda()->graph_exec_destroy(graph));
    DRIVER(cuda()->stream_destroy(stream));
    attention_batch_destroy(&batch);
}

static void test_decode_replays(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decode_shapes / sizeof *decode_shapes; i++)
        replays_equal_eager_runs(&decode_shapes[i]);
}

static void test_prefill_replays(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof prefill_shapes / sizeof *prefill_shapes; i++)
        replays_equal_eager_runs(&prefill_shapes[i]);
}

/* ---- two plans on two streams ---- */

static void test_two_streams(void **state)
{
    (void)state;
    const struct attention_shape *const shapes[] = {&decode_shapes[0], &decode_shapes[1], &prefill_shapes[0], &decode_shapes[0]};
    enum { BATCHES = sizeof shapes / sizeof *shapes, ROUNDS = 20, RUNS = 10 };
    struct attention_batch batch[BATCHES];
    struct results alone[BATCHES];
    const struct device *device = gpu_or_skip();
    for (int i = 0; i < BATCHES; i++) {
        attention_batch_create(&batch[i], shapes[i], device, 30 + (uint32_t)i);
        attention_batch_requests(&batch[i], shapes[i]->max_batch_size, NULL, NULL, 40 + (uint32_t)i);
        attention_batch_show(&batch[i], false);
        batch[i].exec.stream = gpu_stream();
        attention_batch_poison(&batch[i], POISON);
        MUST(attention_batch_run(&batch[i]));
        alone[i] = fetch(&batch[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BATCHES; i++)
            attention_batch_poison(&batch[i], POISON);
        for (int run = 0; run < RUNS; run++)
            for (int i = 0; i < BATCHES; i++)
                MUST(attention_batch_run(&batch[i]));
        for (int i = 0; i < BATCHES; i++) {
            struct results together = fetch(&batch[i]);
            for (int which = BATCH_OUT; which <= BATCH_LSE; which++) {
                assert_memory_equal(alone[i].data[which], together.data[which], together.bytes[which]);
                free(together.data[which]);
            }
        }
    }
    for (int i = 0; i < BATCHES; i++) {
        DRIVER(cuda()->stream_destroy(batch[i].exec.stream));
        attention_batch_destroy(&batch[i]);
        free(alone[i].data[0]);
        free(alone[i].data[1]);
    }
}

/* ---- a whole step: eager, captured, with programmatic launches ---- */

static void expect_results(const struct decode_step *s, const void *expected, size_t bytes)
{
    size_t got;
    void *results = decode_step_results(s, &got);
    assert_int_equal(got, bytes);
    assert_memory_equal(results, expected, bytes);
    free(results);
}

static void test_step(void **state)
{
    (void)state;
    enum { ROUNDS = 25 };
    struct decode_step step;
    size_t bytes;
    cuda_graph_exec graph[2];
    const struct device *device = gpu_or_skip();
    cuda_stream stream = gpu_stream();
    decode_step_create(&step, device, stream);
    decode_step_poison(&step);
    MUST(decode_step_enqueue(&step));
    void *expected = decode_step_results(&step, &bytes);
    for (int pdl = 0; pdl < 2; pdl++) {
        decode_step_set_flags(&step, pdl ? FLASHINFER_PDL : 0);
        graph[pdl] = gpu_capture(stream, decode_step_enqueue, &step);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int pdl = 0; pdl < 2; pdl++) {
            decode_step_set_flags(&step, pdl ? FLASHINFER_PDL : 0);
            decode_step_poison(&step);
            for (int i = 0; i < 1 + round % 3; i++) /* steps that follow each other closely */
                MUST(decode_step_enqueue(&step));
            expect_results(&step, expected, bytes);
            decode_step_poison(&step);
            gpu_replay(graph[pdl], stream);
            expect_results(&step, expected, bytes);
        }
    for (int pdl = 0; pdl < 2; pdl++)
        DRIVER(cuda()->graph_exec_destroy(graph[pdl]));
    free(expected);
    decode_step_destroy(&step);
    DRIVER(cuda()->stream_destroy(stream));
}

/* ---- tables that the kernel before writes: what a kernel found in them ahead of it may be the requests before ---- */

enum { TABLES = 3, SETS = 3, TURNS = 18 };

static const enum batch_tensor tables[TABLES] = {BATCH_KV_INDPTR, BATCH_KV_INDICES, BATCH_KV_LAST_PAGE_LEN};

struct turns {
    struct attention_batch batch;
    int64_t shape[TABLES], shape_more[TABLES];
    DLTensor values[SETS][TABLES], numbers[TABLES]; /* 0, 1, 2 ... */
    void *out[TURNS];
    struct results expected[SETS];
};

static void make_table(struct turns *c, DLTensor *t, const int32_t *values, int64_t *shape)
{
    *t = (DLTensor){.device = c->batch.device->id, .ndim = 1, .dtype = dtype_dlpack(DTYPE_I32), .shape = shape};
    MUST(device_alloc(c->batch.device, (size_t)*shape * sizeof *values, &t->data));
    MUST(device_upload(c->batch.device, t->data, values, (size_t)*shape * sizeof *values));
}

static void make_turns(struct turns *c, const struct attention_shape *shape)
{
    struct attention_batch *b = &c->batch;
    size_t bytes;
    attention_batch_create(b, shape, gpu_or_skip(), 50);
    b->exec.stream = gpu_stream();
    for (int i = 0; i < TABLES; i++) {
        c->shape[i] = b->shapes[tables[i]][0];
        c->shape_more[i] = c->shape[i] + 1;
        int32_t *numbers = malloc((size_t)c->shape_more[i] * sizeof *numbers);
        assert_non_null(numbers);
        for (int32_t j = 0; j < c->shape_more[i]; j++)
            numbers[j] = j;
        make_table(c, &c->numbers[i], numbers, &c->shape_more[i]);
        free(numbers);
    }
    for (int set = 0; set < SETS; set++) {
        attention_batch_requests(b, shape->max_batch_size - set, NULL, NULL, 60 + (uint32_t)set);
        for (int i = 0; i < TABLES; i++) {
            int32_t *values = attention_batch_fetch(b, tables[i], &bytes);
            make_table(c, &c->values[set][i], values, &c->shape[i]);
            free(values);
        }
        MUST(attention_batch_run(b));
        c->expected[set] = fetch(b);
    }
    c->out[0] = b->tensor[BATCH_OUT].data;
    for (int turn = 1; turn < TURNS; turn++)
        MUST(device_alloc(b->device, c->expected[0].bytes[BATCH_OUT], &c->out[turn]));
}

/* Requests of a page each are as long as that page: get_seq_lens copies. Each table is the last one in some turns. */
static flashinfer_status enqueue_turns(void *context)
{
    struct turns *c = context;
    struct attention_batch *b = &c->batch;
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < TABLES; i++) {
            int table = (turn / SETS + i) % TABLES;
            TRY(FLASHINFER(get_seq_lens, &b->exec, .seq_lens = &b->tensor[tables[table]], .kv_indptr = &c->numbers[table],
                           .kv_last_page_len = &c->values[turn % SETS][table], .page_size = 1));
        }
        b->tensor[BATCH_OUT].data = c->out[turn];
        TRY(attention_batch_run(b));
    }
    return FLASHINFER_OK;
}

static void expect_turns(struct turns *c)
{
    for (int turn = 0; turn < TURNS; turn++) {
        size_t bytes;
        c->batch.tensor[BATCH_OUT].data = c->out[turn];
        void *out = attention_batch_fetch(&c->batch, BATCH_OUT, &bytes);
        assert_memory_equal(out, c->expected[turn % SETS].data[BATCH_OUT], bytes);
        free(out);
        attention_batch_poison(&c->batch, POISON);
    }
}

static void destroy_turns(struct turns *c)
{
    for (int turn = 1; turn < TURNS; turn++)
        device_free(c->batch.device, c->out[turn]);
    for (int i = 0; i < TABLES; i++) {
        device_free(c->batch.device, c->numbers[i].data);
        for (int set = 0; set < SETS; set++)
            device_free(c->batch.device, c->values[set][i].data);
    }
    for (int set = 0; set < SETS; set++)
        for (int which = BATCH_OUT; which <= BATCH_LSE; which++)
            free(c->expected[set].data[which]);
    DRIVER(cuda()->stream_destroy(c->batch.exec.stream));
    attention_batch_destroy(&c->batch);
}

static void test_tables_written_before(void **state)
{
    (void)state;
    enum { ROUNDS = 10 };
    struct turns turns;
    for (size_t i = 0; i < sizeof decode_shapes / sizeof *decode_shapes; i++) {
        make_turns(&turns, &decode_shapes[i]);
        turns.batch.exec.flags = FLASHINFER_PDL;
        MUST(enqueue_turns(&turns));
        DRIVER(cuda()->stream_synchronize(turns.batch.exec.stream));
        expect_turns(&turns);
        cuda_graph_exec graph = gpu_capture(turns.batch.exec.stream, enqueue_turns, &turns);
        for (int round = 0; round < ROUNDS; round++) {
            gpu_replay(graph, turns.batch.exec.stream);
            expect_turns(&turns);
        }
        DRIVER(cuda()->graph_exec_destroy(graph));
        destroy_turns(&turns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cold_capture, setup_folder, teardown_folder),
        cmocka_unit_test(test_decode_replays),
        cmocka_unit_test(test_prefill_replays),
        cmocka_unit_test(test_two_streams),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_tables_written_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
