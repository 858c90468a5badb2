/* SPDX-License-Identifier: Apache-2.0 */
/* Calls whose launches are known are not worked out again: which those are, and that they compute what they would have. The calls
 * are rmsnorm of ones, whose result is the weight. */
#include <pthread.h>

#include "flashinfer/norm.h"
#include "op/recall.h"

#include "tests/op/calls.h"

enum { HIDDEN = 64, WEIGHTS = 3000, ALL_WAYS = 4 * 256, RELUCTANCE = 8, WORKSPACES = 16, THREADS = 4, ROUNDS = 40 };
enum { ONE = 0x3c00 /* in f16 */ };

static uint16_t weights[WEIGHTS][HIDDEN], ones[HIDDEN];
static int late; /* calls that found no room at first */

struct norm {
    DLTensor out, input, weight;
    struct flashinfer_rmsnorm args;
};

static void set_up(struct norm *n, uint16_t *out, int weight)
{
    static int64_t shape[] = {1, HIDDEN};
    const DLTensor row = {.data = ones, .device = {kDLCPU, 0}, .ndim = 2, .dtype = dtype_dlpack(DTYPE_F16), .shape = shape};
    n->out = n->input = n->weight = row;
    n->out.data = out;
    n->weight.data = weights[weight];
    n->weight.ndim = 1;
    n->weight.shape = shape + 1;
    n->args = (struct flashinfer_rmsnorm){.size = sizeof n->args, .out = &n->out, .input = &n->input, .weight = &n->weight};
}

/* Every weight is another one. */
static int fill(void **state)
{
    (void)state;
    for (int i = 0; i < HIDDEN; i++)
        ones[i] = ONE;
    for (int i = 0; i < WEIGHTS; i++)
        for (int k = 0; k < HIDDEN; k++)
            weights[i][k] = (uint16_t)(ONE + i % 1000 + k);
    return 0;
}

/* Calls, looks at what is written, and leaves something else there. */
static bool is_right(struct norm *n, const flashinfer_exec *exec)
{
    const bool right = !flashinfer_rmsnorm(&n->args, exec) && !memcmp(n->out.data, n->weight.data, sizeof ones);
    memset(n->out.data, 0x7f, sizeof ones);
    return right;
}

/* Whether the launches of a call are known. If so, makes them. */
static bool is_known(struct norm *n, const flashinfer_exec *exec)
{
    static struct recall recall;
    static struct call call;
    const struct op *op = op_find("rmsnorm");
    if (!recall_find(&recall, &call, op, &n->args, exec) || !recall.replay)
        return false;
    assert_int_equal(replay_run(recall.replay, NULL), FLASHINFER_OK);
    assert_memory_equal(n->out.data, n->weight.data, sizeof ones);
    memset(n->out.data, 0x7f, sizeof ones);
    return true;
}

/* Known from the first call on; from one of the first RELUCTANCE on if its set is full, which addresses may bring about. */
static void expect_new(struct norm *n, const flashinfer_exec *exec)
{
    assert_false(is_known(n, exec));
    assert_true(is_right(n, exec));
    if (is_known(n, exec))
        return;
    late++;
    for (int i = 1; i < RELUCTANCE; i++)
        assert_true(is_right(n, exec));
    assert_true(is_known(n, exec));
}

static void test_what_is_known(void **state)
{
    (void)state;
    static _Alignas(256) unsigned char workspace[512];
    static uint16_t out[2][HIDDEN];
    char name[] = "norm_cpu";
    struct norm n;
    set_up(&n, out[0], 0);
    expect_new(&n, NULL);
    assert_true(is_known(&n, EXEC(.threads = 0)));
    weights[0][3]++; /* tensors' content is no part of it */
    assert_true(is_known(&n, NULL));
    n.weight.data = weights[1];
    expect_new(&n, NULL);
    n.out.data = out[1];
    expect_new(&n, NULL);
    n.weight.data = weights[0];
    n.weight.byte_offset = sizeof weights[0];
    assert_int_equal(flashinfer_rmsnorm(&n.args, NULL), FLASHINFER_OK);
    assert_memory_equal(out[1], weights[1], sizeof ones);
    n.weight.byte_offset = 0;
    expect_new(&n, EXEC(.kernel = "norm_cpu"));
    assert_true(is_known(&n, EXEC(.kernel = name)));
    name[0] = 'm';
    assert_false(is_known(&n, EXEC(.kernel = name)));
    assert_int_equal(flashinfer_rmsnorm(&n.args, EXEC(.kernel = name)), FLASHINFER_INVALID);
    expect_new(&n, NULL);
    n.out.data = weights[WEIGHTS - 1];
    expect_new(&n, EXEC(.workspace = workspace, .workspace_size = 256));
    expect_new(&n, EXEC(.workspace = workspace, .workspace_size = 512));
    expect_new(&n, EXEC(.workspace = workspace + 256, .workspace_size = 256));
    expect_new(&n, EXEC(.flags = FLASHINFER_BATCH_INVARIANT));
    expect_new(&n, EXEC(.threads = 1));
    n.out.data = weights[2];
    expect_new(&n, NULL);
    assert_false(is_known(&n, EXEC(.kernel = "norm_cpu")));
    n.args.eps = 1e-5;
    expect_new(&n, NULL);
    fill(NULL);
}

