/* SPDX-License-Identifier: Apache-2.0 */
/* Problems from a declaration: given values, defaults, draws that keep or break rules, layouts. */
#include "fake_op.h"
#include "harness/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct problem *create(struct problem_request request)
{
    struct problem *problem;
    request.op = &op_fake;
    if (problem_create(&request, &problem))
        fail_msg("%s", flashinfer_last_error());
    return problem;
}

static void given_values(void **state)
{
    (void)state;
    struct problem *p = create((struct problem_request){
        .values = "rows=3 n=8 pieces=4 layout=FANCY factor=0.5 input:dtype=f32 -bias"});
    assert_int_equal(problem_dim(p, "rows"), 3);
    assert_int_equal(problem_dim(p, "n"), 8);
    assert_int_equal(problem_dim(p, "layout"), 1);
    assert_int_equal(problem_tensor(p, "out")->dtype, DTYPE_F32);
    assert_false(problem_tensor(p, "bias")->present);
    assert_int_equal(problem_tensor(p, "out")->elements, 24);
    assert_string_equal(p->text, "rows=3 n=8 pieces=4 layout=FANCY input:dtype=f32 -bias factor=0.5");
    problem_destroy(p);
}

static void bad_values(void **state)
{
    (void)state;
    static const char *const bad[] = {"rows",       "row=3",  "rows=x",           "dtype=f17",
                                      "layout=ODD", "-input", "inputs:dtype=f16", "n=7 pieces=2",
                                      "rows=-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct problem_request request = {.op = &op_fake, .values = bad[i]};
        struct problem *problem;
        assert_int_equal(problem_create(&request, &problem), FLASHINFER_INVALID);
    }
}

/* Many seeds: all are legal calls, and together they reach every choice. */
static void seeds(void **state)
{
    (void)state;
    int empty = 0, alias = 0, without_bias = 0, f32 = 0, padded = 0, misaligned = 0, shared = 0, fancy = 0,
        special = 0, factor = 0;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct problem *p = create((struct problem_request){.seed = seed});
        const struct device *cpu;
        struct placement *placement;
        struct call call;
        assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
        assert_int_equal(placement_create(p, cpu, &placement), FLASHINFER_OK);
        if (placement_check(placement, &call))
            fail_msg("seed %d: %s: %s", (int)seed, p->text, flashinfer_last_error());
        const struct problem_tensor *input = problem_tensor(p, "input"), *out = problem_tensor(p, "out"),
                                    *total = problem_tensor(p, "total");
        assert_int_equal(problem_dim(p, "n") % problem_dim(p, "pieces"), 0);
        empty += call.empty;
        alias += out->alias >= 0;
        without_bias += !problem_tensor(p, "bias")->present;
        f32 += input->dtype == DTYPE_F32;
        padded += total->ndim > 1 && total->stride[total->ndim - 2] > total->shape[total->ndim - 1];
        misaligned += input->offset % 16 != 0;
        shared += p->num_memories < 3;
        fancy += problem_dim(p, "layout") == 1;
        factor += p->number[4] != 1;
        for (int64_t i = 0; i < input->elements; i++)
            special += problem_get(input, i) != problem_get(input, i);
        placement_destroy(placement);
        problem_destroy(p);
    }
    assert_true(empty > 4 && alias > 10 && without_bias > 20 && f32 > 100 && padded > 20 && misaligned > 20 &&
                shared > 5 && fancy > 5);
    assert_true(special > 5 && factor > 5);
}

/* Rows of 64 elements and what follows them begin at multiples of 16 bytes, wherever the tensors lie. */
static void aligned_seeds(void **state)
{
    (void)state;
    int moved = 0, padded = 0;
    for (int n = 0; n < 100; n++) {
        struct problem *p = create((struct problem_request){.values = "n=64", .seed = problem_aligned_seed(n)});
        const struct problem_tensor *input = problem_tensor(p, "input"), *total = problem_tensor(p, "total");
        assert_int_equal(input->offset % 16, 0);
        assert_int_equal(total->offset % 16, 0);
        for (int axis = 0; axis + 1 < total->ndim; axis++)
            assert_int_equal(total->stride[axis] * (int64_t)dtype_bytes(total->dtype) % 16, 0);
        moved += input->offset != problem_tensor(p, "out")->offset;
        padded += total->ndim > 1 && total->stride[total->ndim - 2] > total->shape[total->ndim - 1];
        problem_destroy(p);
    }
    assert_true(moved > 5 && padded > 5);
}

/* Arguments as without a seed; places are drawn. */
static void plain_seeds(void **state)
{
    (void)state;
    struct problem *usual = create((struct problem_request){.values = "n=64"});
    int moved = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct problem *p = create((struct problem_request){.values = "n=64", .seed = seed, .plain = true});
        assert_string_equal(p->text, usual->text);
        moved += problem_tensor(p, "input")->offset != problem_tensor(usual, "input")->offset;
        problem_destroy(p);
    }
    problem_destroy(usual);
    assert_true(moved > 2);
}

static void same_seed_same_problem(void **state)
{
    (void)state;
    struct problem *a = create((struct problem_request){.seed = 99}),
                   *b = create((struct problem_request){.seed = 99});
    const struct problem_tensor *x = problem_tensor(a, "input"), *y = problem_tensor(b, "input");
    assert_string_equal(a->text, b->text);
    assert_memory_equal(x->values, y->values, (size_t)(x->elements * dtype_bytes(x->dtype)));
    problem_destroy(a);
    problem_destroy(b);
}

static void broken_rules(void **state)
{
    (void)state;
    struct problem *p = create((struct problem_request){.seed = 1, .broken_rule = 2});
    assert_true(problem_dim(p, "n") > 0);
    assert_true(problem_dim(p, "n") % problem_dim(p, "pieces") != 0);
    assert_true(problem_tensor(p, "bias")->present);
    problem_destroy(p);
    p = create((struct problem_request){.seed = 1, .broken_rule = 1});
    assert_int_equal(problem_dim(p, "n"), 0);
    problem_destroy(p);
}

/* Scattering and gathering are each other's inverse, and touch nothing else. */
static void layouts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct problem *p = create((struct problem_request){.seed = seed});
        const struct problem_tensor *t = problem_tensor(p, "total");
        const struct problem_memory *m = &p->memory[t->memory];
        unsigned char *dense = test_malloc((size_t)t->elements * 4 + 1), *image = test_malloc(m->bytes);
        problem_gather(t, m->image, dense);
        assert_memory_equal(dense, t->values, (size_t)t->elements * 4);
        memcpy(image, m->image, m->bytes);
        problem_scatter(t, image, dense);
        assert_memory_equal(image, m->image, m->bytes);
        test_free(dense);
        test_free(image);
        problem_destroy(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_values),           cmocka_unit_test(bad_values),   cmocka_unit_test(seeds),
        cmocka_unit_test(same_seed_same_problem), cmocka_unit_test(broken_rules), cmocka_unit_test(layouts),
        cmocka_unit_test(aligned_seeds),          cmocka_unit_test(plain_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
