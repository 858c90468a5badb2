/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the judges, each op's reference or verify, can say no: outputs that a kernel wrote are right, and wrong once one
 * element is another. */
#include "harness/expected.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"

#undef fail
#include <cmocka.h>

enum { SEEDS = 4, ELEMENTS = 12 };

struct judged {
    struct problem *problem;
    struct placement *placement;
    struct expected *expected;
    unsigned char *output[OP_MAX_ARGS]; /* dense */
};

static void gather(struct judged *j, int arg)
{
    const struct problem_tensor *t = &j->problem->tensor[arg];
    unsigned char *memory = malloc(j->problem->memory[t->memory].bytes);
    j->output[arg] = malloc((size_t)(t->elements * dtype_bytes(t->dtype)) + 1);
    assert_true(memory && j->output[arg]);
    assert_int_equal(placement_fetch(j->placement, t->memory, memory), FLASHINFER_OK);
    problem_gather(t, memory, j->output[arg]);
    free(memory);
}

/* False if there is nothing to judge. */
static bool run(const struct op *op, uint64_t seed, struct judged *j)
{
    const struct problem_request request = {.op = op, .seed = seed};
    const struct device *cpu;
    static struct call call;
    char sentence[1024];
    *j = (struct judged){0};
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    assert_int_equal(problem_create(&request, &j->problem), FLASHINFER_OK);
    if (placement_create(j->problem, cpu, &j->placement) || placement_check(j->placement, &call) ||
        expected_create(j->problem, &call, &j->expected) || !j->expected || op_call(op, j->placement->args, &j->placement->exec))
        return false;
    for (int arg = 0; arg < j->problem->program->num_args; arg++)
        if (j->problem->tensor[arg].present && j->problem->tensor[arg].written)
            gather(j, arg);
    if (!expected_judge(j->expected, j->problem, j->output, sentence, sizeof sentence))
        fail_msg("%s: %s (%s)", op->name, sentence, j->problem->text);
    return true;
}

static void destroy(struct judged *j)
{
    for (int arg = 0; arg < OP_MAX_ARGS; arg++)
        free(j->output[arg]);
    expected_destroy(j->expected);
    placement_destroy(j->placement);
    problem_destroy(j->problem);
}

/* Another exponent, another code, another integer. */
static void spoil(const struct problem_tensor *t, unsigned char *element)
{
    if (t->dtype == DTYPE_BOOL || t->dtype == DTYPE_I32 || t->dtype == DTYPE_I64)
        element[0] ^= 1;
    else
        element[dtype_bytes(t->dtype) - 1] ^= 0x44;
}

static void count(struct judged *j, int arg, int *tried, int *found)
{
    const struct problem_tensor *t = &j->problem->tensor[arg];
    char sentence[1024];
    for (int i = 0; i < ELEMENTS && i < t->elements; i++) {
        unsigned char *element = j->output[arg] + (t->elements * i / ELEMENTS) * dtype_bytes(t->dtype), kept[8];
        memcpy(kept, element, (size_t)dtype_bytes(t->dtype));
        spoil(t, element);
        ++*tried;
        *found += !expected_judge(j->expected, j->problem, j->output, sentence, sizeof sentence);
        memcpy(element, kept, (size_t)dtype_bytes(t->dtype));
    }
}

static void test_every_op(void **state)
{
    (void)state;
    int wrong = 0;
    for (const struct op *const *op = op_registry; *op; op++) {
        int tried[OP_MAX_ARGS] = {0}, found[OP_MAX_ARGS] = {0};
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct judged j;
            bool judged = run(*op, seed, &j);
            for (int arg = 0; judged && arg < OP_MAX_ARGS; arg++)
                if (j.output[arg])
                    count(&j, arg, &tried[arg], &found[arg]);
            destroy(&j);
        }
        for (int arg = 0; arg < OP_MAX_ARGS; arg++)
            if (10 * found[arg] < 9 * tried[arg]) {
                print_error("%s: %d of %d wrong elements of %s were found\n", (*op)->name, found[arg], tried[arg],
                            (*op)->args[arg].name);
                wrong++;
            }
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