/* Of two calls whose hashes are the same: 9 bits lie between two addresses of it. */
static void test_same_hash(void **state)
{
    (void)state;
    static _Alignas(1 << 14) uint16_t memory[2][1 << 14];
    static uint16_t out[HIDDEN];
    struct norm n;
    for (int i = 0; i < 1 << 14; i++) {
        memory[0][i] = ONE;
        memory[1][i] = (uint16_t)(ONE + i % 1000);
    }
    set_up(&n, out, 0);
    n.input.data = memory[0];
    n.weight.data = memory[1];
    expect_new(&n, NULL);
    n.input.data = memory[0] + 8;
    n.weight.data = memory[1] + (8 << 9);
    expect_new(&n, NULL);
}

/* A call that is made with many workspaces in turn. */
static void test_workspaces(void **state)
{
    (void)state;
    static _Alignas(256) unsigned char workspace[WORKSPACES][256];
    static uint16_t out[HIDDEN];
    int known = 0;
    struct norm n;
    set_up(&n, out, 3);
    for (int i = 0; i < WORKSPACES; i++)
        expect_new(&n, EXEC(.workspace = workspace[i], .workspace_size = sizeof workspace[i]));
    for (int i = 0; i < WORKSPACES; i++)
        known += is_known(&n, EXEC(.workspace = workspace[i], .workspace_size = sizeof workspace[i]));
    assert_in_range(known, WORKSPACES - 1, WORKSPACES); /* one more call in a full set takes another's place */
}

/* What is refused is not known the next time. */
static void test_refused(void **state)
{
    (void)state;
    static uint16_t out[HIDDEN];
    struct norm n;
    set_up(&n, out, 2);
    assert_int_equal(flashinfer_rmsnorm(&n.args, EXEC(.kernel = "norm_sm80")), FLASHINFER_UNSUPPORTED);
    assert_false(is_known(&n, EXEC(.kernel = "norm_sm80")));
    expect_new(&n, NULL);
    n.out.data = ones; /* in place: legal */
    n.weight.data = ones;
    assert_int_equal(flashinfer_rmsnorm(&n.args, NULL), FLASHINFER_INVALID); /* the weight is overwritten: not */
    assert_false(is_known(&n, NULL));
    assert_int_equal(flashinfer_rmsnorm(&n.args, NULL), FLASHINFER_INVALID);
}

/* More than are remembered. */
static void test_forgotten(void **state)
{
    (void)state;
    static uint16_t out[HIDDEN];
    int known = 0;
    struct norm n;
    for (int i = 0; i < ROUNDS * WEIGHTS; i++) {
        set_up(&n, out, i % WEIGHTS);
        assert_true(is_right(&n, NULL));
    }
    for (int i = 0; i < WEIGHTS; i++) {
        set_up(&n, out, i);
        known += is_known(&n, NULL);
    }
    assert_in_range(known, ALL_WAYS / 2, ALL_WAYS);
    for (int i = 0; i < 100 && !is_known(&n, NULL); i++) /* the last of all, if it is called often */
        assert_true(is_right(&n, NULL));
    assert_true(is_known(&n, NULL));
}

struct worker {
    pthread_t thread;
    int wrong;
    uint16_t out[HIDDEN];
};

static void *work(void *context)
{
    struct worker *worker = context;
    for (int i = 0; i < ROUNDS * WEIGHTS; i++) {
        struct norm n;
        set_up(&n, worker->out, i / ROUNDS);
        worker->wrong += !is_right(&n, NULL);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(workers[i].wrong, 0);
}

static void test_few_were_late(void **state)
{
    (void)state;
    assert_in_range(late, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_known),
        cmocka_unit_test(test_same_hash),
        cmocka_unit_test(test_workspaces),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_few_were_late),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
